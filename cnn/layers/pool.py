"""Max-pooling, average pooling, and averages of whole images."""

from __future__ import annotations

from dataclasses import dataclass

import kernels
from kernels.lowlevel import Array, Padding, Pair, Shape, window

from .. import checks
from .layer import Layer, image_size

_SETTINGS: dict[str, checks.Rule] = {
    "kernel": checks.pair,
    "stride": checks.optional(checks.pair),
    "padding": checks.padding,
    "dilation": checks.pair,
    "ceil_mode": checks.flag,
}


@dataclass(eq=False)
class _Pool2D(Layer):
    """Settings of the windows, and what is made of them."""

    built_with = tuple(_SETTINGS)

    kernel: Pair
    stride: Pair | None = None
    padding: Padding = 0
    dilation: Pair = 1
    ceil_mode: bool = False

    def __post_init__(self) -> None:
        """Check the settings."""
        checks.settle(self, **_SETTINGS)

    def build(self, shape: Shape) -> Shape:
        """Return (OH, OW, C)."""
        H, W, C = image_size(self, shape)
        self.window, self.pads = window(
            (H, W),
            self.kernel,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            ceil_mode=self.ceil_mode,
            pool=True,
        )
        return self.window.OH, self.window.OW, C


@dataclass(eq=False)
class MaxPool2D(_Pool2D):
    """The maximum of every window; see `kernels.max_pool2d`."""

    recordable = True

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return y (N, OH, OW, C)."""
        self._shape = x.shape
        y, self._argmax = kernels.max_pool2d(x, **self.settings())
        return y

    def backward(self, dy: Array) -> Array:
        """Return dx (N, H, W, C)."""
        return kernels.max_pool2d_backward(dy, self._argmax, self._shape, **self.settings())


@dataclass(eq=False)
class AvgPool2D(_Pool2D):
    """The average of every window; see `kernels.avg_pool2d`."""

    recordable = True

    count_include_pad: bool = True

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        checks.settle(self, count_include_pad=checks.flag)

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
        return (image_size(self, shape)[2],)

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return y (N, C)."""
        self._shape = x.shape
        return kernels.global_avg_pool2d(x)

    def backward(self, dy: Array) -> Array:
        """Return dx (N, H, W, C)."""
        return kernels.global_avg_pool2d_backward(dy, self._shape)
