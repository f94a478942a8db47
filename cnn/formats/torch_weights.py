"""PyTorch's `state_dict`s in safetensors files, read and written without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialize

from kernels.lowlevel import Array, Shape

from .. import checks
from ..files import write_whole
from ..host import to_host
from ..layers import BatchNorm, Conv2D, Dense, Flatten, LayerNorm
from ..model import Sequential
from .checkpoint import CheckpointError

_NAMES = {"gamma": "weight", "beta": "bias"}
_WITH_ARRAYS = (Conv2D, Dense, BatchNorm, LayerNorm)
_FLOATING = {"F16": "float16", "F32": "float32", "F64": "float64"}  # by safetensors' names


class _Place(NamedTuple):
    """An array of a model, and the layout that PyTorch has for it.

    If `image` is (H, W, C), the array's last axes are such images, which PyTorch has as (C, H, W).
    `shape` is the shape in PyTorch.
    """

    array: Array
    image: Shape
    shape: Shape

    def to_torch(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Convert values from the model's layout to PyTorch's."""
        if not self.image:
            return values
        pixels = values.reshape(*self._leading(), *self.image)
        return np.moveaxis(pixels, -1, -3).reshape(self.shape)

    def from_torch(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Convert values from PyTorch's layout to the model's."""
        if not self.image:
            return values
        H, W, C = self.image
        planes = values.reshape(*self._leading(), C, H, W)
        return np.moveaxis(planes, -3, -1).reshape(tuple(self.array.shape))

    def _leading(self) -> Shape:
        """Return the axis before the image: filters or units; a vector has none."""
        return tuple(self.array.shape[:1]) if self.array.ndim > 1 else ()


def save_torch(model: Sequential, path: str | Path) -> None:
    """Write a model's weights as the `state_dict` of the same network in PyTorch.

    That network is an `nn.Sequential` with one module per layer, in the same order;
    `GlobalAvgPool2D` is an `nn.Sequential` of `AdaptiveAvgPool2d(1)` and `Flatten`. Load the file
    with ``module.load_state_dict(safetensors.torch.load_file(path))``.

    PyTorch's images are (N, C, H, W), so filters are transposed, and the columns of a `Dense` layer
    after a `Flatten` are reordered. A `state_dict` holds no `pixel_mean` and `pixel_std`: normalise
    the images as the model does.

    Parameters
    ----------
    model : Sequential
        Layers that are not from this package must have no arrays.
    path : str or Path
        The safetensors file; it appears whole or not at all.

    Raises
    ------
    TypeError, ValueError
        If it is no model, or a layer with arrays is not from this package.
    OSError
        If the file cannot be written; a file that was there is then unchanged.
    """
    places = _places(model)
    with model.lock:
        arrays = {
            key: np.ascontiguousarray(place.to_torch(to_host(place.array)))
            for key, place in places.items()
        }
        arrays |= {key: np.array(0) for key in _counters(model)}  # read only if momentum is None
        content = serialize(arrays, {"format": "pt"})
    write_whole(Path(path), content)


def load_torch(model: Sequential, path: str | Path) -> None:
    """Set a model's weights to the `state_dict` of the same network in PyTorch; see `save_torch`.

    PyTorch writes the file by ``safetensors.torch.save_file(module.state_dict(), path)``.

    Parameters
    ----------
    model : Sequential
        Layers that are not from this package must have no arrays. Values are converted to the
        model's dtype.
    path : str or Path
        A safetensors file of float16, float32 or float64.

    Raises
    ------
    CheckpointError
        If the file is damaged, or its arrays are not those of the model, of the same shapes; the
        model is then unchanged.
    TypeError, ValueError
        If it is no model, or a layer with arrays is not from this package.
    OSError
        If the file cannot be read.
    """
    places = _places(model)
    with open(path, "rb"):
        pass  # raises an OSError that names the file, which safetensors' does not
    try:
        with safe_open(path, framework="numpy") as file:
            found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            differences = _differences(model, places, found)
            if differences:
                raise CheckpointError(f"{path} is not this model's: " + "; ".join(differences))
            values = {key: places[key].from_torch(file.get_tensor(key)) for key in places}
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}") from error
    with model.lock, model.target.on():
        for key, place in places.items():
            place.array[...] = model.target.array(values[key], model.dtype)


def _places(model: Sequential) -> dict[str, _Place]:
    """Return the arrays of a model, by their names in PyTorch."""
    checks.instance("model", model, Sequential)
    places = {}
    shape = model.input_shape
    flattened: Shape = ()  # shape of the images that a Flatten has turned into rows
    for position, (layer, output) in enumerate(zip(model.layers, model.output_shapes, strict=True)):
        arrays = {**layer.parameters, **layer.state}
        # Exact classes only: a derived one may compute something else.
        if arrays and type(layer) not in _WITH_ARRAYS:
            known = ", ".join(kind.__name__ for kind in _WITH_ARRAYS)
            raise ValueError(
                f"model: got {type(layer).__name__} at position {position}, expected {known} "
                "to be the only layers with arrays"
            )
        for name, array in arrays.items():
            place = _Place(array, (), tuple(array.shape))
            if isinstance(layer, Conv2D) and name == "weight":
                F, KH, KW, C = array.shape
                place = _Place(array, (KH, KW, C), (F, C, KH, KW))
            elif flattened and not (isinstance(layer, Dense) and name == "bias"):
                place = place._replace(image=flattened)
            places[f"{position}.{_NAMES.get(name, name)}"] = place
        if isinstance(layer, Flatten) and len(shape) == 3:
            flattened = shape
        elif isinstance(layer, Dense):
            flattened = ()
        shape = output
    return places


def _counters(model: Sequential) -> list[str]:
    """Return the names of PyTorch's batch counters, one for each BatchNorm."""
    return [
        f"{position}.num_batches_tracked"
        for position, layer in enumerate(model.layers)
        if isinstance(layer, BatchNorm)
    ]


def _differences(model: Sequential, places: dict[str, _Place], found: dict[str, Any]) -> list[str]:
    """Return how the arrays of a file differ from the model's, in words."""
    missing = sorted(places.keys() - found.keys())
    unexpected = sorted(found.keys() - places.keys() - set(_counters(model)))
    differences = [f"it lacks {', '.join(missing)}"] if missing else []
    if unexpected:
        differences.append(f"it has {', '.join(unexpected)}, which the model has not")
    for key in sorted(places.keys() & found.keys()):
        shape, dtype = tuple(found[key].get_shape()), found[key].get_dtype()
        if shape != places[key].shape:
            differences.append(f"{key} has shape {shape}, expected {places[key].shape}")
        if dtype not in _FLOATING:
            expected = ", ".join(_FLOATING.values())
            differences.append(f"{key} has type {dtype}, expected one of {expected}")
    return differences
