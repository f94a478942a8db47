"""Models in safetensors files: arrays, and the architecture as JSON in the header; never code.

What a `Trainer` saves is such a file too, with the state of the training beside the model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save as serialize

from ..files import write_whole
from ..layers import Layer

if TYPE_CHECKING:
    from ..model import Sequential

_FORMAT = "cnn-kernels model 1"
_PREFIX = "training."  # of the names of what is not the model's
# What safetensors calls NumPy's types, and bfloat16, which its own functions for NumPy do not read.
_DTYPES = {
    **{
        f"{letter}{8 * size}": f"{letter.lower()}{size}" for letter in "IU" for size in (1, 2, 4, 8)
    },
    **{"F16": "float16", "F32": "float32", "F64": "float64", "BF16": "bfloat16"},
    **{"BOOL": "bool", "C64": "complex64"},
}

Arrays = dict[str, np.ndarray[Any, Any]]


class CheckpointError(RuntimeError):
    """A file holds no model that can be loaded; the message is one sentence."""


@dataclass(frozen=True)
class Content:
    """What a file holds.

    Attributes
    ----------
    architecture : dict
        All that makes the model anew, but its arrays.
    arrays : dict of str to array
        The model's.
    training : dict or None
        What a `Trainer` adds, if it was one that saved.
    training_arrays : dict of str to array
        The same, its arrays.
    """

    architecture: dict[str, Any]
    arrays: Arrays
    training: dict[str, Any] | None
    training_arrays: Arrays


def save(model: Sequential, path: str | Path) -> None:
    """Write a model; the file appears whole or not at all."""
    write_whole(Path(path), to_bytes(model))


def load(path: str | Path, device: str) -> Sequential:
    """Return the model in a file."""
    content = read(path)
    kinds = [_kind(path, name) for name, _ in content.architecture["layers"]]
    return _built(content, kinds, device, path)


def to_bytes(model: Sequential) -> bytes:
    """Return what `save` writes."""
    return _serialized(Content(architecture(model), to_numpy(arrays_of(model)), None, {}))


def copied(
    content: bytes, kinds: Sequence[type[Layer]], draws: Sequence[tuple[int, int]], device: str
) -> Sequential:
    """Return a copy of the model that `to_bytes` gave: what copying and unpickling it calls.

    `kinds` are its layers' classes, `draws` their `seed` and `draws`.
    """
    model = _built(_parsed(content, "the pickled model"), kinds, device, "the pickled model")
    for layer, (seed, drawn) in zip(model.layers, draws, strict=True):
        layer.seed, layer.draws = seed, drawn
    return model


def _built(
    content: Content, kinds: Sequence[type[Layer]], device: str, source: str | Path
) -> Sequential:
    from ..model import Sequential  # a model saves and loads itself through this module

    described = content.architecture
    layers = [
        _layer(source, kind, settings)
        for kind, (_, settings) in zip(kinds, described["layers"], strict=True)
    ]
    shape, dtype = tuple(described["input_shape"]), described["dtype"]
    try:
        model = Sequential(layers, shape, device=device, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{source} holds a model that cannot be built here: {error}"
        ) from error
    fill(model, content, source)
    return model


def architecture(model: Sequential) -> dict[str, Any]:
    """Return all that makes a model anew, but its arrays."""
    return {
        "layers": [[type(layer).__name__, layer.settings()] for layer in model.layers],
        "input_shape": model.input_shape,
        "dtype": model.dtype.name,
        "pixel_mean": float(model.pixel_mean),  # whoever set them
        "pixel_std": float(model.pixel_std),
    }


def fill(model: Sequential, content: Content, path: str | Path) -> None:
    """Copy a file's values into a model of its architecture, whose arrays stay where they are."""
    expected = {name: tuple(array.shape) for name, array in arrays_of(model).items()}
    if expected != {name: array.shape for name, array in content.arrays.items()}:
        raise CheckpointError(f"{path} holds other arrays than its architecture has")
    with model.target.on():
        for name, array in arrays_of(model).items():
            array[...] = model.target.array(content.arrays[name])
    model.pixel_mean = content.architecture["pixel_mean"]
    model.pixel_std = content.architecture["pixel_std"]


def write(path: str | Path, content: Content) -> None:
    """Write a file; it appears whole or not at all."""
    write_whole(Path(path), _serialized(content))


def _serialized(content: Content) -> bytes:
    described = {"architecture": json.dumps(content.architecture)}
    if content.training is not None:
        described["training"] = json.dumps(content.training)
    arrays = content.arrays | {_PREFIX + k: v for k, v in content.training_arrays.items()}
    metadata = {"format": _FORMAT, **described, "sha256": _digest(described, arrays)}
    return serialize(arrays, metadata)


def read(path: str | Path) -> Content:
    """Return what a file holds, once its SHA-256 has shown that it is what was written."""
    return _parsed(Path(path).read_bytes(), path)


def _parsed(content: bytes, source: str | Path) -> Content:
    try:
        views = deserialize(content)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise CheckpointError(f"{source} is damaged or no safetensors file: {error}") from error
    # A sound file begins with the length of its header, which is JSON.
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata = header.get("__metadata__", {})
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
    """Return what safetensors gives of an array."""
    dtype = np.dtype(_DTYPES[view["dtype"]])
    array: np.ndarray[Any, Any] = np.frombuffer(view["data"], dtype).reshape(view["shape"])
    return array


def arrays_of(model: Sequential) -> dict[str, Any]:
    """Return a model's arrays by name, where they are."""
    return {**model.parameters, **model.state}


def to_numpy(arrays: dict[str, Any]) -> Arrays:
    """Return arrays of any device as NumPy's."""
    return {
        name: np.asarray(array.get() if hasattr(array, "get") else array, order="C")
        for name, array in arrays.items()
    }


def _digest(described: dict[str, str], arrays: Arrays) -> str:
    """Return the SHA-256 of all that a file holds, in hexadecimal."""
    digest = hashlib.sha256("\0".join(described.values()).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _kind(path: str | Path, name: str) -> type[Layer]:
    found = [kind for kind in _kinds(Layer) if kind.__name__ == name]
    if not found:
        raise CheckpointError(
            f"{path} has a layer {name}, which is not defined here; import the module that has it"
        )
    return found[-1]


def _layer(source: str | Path, kind: type[Layer], settings: dict[str, Any]) -> Layer:
    try:
        return kind(**settings)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{source} has a layer {kind.__name__} of other settings: {error}"
        ) from error


def _kinds(kind: type[Layer]) -> list[type[Layer]]:
    """Return a class and all that derive from it."""
    return [kind, *(below for child in kind.__subclasses__() for below in _kinds(child))]
