"""A chain of layers with its parameters and gradients in one flat buffer each."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

import kernels
from kernels.lowlevel import (
    Array,
    Shape,
    Target,
    check_unmasked,
    choose_target,
    floating,
    floating_type,
)

from . import checks
from .data.dataset import channels_last
from .layers import Layer, Softmax
from .layers.layer import initial
from .views import Views

# Maps grey levels to [0, 1]. No uint8 images have this deviation: it means "not set".
_NO_STATISTICS = (0.0, 255.0)
_ALIGNMENT_BYTES = 64  # a cache line, and at least a SIMD register

_Network = TypeVar("_Network", bound="Network")


class Network:
    """Layers applied one after the other.

    Parameters
    ----------
    layers : sequence of Layer
        Unbuilt; input channels and features are inferred here.
    input_shape : tuple of int
        Shape of one input, without the batch axis, such as (28, 28, 1).
    device : {"auto", "cpu", "cuda"}
        "auto" is the GPU where one works; of several, CuPy's current one.
    dtype : str or dtype
        Type of parameters and activations.
    seed : int
        Seeds the initial parameters and the layers' random numbers; in [0, 2**64).

    Attributes
    ----------
    layers : tuple of Layer
        In their order.
    parameters, gradients, state : dict of str to array
        By "<position>.<name>", such as "0.weight": views of the flat buffers. Set their values in
        place, as by ``model.parameters["0.weight"][...] = values``.
    parameter_buffer, gradient_buffer, state_buffer : array
        All parameters, all gradients and the whole state, one-dimensional; each view starts at a
        cache line, and the gaps between them stay zero.
    pixel_mean, pixel_std : float
        Mean and deviation by which uint8 images are normalised, in grey levels. `Trainer.fit`
        takes them from its data if they are 0 and 255, as at first.
    output_shape : tuple of int
        Shape of one output.
    output_shapes : list of tuple of int
        Shape of one output of each layer.
    lock : RLock
        Held by each step of a training, by `Sequential.predict`, which uses the same layers, and by
        what saves, copies or loads the arrays.

    Raises
    ------
    TypeError, ValueError
        If a layer cannot take its input, or an argument is invalid.
    KernelError
        If "cuda" is asked for and does not work.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        input_shape: Shape,
        device: str = "auto",
        dtype: Any = "float32",
        seed: int = 0,
    ) -> None:
        self.target: Target = choose_target(device)[0]
        self.lock = threading.RLock()
        self.dtype = floating_type("dtype", dtype, self.target)
        self.layers = tuple(checks.sequence("layers", layers, "of layers"))
        lengths = checks.sequence("input_shape", input_shape, "such as (28, 28, 1)")
        if not lengths:
            raise ValueError("input_shape: got no axis, expected at least one")
        self.input_shape: Shape = tuple(checks.count("input_shape", n) for n in lengths)
        seed = checks.word("seed", seed)
        self.pixel_mean, self.pixel_std = _NO_STATISTICS
        self.parameters: dict[str, Array]
        self.gradients: dict[str, Array]
        self.state: dict[str, Array]
        self._build()
        self._initialize(seed)

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return the outputs for prepared inputs x (N, *input_shape)."""
        for layer in self.layers:
            x = layer.forward(x, training)
        return x

    def backward(self, dy: Array) -> None:
        """Fill `gradients` from the gradient of the last forward's outputs."""
        for layer in reversed(self.layers[self._first_trained :]):
            dy = layer.backward(dy)

    def with_layers(self: _Network, layers: Sequence[Layer]) -> _Network:
        """Return a network of other layers that shares everything else with this one.

        They replace this network's layers one by one and have the same shapes.
        """
        other = object.__new__(type(self))
        vars(other).update(vars(self), layers=tuple(layers))
        return other

    def prepare(self, images: Any) -> Array:
        """Return images on the model's device, in its dtype and with a channel axis.

        uint8 images are normalised to (images - pixel_mean) / pixel_std; floating ones are taken
        as they are.

        Raises
        ------
        TypeError, ValueError
            If dtype or shape do not fit the model.
        """
        images = self._images(images)
        if floating(images.dtype):
            return self.target.array(images, self.dtype)
        return kernels.normalize(images, self.pixel_mean, self.pixel_std, self.dtype)

    def shaped(self, images: Array) -> Array:
        """Return images, of any device, as (N, H, W, C); ValueError if they are of another size."""
        if len(self.input_shape) == 3:
            images = channels_last(images)
        if tuple(images.shape[1:]) != self.input_shape:
            raise ValueError(
                f"images: got shape {tuple(images.shape)}, "
                f"expected (N, {', '.join(map(str, self.input_shape))})"
            )
        return images

    @property
    def has_pixel_statistics(self) -> bool:
        """Whether `pixel_mean` and `pixel_std` have been taken from images."""
        return (self.pixel_mean, self.pixel_std) != _NO_STATISTICS

    @property
    def ends_with_softmax(self) -> bool:
        """Whether the outputs are probabilities: the last layer is a `Softmax`."""
        return bool(self.layers) and isinstance(self.layers[-1], Softmax)

    @property
    def parameter_count(self) -> int:
        """Number of trained values."""
        return sum(math.prod(array.shape) for array in self.parameters.values())

    @property
    def arrays(self) -> dict[str, Array]:
        """Parameters and state by name: all arrays that a file holds."""
        return {**self.parameters, **self.state}

    def _images(self, images: Any) -> Array:
        """Return images on the model's device, as (N, H, W, C), if shape and dtype fit."""
        check_unmasked("images", images)
        images = self.shaped(self.target.array(images))
        if images.dtype != np.uint8 and not floating(images.dtype):
            raise TypeError(
                f"images: got {images.dtype} on {self.target}, expected uint8 or floating"
            )
        return images

    def _build(self) -> None:
        shape, self.output_shapes = self.input_shape, []
        for position, layer in enumerate(self.layers):
            if not isinstance(layer, Layer):
                got = checks.shown(layer)
                raise TypeError(f"layers: got {got} at position {position}, expected a Layer")
            # A layer keeps the arrays of its last forward, so it cannot be in two places.
            if layer.built or any(layer is other for other in self.layers[:position]):
                raise ValueError(
                    f"layers: {type(layer).__name__} at position {position} is in use already, "
                    "expected a new one"
                )
            shape = layer.build(shape)
            if not isinstance(shape, tuple):
                raise TypeError(
                    f"layers: build of {type(layer).__name__} at position {position} returned "
                    f"{checks.shown(shape)}, expected the shape of its output, a tuple"
                )
            self.output_shapes.append(shape)
        self.output_shape: Shape = shape
        self._first_trained = len(self.layers)
        for position, layer in enumerate(self.layers):
            if any(trained for _, _, trained in layer.declared.values()):
                self._first_trained = position
                layer.need_dx = False
                break

    def _initialize(self, seed: int) -> None:
        """Draw the initial values, layer by layer, into the flat buffers and hand out views."""
        generator = np.random.default_rng(seed)
        values: dict[str, np.ndarray[Any, Any]] = {}
        kept: dict[str, np.ndarray[Any, Any]] = {}  # the state
        for position, layer in enumerate(self.layers):
            layer.seed = (seed * len(self.layers) + position) % 2**64
            for name, (shape, initializer, trained) in layer.declared.items():
                key = f"{position}.{name}"
                array = initial(key, shape, initializer, generator).astype(self.dtype)
                (values if trained else kept)[key] = array
        self.parameter_buffer, self.parameters = self._flat(values)
        self.state_buffer, self.state = self._flat(kept)
        self.gradient_buffer, self.gradients = self._flat(values)
        self.gradient_buffer[...] = 0
        for position, layer in enumerate(self.layers):
            keys = {name: f"{position}.{name}" for name in layer.declared}
            for kind in ("parameters", "gradients", "state"):
                views = getattr(self, kind)
                own = {name: views[key] for name, key in keys.items() if key in views}
                setattr(layer, kind, Views(own))
            layer.built = True

    def _flat(self, values: dict[str, np.ndarray[Any, Any]]) -> tuple[Array, dict[str, Array]]:
        """Return a buffer of all values, and views of it by their names."""
        alignment = max(1, _ALIGNMENT_BYTES // self.dtype.itemsize)
        sizes = [-(-array.size // alignment) * alignment for array in values.values()]
        buffer, views, start = self.target.zeros((sum(sizes),), self.dtype), {}, 0
        for (name, array), size in zip(values.items(), sizes, strict=True):
            views[name] = buffer[start : start + array.size].reshape(array.shape)
            views[name][...] = self.target.array(array)
            start += size
        return buffer, Views(views)
