"""The fully connected layer."""

from __future__ import annotations

from dataclasses import dataclass

import kernels
from kernels.lowlevel import Array, Shape

from .. import checks
from ..initializers import fan_in_uniform, zeros
from .layer import Layer


@dataclass(eq=False)
class Dense(Layer):
    """A fully connected layer from (N, in) to (N, units); see `kernels.dense`."""

    recordable = True
    built_with = "units", "bias"

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
