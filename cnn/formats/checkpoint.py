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
        json.loads(described["architecture"]),
        {name: array for name, array in arrays.items() if name not in training},
        json.loads(described["training"]) if "training" in described else None,
        {name.removeprefix(_PREFIX): arrays[name] for name in training},
    )


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
