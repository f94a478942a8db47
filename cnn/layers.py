"""Layers: shapes, names and calls of `kernels`, nothing else.

A layer of your own is one class: declare parameters in `build`, write `forward` and `backward`.
The layers here check their settings when they are made, with a TypeError or a ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

import kernels
from kernels.lowlevel import Array, Padding, Pair, Shape, Target, as_array, window

from . import checks
from .initializers import Initializer, fan_in_uniform, ones, zeros

_POOL: dict[str, checks.Rule] = {
    "kernel": checks.pair,
    "stride": checks.optional(checks.pair),
    "padding": checks.padding,
    "dilation": checks.pair,
    "ceil_mode": checks.flag,
}


class Layer:
    """Base class of layers; a subclass is a dataclass whose fields are its settings.

    Attributes
    ----------
    parameters, gradients, state : dict of str to array
        Trained arrays, their gradients of the last backward, and arrays that are saved but not
        trained; empty until the layer is built.
    need_dx : bool
        Whether `backward` must return dx; false for the first layer of a model.
    seed, draws : int
        Seed of the layer's random numbers, and how many times it has drawn some.
    recordable : bool
        Whether forward and backward do nothing on the device but launch kernels, on the same arrays
        every time; a `Trainer` then replays the launches without calling the methods again. Not
        inherited: each class sets it in its own body.
    built : bool
        Whether the layer is part of a model or has been used alone.
    """

    need_dx = True
    seed = 0
    draws = 0
    recordable = False
    built = False

    @cached_property
    def parameters(self) -> dict[str, Array]:
        """Trained arrays by name."""
        return {}

    @cached_property
    def gradients(self) -> dict[str, Array]:
        """Gradients by the names of the parameters."""
        return {}

    @cached_property
    def state(self) -> dict[str, Array]:
        """Arrays that are saved but not trained, by name."""
        return {}

    @cached_property
    def declared(self) -> dict[str, tuple[Shape, Initializer, bool]]:
        """Shape, initializer and whether it is trained, of every array that `build` declared."""
        return {}

    def declare(
        self, name: str, shape: Shape, initializer: Initializer, trained: bool = True
    ) -> None:
        """Declare an array; called by `build`."""
        self.declared[name] = (shape, initializer, trained)

    def build(self, shape: Shape) -> Shape:
        """Declare arrays for inputs of `shape`, without the batch axis; return the output's.

        Raises
        ------
        ValueError
            If the layer cannot take inputs of that shape.
        """
        return shape

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return the layer's output for x (N, ...).

        What `backward` needs is kept in attributes, which another thread's forward overwrites: the
        result must not be read back from them.
        """
        raise NotImplementedError

    def backward(self, dy: Array) -> Array:
        """Store the gradients of the parameters and return dx, for the last forward's x."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """Return the arguments of the constructor that make an equal layer."""
        return {f.name: checks.plain(getattr(self, f.name)) for f in fields(self)}  # type: ignore[arg-type]

    def ready(self, x: Any) -> Array:
        """Return x as an array; a layer used without a model is built for it first."""
        target, x = as_array("x", x)
        if not self.built:
            self.build(x.shape[1:])
            self.allocate(target, x.dtype, np.random.default_rng(self.seed))
        return x

    def allocate(self, target: Target, dtype: Any, generator: np.random.Generator) -> None:
        """Allocate each declared array by itself; a model gives views of its buffers instead."""
        for name, (shape, initializer, trained) in self.declared.items():
            values = target.array(initializer(generator, shape).astype(dtype))
            (self.parameters if trained else self.state)[name] = values
            if trained:
                self.gradients[name] = target.zeros(shape, dtype)
        self.built = True


def recordable(part: Any) -> bool:
    """Whether the class of a layer, loss, optimizer or the like says that it only launches kernels.

    A class that derives from one that says so has methods of its own, and must say so itself.
    """
    return bool(type(part).__dict__.get("recordable", False))


def arrays_of(parts: Sequence[Any], kind: type[Any]) -> list[Array]:
    """Return the arrays of class `kind` in the attributes of objects, or in dicts among these.

    Arrays of Python objects are left out: no kernel takes them.
    """
    values = [value for part in parts for value in vars(part).values()]
    values += [entry for value in values if isinstance(value, dict) for entry in value.values()]
    return [value for value in values if isinstance(value, kind) and not value.dtype.hasobject]


def restore(part: Any, attributes: dict[str, Any]) -> None:
    """Set an object's attributes to those given, and delete all others."""
    vars(part).clear()
    vars(part).update(attributes)


@contextmanager
def unchanged(parts: Sequence[Any]) -> Iterator[None]:
    """Restore the attributes of objects at the end of a ``with`` block."""
    before = [(part, dict(vars(part))) for part in parts]
    try:
        yield
    finally:
        for part, attributes in before:
            restore(part, attributes)


@dataclass(eq=False)
class Conv2D(Layer):
    """2-D convolution of images (N, H, W, C) with learned filters; see `kernels.conv2d`."""

    recordable = True

    filters: int
    kernel: Pair
    stride: Pair = 1
    padding: Padding = 0
    dilation: Pair = 1
    groups: int = 1
    bias: bool = True

    def __post_init__(self) -> None:
        """Check the settings."""
        checks.settle(
            self,
            filters=checks.count,
            kernel=checks.pair,
            stride=checks.pair,
            padding=checks.padding,
            dilation=checks.pair,
            groups=checks.count,
            bias=checks.flag,
        )

    def build(self, shape: Shape) -> Shape:
        """Declare weight (F, KH, KW, C/groups) and bias (F,)."""
        H, W, C = _image(self, shape)
        if C % self.groups or self.filters % self.groups:
            raise ValueError(
                f"groups: got {self.groups} for {C} channels and {self.filters} filters, "
                "expected a divisor of both"
            )
        geometry = {k: getattr(self, k) for k in ("stride", "padding", "dilation")}
        self.window = g = window((H, W), self.kernel, **geometry)[0]
        self.declare("weight", (self.filters, g.KH, g.KW, C // self.groups), fan_in_uniform)
        if self.bias:
            self.declare("bias", (self.filters,), zeros)
        self.options = {**geometry, "groups": self.groups}
        return g.OH, g.OW, self.filters

    def forward(self, x: Array, training: bool = False, relu: bool = False) -> Array:
        """Return y (N, OH, OW, F)."""
        self._x = x = self.ready(x)
        weight, bias = self.parameters["weight"], self.parameters.get("bias")
        return kernels.conv2d(x, weight, bias, relu=relu, **self.options)

    def backward(self, dy: Array) -> Array:
        """Return dx (N, H, W, C)."""
        return self.backward_of(self._x, dy)

    def backward_of(self, x: Array, dy: Array) -> Array:
        """Do as `backward` does, but for images x that are not those of the last `forward`."""
        dx, _, _ = kernels.conv2d_backward(
            dy,
            x,
            self.parameters["weight"],
            need_dx=self.need_dx,
            out_dw=self.gradients["weight"],
            need_db=self.bias,
            out_db=self.gradients.get("bias"),
            **self.options,
        )
        return dx


@dataclass(eq=False)
class Dense(Layer):
    """A fully connected layer from (N, in) to (N, units); see `kernels.dense`."""

    recordable = True

    units: int
    bias: bool = True

    def __post_init__(self) -> None:
        """Check the settings."""
        checks.settle(self, units=checks.count, bias=checks.flag)

    def build(self, shape: Shape) -> Shape:
        """Declare weight (units, in) and bias (units,)."""
        if len(shape) != 1:
            raise ValueError(f"Dense: got inputs of shape {shape}, expected (in,); Flatten first")
        self.declare("weight", (self.units, shape[0]), fan_in_uniform)
        if self.bias:
            self.declare("bias", (self.units,), zeros)
        return (self.units,)

    def forward(self, x: Array, training: bool = False, relu: bool = False) -> Array:
        """Return y (N, units)."""
        self._x = x = self.ready(x)
        weight, bias = self.parameters["weight"], self.parameters.get("bias")
        return kernels.dense(x, weight, bias, relu=relu)

    def backward(self, dy: Array) -> Array:
        """Return dx (N, in)."""
        dx, _, _ = kernels.dense_backward(
            dy,
            self._x,
            self.parameters["weight"],
            need_dx=self.need_dx,
            out_dw=self.gradients["weight"],
            need_db=self.bias,
            out_db=self.gradients.get("bias"),
        )
        return dx


@dataclass(eq=False)
class BatchNorm(Layer):
    """Batch normalisation over all but the last axis; see `kernels.batch_norm`."""

    recordable = True

    momentum: float = 0.1
    eps: float = 1e-5

    def __post_init__(self) -> None:
        """Check the settings."""
        checks.settle(self, momentum=checks.fraction, eps=checks.number(0))

    def build(self, shape: Shape) -> Shape:
        """Declare gamma, beta and the running statistics, (C,) each."""
        self.declare("gamma", shape[-1:], ones)
        self.declare("beta", shape[-1:], zeros)
        self.declare("running_mean", shape[-1:], zeros, trained=False)
        self.declare("running_var", shape[-1:], ones, trained=False)
        return shape

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return y of x's shape; with `training`, by the batch's own statistics."""
        self._x = x = self.ready(x)
        arrays = (*self.parameters.values(), *self.state.values())
        y, self._saved = kernels.batch_norm(
            x, *arrays, training=training, momentum=self.momentum, eps=self.eps
        )
        return y

    def backward(self, dy: Array) -> Array:
        """Return dx of x's shape."""
        dx, _, _ = kernels.batch_norm_backward(
            dy,
            self._x,
            self.parameters["gamma"],
            self._saved,
            out_dgamma=self.gradients["gamma"],
            out_dbeta=self.gradients["beta"],
        )
        return dx


@dataclass(eq=False)
class ReLU(Layer):
    """max(x, 0)."""

    recordable = True

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return y of x's shape."""
        self._y = y = kernels.relu(x)
        return y

    def backward(self, dy: Array) -> Array:
        """Return dx of x's shape."""
        return kernels.relu_backward(dy, self._y)


@dataclass(eq=False)
class Softmax(Layer):
    """Probabilities over the last axis; train it with the loss `CrossEntropy`."""

    recordable = True

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return y of x's shape."""
        self._y = y = kernels.softmax(x)
        return y

    def backward(self, dy: Array) -> Array:
        """Return the product of dy with the Jacobian of softmax."""
        return kernels.softmax_backward(dy, self._y)


@dataclass(eq=False)
class MaxPool2D(Layer):
    """The maximum of every window; see `kernels.max_pool2d`."""

    recordable = True

    kernel: Pair
    stride: Pair | None = None
    padding: Padding = 0
    dilation: Pair = 1
    ceil_mode: bool = False

    def __post_init__(self) -> None:
        """Check the settings."""
        checks.settle(self, **_POOL)

    def build(self, shape: Shape) -> Shape:
        """Return (OH, OW, C)."""
        return _pooled(self, shape)

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return y (N, OH, OW, C)."""
        self._shape = x.shape
        y, self._argmax = kernels.max_pool2d(x, **self.settings())
        return y

    def backward(self, dy: Array) -> Array:
        """Return dx (N, H, W, C)."""
        return kernels.max_pool2d_backward(dy, self._argmax, self._shape, **self.settings())


@dataclass(eq=False)
class AvgPool2D(Layer):
    """The average of every window; see `kernels.avg_pool2d`."""

    recordable = True

    kernel: Pair
    stride: Pair | None = None
    padding: Padding = 0
    dilation: Pair = 1
    ceil_mode: bool = False
    count_include_pad: bool = True

    def __post_init__(self) -> None:
        """Check the settings."""
        checks.settle(self, **_POOL, count_include_pad=checks.flag)

    def build(self, shape: Shape) -> Shape:
        """Return (OH, OW, C)."""
        return _pooled(self, shape)

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return y (N, OH, OW, C)."""
        self._shape = x.shape
        return kernels.avg_pool2d(x, **self.settings())

    def backward(self, dy: Array) -> Array:
        """Return dx (N, H, W, C)."""
        return kernels.avg_pool2d_backward(dy, self._shape, **self.settings())


@dataclass(eq=False)
class GlobalAvgPool2D(Layer):
    """The average of every channel plane, from (N, H, W, C) to (N, C)."""

    recordable = True

    def build(self, shape: Shape) -> Shape:
        """Return (C,)."""
        return (_image(self, shape)[2],)

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return y (N, C)."""
        self._shape = x.shape
        return kernels.global_avg_pool2d(x)

    def backward(self, dy: Array) -> Array:
        """Return dx (N, H, W, C)."""
        return kernels.global_avg_pool2d_backward(dy, self._shape)


@dataclass(eq=False)
class Dropout(Layer):
    """In training, zero with probability p and scale the rest by 1 / (1 - p)."""

    recordable = True

    p: float

    def __post_init__(self) -> None:
        """Check the settings."""
        checks.settle(self, p=checks.number(0, below=1))

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return y of x's shape; x itself without `training`."""
        self._mask = None
        if not training:
            return x
        y, self._mask = kernels.dropout(x, self.p, seed=self.seed, offset=self.draws)
        self.draws += 1
        return y

    def backward(self, dy: Array) -> Array:
        """Return dx of x's shape."""
        return dy if self._mask is None else kernels.dropout_backward(dy, self._mask, self.p)


@dataclass(eq=False)
class Flatten(Layer):
    """From (N, ...) to (N, product of the rest)."""

    recordable = True

    def build(self, shape: Shape) -> Shape:
        """Return the product, as a shape."""
        return (math.prod(shape),)

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return a view of x."""
        self._shape = x.shape
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))

    def backward(self, dy: Array) -> Array:
        """Return a view of dy."""
        return dy.reshape(self._shape)


def _image(layer: Layer, shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        name = type(layer).__name__
        raise ValueError(f"{name}: got inputs of shape {shape}, expected images (H, W, C)")
    H, W, C = shape
    return H, W, C


def _pooled(layer: MaxPool2D | AvgPool2D, shape: Shape) -> Shape:
    H, W, C = _image(layer, shape)
    g, _ = window(
        (H, W),
        layer.kernel,
        stride=layer.kernel if layer.stride is None else layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        ceil_mode=layer.ceil_mode,
        pool=True,
    )
    return g.OH, g.OW, C
