"""A convolutional network as one writes it first in CuPy, from array functions alone.

Convolution is einsum over a strided view, its gradients are convolutions again (with the dilated
gradient and the rotated filters), max-pool's gradient is a mask, softmax's an explicit Jacobian.
Nothing calls BLAS. It runs on NumPy and on CuPy alike: set `xp`, the module of the arrays.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

xp: Any = np


def einsum(subscripts: str, a: Any, b: Any) -> Any:
    """Return a sum of products, as NumPy's einsum, which does not call BLAS.

    CuPy's calls cuBLAS. There, all products are made by broadcasting, and then summed.
    """
    if xp is np:
        return np.einsum(subscripts, a, b)
    factors, kept = subscripts.split("->")
    of_a, of_b = factors.split(",")
    axes = kept + "".join(name for name in dict.fromkeys(of_a + of_b) if name not in kept)

    def spread(x: Any, names: str) -> Any:
        x = x.transpose([names.index(name) for name in axes if name in names])
        return x[tuple(slice(None) if name in names else None for name in axes)]

    return (spread(a, of_a) * spread(b, of_b)).sum(axis=tuple(range(len(kept), len(axes))))


def windows(x: Any, kernel: tuple[int, int], stride: int = 1) -> Any:
    """Return a view (N, OH, OW, KH, KW, C) of all windows of x (N, H, W, C)."""
    N, H, W, C = x.shape
    KH, KW = kernel
    OH, OW = (H - KH) // stride + 1, (W - KW) // stride + 1
    n, h, w, c = x.strides
    return xp.lib.stride_tricks.as_strided(
        x, (N, OH, OW, KH, KW, C), (n, h * stride, w * stride, h, w, c)
    )


def grey_images(images: Any, mean: Any, std: Any) -> Any:
    """Return uint8 images (N, H, W) as float32 (N, H, W, 1)."""
    return ((images[..., None] - mean) / std).astype(xp.float32)


def pad(x: Any, padding: int) -> Any:
    return xp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))


def conv2d(x: Any, w: Any, b: Any, stride: int = 1, padding: int = 0) -> Any:
    """Convolve x (N, H, W, C) with w (F, KH, KW, C)."""
    return einsum("nhwijc,fijc->nhwf", windows(pad(x, padding), w.shape[1:3], stride), w) + b


def conv2d_weight_gradient(
    dy: Any, x: Any, w: Any, stride: int = 1, padding: int = 0
) -> tuple[Any, Any]:
    """Return (dw, db)."""
    seen = windows(pad(x, padding), w.shape[1:3], stride)
    return einsum("nhwf,nhwijc->fijc", dy, seen), dy.sum(axis=(0, 1, 2))


def conv2d_input_gradient(dy: Any, x: Any, w: Any, stride: int = 1, padding: int = 0) -> Any:
    """Convolve the dilated and padded dy with the rotated filters."""
    N, H, W, _ = x.shape
    F, KH, KW, _ = w.shape
    # The last rows and columns that no window reached stay zero.
    dilated = xp.zeros((N, H + 2 * padding - KH + 1, W + 2 * padding - KW + 1, F), dy.dtype)
    dilated[:, ::stride, ::stride] = dy
    dilated = xp.pad(dilated, ((0, 0), (KH - 1, KH - 1), (KW - 1, KW - 1), (0, 0)))
    rotated = w[:, ::-1, ::-1]
    dx = einsum("nhwijf,fijc->nhwc", windows(dilated, (KH, KW)), rotated)
    return dx[:, padding : padding + H, padding : padding + W]


def wanted(of_input: Callable[..., Any], of_weights: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that computes what is wanted of dx and of dw with db."""

    def backward(
        *arrays: Any,
        need_dx: bool = True,
        need_dw: bool = True,
        need_db: bool = True,
        **window: Any,
    ) -> tuple[Any, ...]:
        dx = (of_input(*arrays, **window),) if need_dx else ()
        return (*dx, *of_weights(*arrays, **window)) if need_dw or need_db else dx

    return backward


conv2d_backward = wanted(conv2d_input_gradient, conv2d_weight_gradient)


def max_pool2d(x: Any, size: int) -> tuple[Any, Any]:
    """Return the maxima of windows side by side, and which pixels they are."""
    N, H, W, C = x.shape
    tiles = x.reshape(N, H // size, size, W // size, size, C)
    y = tiles.max(axis=(2, 4))
    return y, tiles == y[:, :, None, :, None]


def mask(argmax: Any, size: int) -> Any:
    """Return which pixels the maxima are, as `max_pool2d` does, from their places in windows."""
    return argmax[:, :, None, :, None] == xp.arange(size * size).reshape(size, 1, size, 1)


def max_pool2d_backward(dy: Any, mask: Any) -> Any:
    N, OH, size, OW, _, C = mask.shape
    return (mask * dy[:, :, None, :, None]).reshape(N, OH * size, OW * size, C)


def relu(x: Any) -> Any:
    return xp.maximum(x, 0)


def relu_backward(dy: Any, y: Any) -> Any:
    return dy * (y > 0)


def dense(x: Any, w: Any, b: Any) -> Any:
    return einsum("ni,oi->no", x, w) + b


def dense_backward(dy: Any, x: Any, w: Any) -> tuple[Any, Any, Any]:
    """Return (dx, dw, db)."""
    return einsum("no,oi->ni", dy, w), einsum("no,ni->oi", dy, x), dy.sum(axis=0)


def softmax(x: Any) -> Any:
    e = xp.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def softmax_backward(dy: Any, y: Any) -> Any:
    jacobian = y[:, :, None] * (xp.eye(y.shape[1], dtype=y.dtype) - y[:, None, :])
    return einsum("ncd,nd->nc", jacobian, dy)


def cross_entropy(y: Any, labels: Any, smoothing: float = 0.0) -> tuple[Any, Any]:
    """Return the mean loss of probabilities y and its gradient."""
    N, C = y.shape
    expected = xp.full_like(y, smoothing / C)
    expected[xp.arange(N), labels] += 1 - smoothing
    return -(expected * xp.log(y)).sum() / N, -expected / y / N


def softmax_cross_entropy(logits: Any, labels: Any, smoothing: float = 0.0) -> tuple[Any, Any]:
    y = softmax(logits)
    loss, dy = cross_entropy(y, labels, smoothing)
    return loss, softmax_backward(dy, y)


class Network:
    """A chain of the layers above, trained by SGD.

    `layers` are (kind, settings) as `definitions.describe` gives them; `parameters` their arrays by
    "<position>.<name>". `products` is the module that has the convolutions and dense layers:
    `numpy_calls` has some that call BLAS.
    """

    def __init__(
        self, layers: list[Any], parameters: dict[str, Any], products: Any = sys.modules[__name__]
    ) -> None:
        self.layers, self.products = layers, products
        self.parameters = {name: xp.asarray(value).copy() for name, value in parameters.items()}
        self.gradients: dict[str, Any] = {}
        self.velocity = {name: xp.zeros_like(value) for name, value in self.parameters.items()}

    def forward(self, x: Any) -> Any:
        self.kept: list[Any] = []
        for position, (kind, settings) in enumerate(self.layers):
            kept = x
            if kind == "Conv2D":
                window = {"stride": 1, "padding": settings["padding"]}
                x = self.products.conv2d(x, *self._weights(position), **window)
            elif kind == "Dense":
                x = self.products.dense(x, *self._weights(position))
            elif kind == "MaxPool2D":
                x, kept = max_pool2d(x, settings["kernel"])
            elif kind == "ReLU":
                x = kept = relu(x)
            elif kind == "Flatten":
                x = x.reshape(len(x), -1)
            else:
                raise NotImplementedError(f"{kind} is not written naively")
            self.kept.append(kept)
        return x

    def backward(self, dy: Any) -> None:
        for position in reversed(range(len(self.layers))):
            (kind, settings), kept = self.layers[position], self.kept[position]
            if kind == "Conv2D":
                w, _ = self._weights(position)
                window = {"stride": 1, "padding": settings["padding"]}
                gradients = self.products.conv2d_weight_gradient(dy, kept, w, **window)
                self._store(position, *gradients)
                dy = self.products.conv2d_input_gradient(dy, kept, w, **window)
            elif kind == "Dense":
                w, _ = self._weights(position)
                dy, *gradients = self.products.dense_backward(dy, kept, w)
                self._store(position, *gradients)
            elif kind == "MaxPool2D":
                dy = max_pool2d_backward(dy, kept)
            elif kind == "ReLU":
                dy = relu_backward(dy, kept)
            else:
                dy = dy.reshape(kept.shape)

    def step(self, x: Any, labels: Any, lr: float, momentum: float, smoothing: float) -> Any:
        """Train on one batch by SGD with Nesterov's momentum; return the loss."""
        loss, dlogits = softmax_cross_entropy(self.forward(x), labels, smoothing)
        self.backward(dlogits)
        for name, gradient in self.gradients.items():
            self.velocity[name] = momentum * self.velocity[name] + gradient
            self.parameters[name] -= lr * (gradient + momentum * self.velocity[name])
        return loss

    def _weights(self, position: int) -> tuple[Any, Any]:
        return self.parameters[f"{position}.weight"], self.parameters[f"{position}.bias"]

    def _store(self, position: int, dw: Any, db: Any) -> None:
        self.gradients[f"{position}.weight"], self.gradients[f"{position}.bias"] = dw, db
