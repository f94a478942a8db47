"""Models in safetensors files: arrays, and the architecture as JSON in the header; never code.

What a `Trainer` saves is such a file too, with the state of the training beside the model.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialize

from .layers import Layer

if TYPE_CHECKING:
    from .model import Sequential

_FORMAT = "cnn-kernels model 1"
_PREFIX = "training."  # of the names of what is not the model's

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
    write(path, Content(architecture(model), to_numpy(arrays_of(model)), None, {}))


def load(path: str | Path, device: str) -> Sequential:
    """Return the model in a file."""
    from .model import Sequential  # a model saves and loads itself through this module

    content = read(path)
    described = content.architecture
    layers = [_layer(path, name, settings) for name, settings in described["layers"]]
    shape, dtype = tuple(described["input_shape"]), described["dtype"]
    try:
        model = Sequential(layers, shape, device=device, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} holds a model that cannot be built here: {error}") from error
    fill(model, content, path)
    return model


def architecture(model: Sequential) -> dict[str, Any]:
    """Return all that makes a model anew, but its arrays."""
    return {
        "layers": [[type(layer).__name__, layer.settings()] for layer in model.layers],
        "input_shape": model.input_shape,
        "dtype": model.dtype.name,
        "pixel_mean": model.pixel_mean,
        "pixel_std": model.pixel_std,
    }


def fill(model: Sequential, content: Content, path: str | Path) -> None:
    """Copy a file's values into a model of its architecture, whose arrays stay where they are."""
    expected = {name: tuple(array.shape) for name, array in arrays_of(model).items()}
    if expected != {name: array.shape for name, array in content.arrays.items()}:
        raise CheckpointError(f"{path} holds other arrays than its architecture has")
    for name, array in arrays_of(model).items():
        array[...] = model.target.array(content.arrays[name])
    model.pixel_mean = content.architecture["pixel_mean"]
    model.pixel_std = content.architecture["pixel_std"]


def write(path: str | Path, content: Content) -> None:
    """Write a file; it appears whole or not at all."""
    described = {"architecture": json.dumps(content.architecture)}
    if content.training is not None:
        described["training"] = json.dumps(content.training)
    arrays = content.arrays | {_PREFIX + k: v for k, v in content.training_arrays.items()}
    metadata = {"format": _FORMAT, **described, "sha256": _digest(described, arrays)}
    write_whole(Path(path), serialize(arrays, metadata))


def read(path: str | Path) -> Content:
    """Return what a file holds, once its SHA-256 has shown that it is what was written."""
    with open(path, "rb"):
        pass  # an OSError that names the file, where safetensors gives one that does not
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}") from error
    if metadata.get("format") != _FORMAT:
        found = metadata.get("format", "no format")
        raise CheckpointError(f"{path} is not a model of this version: {found}, not {_FORMAT}")
    described = {key: metadata[key] for key in ("architecture", "training") if key in metadata}
    if metadata.get("sha256") != _digest(described, arrays):
        raise CheckpointError(f"{path} is damaged: its content is not what was saved")
    training = {name for name in arrays if name.startswith(_PREFIX)}
    return Content(
        json.loads(described["architecture"]),
        {name: array for name, array in arrays.items() if name not in training},
        json.loads(described["training"]) if "training" in described else None,
        {name.removeprefix(_PREFIX): arrays[name] for name in training},
    )


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it appears whole or not at all, even if the machine stops."""
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as file:  # unlike tempfile's, readable by others
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # of the new name
        finally:
            os.close(folder)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename is None:  # such as that of a full disk
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def arrays_of(model: Sequential) -> dict[str, Any]:
    """Return a model's arrays by name, where they are."""
    return {**model.parameters, **model.state}


def to_numpy(arrays: dict[str, Any]) -> Arrays:
    """Return arrays of any device as NumPy's."""
    return {
        name: np.ascontiguousarray(array.get() if hasattr(array, "get") else array)
        for name, array in arrays.items()
    }


def _digest(described: dict[str, str], arrays: Arrays) -> str:
    """Return the SHA-256 of all that a file holds, in hexadecimal."""
    digest = hashlib.sha256("\0".join(described.values()).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _layer(path: str | Path, name: str, settings: dict[str, Any]) -> Layer:
    found = [kind for kind in _kinds(Layer) if kind.__name__ == name]
    if not found:
        raise CheckpointError(
            f"{path} has a layer {name}, which is not defined here; import the module that has it"
        )
    try:
        return found[-1](**settings)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} has a layer {name} of other settings: {error}") from error


def _kinds(kind: type[Layer]) -> list[type[Layer]]:
    """Return a class and all that derive from it."""
    return [kind, *(below for child in kind.__subclasses__() for below in _kinds(child))]
