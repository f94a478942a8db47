"""Layers that do the work of several in one pass."""

from __future__ import annotations

from collections.abc import Sequence

import kernels
from kernels import conv2d_pool
from kernels.conv2d_pool import Pool
from kernels.geometry import pair
from kernels.runtime import Array

from .layers import Conv2D, Dense, Layer, MaxPool2D, ReLU
from .model import Sequential


def fuse(model: Sequential) -> list[Layer]:
    """Return layers that compute what a model's do, on the same parameters.

    Convolution, max-pooling and ReLU, the latter two in either order, become one; a convolution or
    dense layer takes up a ReLU.
    """
    fused: list[Layer] = []
    left = list(model.layers)
    while left:
        if (layer := _conv_pool(model, left[:3])) is not None:
            fused.append(layer)
            del left[:3]
        elif _are(left[:2], Conv2D, ReLU) or _are(left[:2], Dense, ReLU):
            fused.append(WithReLU(left[0]))
            del left[:2]
        else:
            fused.append(left.pop(0))
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


def _conv_pool(model: Sequential, layers: Sequence[Layer]) -> ConvPool | None:
    """Return three layers as one, if they are what `ConvPool` does."""
    if not (_are(layers, Conv2D, MaxPool2D, ReLU) or _are(layers, Conv2D, ReLU, MaxPool2D)):
        return None
    conv = layers[0]
    pool = next(layer for layer in layers if isinstance(layer, MaxPool2D))
    assert isinstance(conv, Conv2D)
    kernel, stride = pair("kernel", pool.kernel, 1), pair("stride", pool.stride or pool.kernel, 1)
    plain = kernel == stride and pool.padding in (0, "valid") and pool.dilation == 1
    if not plain or pool.ceil_mode or conv.groups != 1:
        return None
    windows = conv2d_pool.windows(
        model.target, model.dtype, conv.parameters["weight"].shape, conv.window, kernel
    )
    return None if windows is None else ConvPool(conv, windows)


def _are(layers: Sequence[Layer], *kinds: type[Layer]) -> bool:
    """Whether layers are of exactly these classes: a derived one may do something else."""
    return [type(layer) for layer in layers] == list(kinds)
