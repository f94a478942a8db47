"""Checkpoints: safetensors files of arrays, with the architecture as JSON in the header; no code.

A `Sequential` saves its model in one, a `Trainer` the state of the training beside the model.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save as serialize

from ..files import write_whole

_FORMAT = "cnn-kernels model 1"
_PREFIX = "training."  # begins the names of arrays that are not the model's
# NumPy's types by safetensors' names. Its own reader for NumPy does not know bfloat16.
_DTYPES = {
    **{
        f"{letter}{8 * size}": f"{letter.lower()}{size}" for letter in "IU" for size in (1, 2, 4, 8)
    },
    **{"F16": "float16", "F32": "float32", "F64": "float64", "BF16": "bfloat16"},
    **{"BOOL": "bool", "C64": "complex64"},
}
# The form of each description. A dict lists keys that must be there, a list has the form of every
# element, a tuple those of so many elements.
_FORMS: dict[str, dict[str, Any]] = {
    "architecture": {
        "layers": [(str, dict)],
        "input_shape": [int],
        "dtype": str,
        "pixel_mean": int | float,
        "pixel_std": int | float,
    },
    "training": {
        "settings": dict,
        "course": dict | None,
        "optimizer_steps": int,
        "ema_steps": int,
        "steps": int,
        "images_seen": int,
        "train_seconds": int | float,
        "history": [{"train_loss": int | float}],
        "draws": [(int, int)],
    },
}

Arrays = dict[str, np.ndarray[Any, Any]]


class CheckpointError(RuntimeError):
    """A file has no model that can be loaded here; the message is one sentence."""


@dataclass(frozen=True)
class Content:
    """What a file holds.

    Attributes
    ----------
    architecture : dict
        Layers, shapes, dtype and normalisation: all of a model but its arrays.
    arrays : dict of str to array
        The model's arrays.
    training : dict or None
        State of a training; None in a file that `Sequential.save` wrote.
    training_arrays : dict of str to array
        Arrays of that state.
    """

    architecture: dict[str, Any]
    arrays: Arrays
    training: dict[str, Any] | None = None
    training_arrays: Arrays = field(default_factory=dict)


def write(path: str | Path, content: Content) -> None:
    """Write a file; it appears whole or not at all."""
    write_whole(Path(path), to_bytes(content))


def read(path: str | Path) -> Content:
    """Return what a file holds, after checking its SHA-256."""
    return from_bytes(Path(path).read_bytes(), path)


def to_bytes(content: Content) -> bytes:
    """Return what `write` writes: the same bytes for the same content."""
    described = {"architecture": json.dumps(content.architecture)}
    if content.training is not None:
        described["training"] = json.dumps(content.training)
    arrays = content.arrays | {_PREFIX + k: v for k, v in content.training_arrays.items()}
    metadata = {"format": _FORMAT, **described, "sha256": _digest(described, arrays)}
    return _sorted(serialize(arrays, metadata))


def _sorted(content: bytes) -> bytes:
    """Return a safetensors file with its metadata in order: the package writes them in any."""
    header, data = _split(content)
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # arrays begin at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text + data


def _split(content: bytes) -> tuple[dict[str, Any], memoryview]:
    """Return the header, which is JSON and whose length comes first, and what follows it."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), memoryview(content)[end:]


def from_bytes(content: bytes, source: str | Path) -> Content:
    """Return the content that `to_bytes` wrote; errors begin with `source`.

    Raises
    ------
    CheckpointError
        If the bytes are damaged, or of another kind or version.
    """
    try:
        views = deserialize(content)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise CheckpointError(f"{source} is damaged or no safetensors file: {error}") from error
    metadata = _split(content)[0].get("__metadata__", {})
    if metadata.get("format") != _FORMAT:
        found = metadata.get("format", "no format")
        raise CheckpointError(f"{source} is not a model of this version: {found}, not {_FORMAT}")
    try:
        arrays = {name: _array(view) for name, view in views}
    except (KeyError, TypeError) as error:  # without ml_dtypes, NumPy knows no bfloat16
        raise CheckpointError(f"{source} holds arrays of a type unknown here: {error}") from error
    described = {key: metadata[key] for key in ("architecture", "training") if key in metadata}
    if metadata.get("sha256") != _digest(described, arrays):
        raise CheckpointError(f"{source} is damaged: its content is not what was saved")
    training = {name for name in arrays if name.startswith(_PREFIX)}
    return Content(
        _description("architecture", described.get("architecture", ""), source),
        {name: array for name, array in arrays.items() if name not in training},
        _description("training", described["training"], source)
        if "training" in described
        else None,
        {name.removeprefix(_PREFIX): arrays[name] for name in training},
    )


def _description(kind: str, text: str, source: str | Path) -> dict[str, Any]:
    """Return what JSON describes, which may have been written by hand, if it has the form."""
    try:
        found: Any = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{source} is damaged: its {kind} is not JSON: {error}") from error
    for key, form in _FORMS[kind].items():
        if not _fits(found, {key: form}):
            raise CheckpointError(f"{source} is damaged: its {kind} has no {key!r} as it is saved")
    described: dict[str, Any] = found
    return described


def _fits(value: Any, form: Any) -> bool:
    """Whether a value has a form; see `_FORMS`."""
    if isinstance(form, dict):
        of_keys = (key in value and _fits(value[key], of) for key, of in form.items())
        return isinstance(value, dict) and all(of_keys)
    if isinstance(form, list):
        return isinstance(value, list) and all(_fits(element, form[0]) for element in value)
    if isinstance(form, tuple):
        return isinstance(value, list) and len(value) == len(form) and all(map(_fits, value, form))
    return isinstance(value, form)


def _array(view: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Return the array with the dtype, shape and bytes that safetensors read."""
    dtype = np.dtype(_DTYPES[view["dtype"]])
    array: np.ndarray[Any, Any] = np.frombuffer(view["data"], dtype).reshape(view["shape"])
    return array


def _digest(described: dict[str, str], arrays: Arrays) -> str:
    """Return the SHA-256 of descriptions and arrays, in hexadecimal."""
    digest = hashlib.sha256("\0".join(described.values()).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
