"""Models in safetensors files: arrays, and the architecture as JSON in the header; never code."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialize

from .layers import Layer

if TYPE_CHECKING:
    from .model import Sequential

_FORMAT = "cnn-kernels model 1"


class CheckpointError(RuntimeError):
    """A file holds no model that can be loaded; the message is one sentence."""


def save(model: Sequential, path: str | Path) -> None:
    """Write a model; the file appears whole or not at all."""
    described = {
        "layers": [[type(layer).__name__, layer.settings()] for layer in model.layers],
        "input_shape": model.input_shape,
        "dtype": model.dtype.name,
        "pixel_mean": model.pixel_mean,
        "pixel_std": model.pixel_std,
    }
    architecture = json.dumps(described)
    arrays = {name: _to_numpy(array) for name, array in _arrays(model).items()}
    metadata = {
        "format": _FORMAT,
        "architecture": architecture,
        "sha256": _digest(architecture, arrays),
    }
    write_whole(Path(path), serialize(arrays, metadata))


def load(path: str | Path, device: str) -> Sequential:
    """Return the model in a file."""
    from .model import Sequential  # a model saves and loads itself through this module

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
    if metadata.get("sha256") != _digest(metadata.get("architecture", ""), arrays):
        raise CheckpointError(f"{path} is damaged: its content is not what was saved")
    described = json.loads(metadata["architecture"])
    layers = [_layer(path, name, settings) for name, settings in described["layers"]]
    shape, dtype = tuple(described["input_shape"]), described["dtype"]
    try:
        model = Sequential(layers, shape, device=device, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} holds a model that cannot be built here: {error}") from error
    model.pixel_mean = described["pixel_mean"]
    model.pixel_std = described["pixel_std"]
    expected = {name: tuple(array.shape) for name, array in _arrays(model).items()}
    if expected != {name: array.shape for name, array in arrays.items()}:
        raise CheckpointError(f"{path} holds other arrays than its architecture has")
    for name, array in _arrays(model).items():
        array[...] = model.target.array(arrays[name])
    return model


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it appears whole or not at all, even if the machine stops."""
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as file:  # unlike tempfile's, readable by others
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _digest(architecture: str, arrays: dict[str, np.ndarray[Any, Any]]) -> str:
    """Return the SHA-256 of all that a file holds, in hexadecimal."""
    digest = hashlib.sha256(architecture.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _arrays(model: Sequential) -> dict[str, Any]:
    return {**model.parameters, **model.state}


def _to_numpy(array: Any) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(array.get() if hasattr(array, "get") else array)


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
