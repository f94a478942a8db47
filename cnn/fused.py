"""Layers that do the work of several in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import kernels
from kernels import conv2d_pool
from kernels.conv2d_pool import Pool
from kernels.geometry import pair
from kernels.runtime import Array

from .layers import Conv2D, Dense, Layer, MaxPool2D, ReLU

if TYPE_CHECKING:
    from .model import Sequential


def fuse(model: Sequential) -> list[Layer]:
    """Return layers that compute what a model's do, on the same parameters.

    Convolution, max-pooling and ReLU, the latter two in either order, become one; a convolution or
    dense layer takes up a ReLU.
    """
    fused: list[Layer] = []
    left = list(model.layers)
    while left:
        layer = left.pop(0)
        pool = pooling_of(model, layer, left[:2]) if type(layer) is Conv2D else None
        if isinstance(layer, Conv2D) and pool is not None:
            fused.append(ConvPool(layer, pool))
            del left[:2]
        elif type(layer) in (Conv2D, Dense) and _are(left[:1], ReLU):
            fused.append(WithReLU(layer))
            del left[:1]
        else:
            fused.append(layer)
    return fused


class WithReLU(Layer):
    """A convolution or dense layer followed by a ReLU."""

    recordable = True

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.parameters = layer.parameters

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return y of the layer's output shape."""
        assert isinstance(self.layer, (Conv2D, Dense))
        self._y = self.layer.forward(x, training, relu=True)
        return self._y

    def backward(self, dy: Array) -> Array:
        """Return dx of x's shape."""
        return self.layer.backward(kernels.relu_backward(dy, self._y))


class ConvPool(Layer):
    """A convolution followed by max-pooling and a ReLU, in either order."""

    recordable = True

    def __init__(self, conv: Conv2D, pool: Pool) -> None:
        self.conv = conv
        self.pool = pool
        self.parameters = conv.parameters

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return y (N, PH, PW, F)."""
        conv = self.conv
        weight, bias = conv.parameters["weight"], conv.parameters.get("bias")
        self._x = x
        self._y, self._argmax = conv2d_pool.forward(x, weight, bias, conv.window, self.pool)
        return self._y

    def backward(self, dy: Array) -> Array:
        """Return dx (N, H, W, C)."""
        conv = self.conv
        saved = (dy, self._y, self._argmax)
        geometry = (conv.window, self.pool)
        dw, db = conv.gradients["weight"], conv.gradients.get("bias")
        conv2d_pool.filter_gradient(*saved, self._x, dw, db, *geometry)
        if not conv.need_dx:
            return None
        weight = conv.parameters["weight"]
        return conv2d_pool.input_gradient(*saved, weight, self._x.shape, *geometry)


def pooling_of(model: Sequential, conv: Conv2D, after: Sequence[Layer]) -> Pool | None:
    """Return the pool of the two layers after a convolution, if it is one that can be fused.

    They must be a max-pool, of windows that touch and do not overlap, and a ReLU.
    """
    if not (_are(after, MaxPool2D, ReLU) or _are(after, ReLU, MaxPool2D)):
        return None
    pool = next(layer for layer in after if isinstance(layer, MaxPool2D))
    kernel, stride = pair("kernel", pool.kernel, 1), pair("stride", pool.stride or pool.kernel, 1)
    plain = kernel == stride and pool.padding in (0, "valid") and pool.dilation == 1
    if not plain or pool.ceil_mode or conv.groups != 1:
        return None
    filters = conv.parameters["weight"].shape
    return conv2d_pool.windows(model.target, model.dtype, filters, conv.window, kernel)


def _are(layers: Sequence[Layer], *kinds: type[Layer]) -> bool:
    """Whether layers are of exactly these classes: a derived one may do something else."""
    return [type(layer) for layer in layers] == list(kinds)
