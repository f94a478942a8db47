"""The convolution layer."""

from __future__ import annotations

from dataclasses import dataclass

import kernels
from kernels.lowlevel import Array, Padding, Pair, Shape, window

from .. import checks
from ..initializers import fan_in_uniform, zeros
from .layer import Layer, image_size


@dataclass(eq=False)
class Conv2D(Layer):
    """2-D convolution of images (N, H, W, C) with learned filters; see `kernels.conv2d`."""

    recordable = True
    built_with = "filters", "kernel", "stride", "padding", "dilation", "groups", "bias"

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
        H, W, C = image_size(self, shape)
        if C % self.groups or self.filters % self.groups:
            raise ValueError(
                f"groups: got {self.groups} for {C} channels and {self.filters} filters, "
                "expected a divisor of both"
            )
        geometry = {k: getattr(self, k) for k in ("stride", "padding", "dilation")}
        self.window, _ = window((H, W), self.kernel, **geometry)
        g = self.window
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
        """Like `backward`, for images x in place of those of the last `forward`."""
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
