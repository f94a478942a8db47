"""The functions of `kernels` from array functions and BLAS: a peer.

Convolutions are im2col and a matrix product. Arguments and results are those of `kernels`, as far
as the rows need them; all runs on NumPy and, with `xp` set to it, on CuPy.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .naive import wanted

xp: Any = np


def product(a: Any, b: Any) -> Any:
    """Return a @ b, by BLAS, which nothing else here calls."""
    return a @ b


def windows(x: Any, kernel: int, stride: int, padding: int, fill: float = 0.0) -> Any:
    """Return a view (N, OH, OW, KH, KW, C) of all windows of the padded x (N, H, W, C)."""
    if padding:
        edge = (padding, padding)
        x = xp.pad(x, ((0, 0), edge, edge, (0, 0)), constant_values=fill)
    seen = xp.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(1, 2))
    return seen[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3)


def im2col(x: Any, kernel: int, stride: int, padding: int) -> Any:
    seen = windows(x, kernel, stride, padding)
    return seen.reshape(seen.shape[0] * seen.shape[1] * seen.shape[2], -1)


def conv2d(x: Any, w: Any, b: Any, *, stride: int = 1, padding: int = 0) -> Any:
    seen = windows(x, w.shape[1], stride, padding)
    N, OH, OW = seen.shape[:3]
    cols = seen.reshape(N * OH * OW, -1)
    return (product(cols, w.reshape(len(w), -1).T) + b).reshape(N, OH, OW, len(w))


def conv2d_weight_gradient(dy: Any, x: Any, w: Any, *, stride: int = 1, padding: int = 0) -> tuple:
    rows = dy.reshape(-1, len(w))
    dw = product(rows.T, im2col(x, w.shape[1], stride, padding))
    return dw.reshape(w.shape), rows.sum(axis=0)


def conv2d_input_gradient(dy: Any, x: Any, w: Any, *, stride: int = 1, padding: int = 0) -> Any:
    F, KH, KW, C = w.shape
    _, H, W, _ = x.shape
    N, OH, OW, _ = dy.shape
    cols = product(dy.reshape(-1, F), w.reshape(F, -1)).reshape(N, OH, OW, KH, KW, C)
    dx = xp.zeros((N, H + 2 * padding, W + 2 * padding, C), dy.dtype)
    for kh in range(KH):
        for kw in range(KW):
            rows = slice(kh, kh + stride * (OH - 1) + 1, stride)
            columns = slice(kw, kw + stride * (OW - 1) + 1, stride)
            dx[:, rows, columns] += cols[:, :, :, kh, kw]
    return dx[:, padding : padding + H, padding : padding + W]


conv2d_backward = wanted(conv2d_input_gradient, conv2d_weight_gradient)


def dense(x: Any, w: Any, b: Any) -> Any:
    return product(x, w.T) + b


def dense_backward(dy: Any, x: Any, w: Any) -> tuple:
    return product(dy, w), product(dy.T, x), dy.sum(axis=0)


def max_pool2d(x: Any, kernel: int, *, stride: int, padding: int = 0) -> tuple:
    seen = windows(x, kernel, stride, padding, -np.inf)
    y, argmax = seen[..., 0, 0, :].copy(), xp.zeros(seen.shape[:3] + seen.shape[-1:], np.uint8)
    for tap in range(1, kernel * kernel):
        value = seen[..., tap // kernel, tap % kernel, :]
        larger = value > y
        xp.copyto(y, value, where=larger)
        argmax[larger] = tap
    return y, argmax


def max_pool2d_backward(
    dy: Any, argmax: Any, x_shape: tuple, kernel: int, *, stride: int, padding: int = 0
) -> Any:
    taps = [xp.where(argmax == tap, dy, 0) for tap in range(kernel * kernel)]
    return _scatter(taps, x_shape, kernel, stride, padding)


def avg_pool2d(x: Any, kernel: int) -> Any:
    return windows(x, kernel, kernel, 0).mean(axis=(3, 4))


def avg_pool2d_backward(dy: Any, x_shape: tuple, kernel: int) -> Any:
    taps = [dy / kernel**2] * kernel**2
    return _scatter(taps, x_shape, kernel, kernel, 0)


def _scatter(taps: list, x_shape: tuple, kernel: int, stride: int, padding: int) -> Any:
    """Add each tap's values (N, OH, OW, C) up where they came from."""
    N, H, W, C = x_shape
    OH, OW = taps[0].shape[1:3]
    dx = xp.zeros((N, H + 2 * padding, W + 2 * padding, C), taps[0].dtype)
    for tap, values in enumerate(taps):
        top, left = divmod(tap, kernel)
        rows = slice(top, top + stride * (OH - 1) + 1, stride)
        dx[:, rows, left : left + stride * (OW - 1) + 1 : stride] += values
    return dx[:, padding : padding + H, padding : padding + W]


def batch_norm(x: Any, gamma: Any, beta: Any, eps: float = 1e-5, **_: Any) -> Any:
    axes = tuple(range(x.ndim - 1))
    inv_std = 1 / xp.sqrt(x.var(axis=axes) + eps)
    return (x - x.mean(axis=axes)) * (inv_std * gamma) + beta


def batch_norm_backward(dy: Any, x: Any, gamma: Any, eps: float = 1e-5, **_: Any) -> tuple:
    axes = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    inv_std = 1 / xp.sqrt(x.var(axis=axes) + eps)
    normal = (x - x.mean(axis=axes)) * inv_std
    dgamma, dbeta = (dy * normal).sum(axis=axes), dy.sum(axis=axes)
    dx = (dy - dbeta / count - normal * (dgamma / count)) * (gamma * inv_std)
    return dx, dgamma, dbeta


def softmax_cross_entropy(logits: Any, labels: Any) -> tuple:
    N = len(logits)
    shifted = logits - logits.max(axis=1, keepdims=True)
    e = xp.exp(shifted)
    total = e.sum(axis=1)
    rows = xp.arange(N)
    loss = (xp.log(total) - shifted[rows, labels]).mean()
    e /= (total * N)[:, None]
    e[rows, labels] -= 1 / N
    return loss, e


def normalize(images: Any, mean: float, std: float) -> Any:
    return (images.astype(xp.float32) - mean) / std


def affine_warp(images: Any, matrix: Any, fill: float = 0) -> Any:
    """Bilinear, `fill` outside; matrix (N, 2, 3) maps output to input pixels."""
    N, H, W, C = images.shape
    y, x = xp.mgrid[:H, :W].astype(matrix.dtype)
    of_x, of_y, of_one = matrix.transpose(2, 1, 0)[..., None, None]
    column, row = of_x * x + of_y * y + of_one
    left, top = xp.floor(column).astype(int), xp.floor(row).astype(int)
    padded = xp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=fill)
    image, out = xp.arange(N)[:, None, None], xp.zeros_like(images)
    for down in (0, 1):
        for right in (0, 1):
            share = abs(1 - down - (row - top)) * abs(1 - right - (column - left))
            r = xp.clip(top + down + 1, 0, H + 1)
            c = xp.clip(left + right + 1, 0, W + 1)
            out += share[..., None] * padded[image, r, c]
    return out


def sgd_step(
    param: Any, grad: Any, velocity: Any, *, lr: float, momentum: float, nesterov: bool
) -> Any:
    """Nesterov's, in place."""
    assert nesterov
    velocity *= momentum
    velocity += grad
    param -= lr * (grad + momentum * velocity)
    return param


def adam_step(param: Any, grad: Any, m: Any, v: Any, *, step: int, lr: float) -> Any:
    """With the usual constants, in place."""
    beta1, beta2, eps = 0.9, 0.999, 1e-8
    m *= beta1
    m += (1 - beta1) * grad
    v *= beta2
    v += (1 - beta2) * grad * grad
    param -= lr / (1 - beta1**step) * m / (xp.sqrt(v / (1 - beta2**step)) + eps)
    return param
