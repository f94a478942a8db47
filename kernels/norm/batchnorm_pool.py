"""Fused batch normalisation, max-pooling and optional ReLU, for planned steps.

The pool's windows do not overlap and leave no gaps. They have few pixels: loops over them are
unrolled.
"""

from __future__ import annotations

from ..common.channels import Channels
from ..common.geometry import Window
from ..common.moments import Moments
from ..common.reduce import accumulator
from ..runtime import Array, Source, checks
from .batchnorm import BatchNormSaved, gradient_sums, running, statistics

_SOURCE = Source("norm/batchnorm_pool.cu")


def forward(
    x: Array,
    gamma: Array,
    beta: Array,
    running_mean: Array,
    running_var: Array,
    *,
    window: Window,
    training: bool,
    momentum: float,
    eps: float,
    relu: bool,
    moments: Moments | None = None,
) -> tuple[Array, Array, BatchNormSaved]:
    """Return y and argmax (N, OH, OW, C) of x (N, H, W, C), and what the gradient needs.

    With `training` the running statistics (C,) are updated in place as in `kernels.batch_norm`. If
    the `moments` of x are given, x is not read for them.
    """
    target, (x, gamma, beta) = checks.arrays(x=x, gamma=gamma, beta=beta)
    saved = statistics(
        target,
        x,
        *running(target, x, running_mean, running_var),
        training=training,
        momentum=momentum,
        eps=eps,
        moments=moments,
    )
    N, _, _, C = x.shape
    shape = (N, window.OH, window.OW, C)
    y, argmax = target.empty(shape, x.dtype), target.empty(shape, "uint8")
    windows = N * window.OH * window.OW
    arrays = (x, gamma, beta, saved.mean, saved.inv_std, y, argmax)
    channels = Channels(target, C, x.dtype, *arrays)
    constants = _constants(window, channels)
    kernel = _SOURCE.kernel("batch_norm_pool_forward", target, x.dtype, **constants)
    kernel(channels.grid(windows, y.size), target.threads, *arrays, window, windows, C, int(relu))
    return y, argmax, saved


def backward(
    dy: Array,
    x: Array,
    y: Array,
    argmax: Array,
    gamma: Array,
    saved: BatchNormSaved,
    dgamma: Array,
    dbeta: Array,
    window: Window,
    relu: bool,
) -> Array:
    """Return dx (N, H, W, C) for the gradient dy of y, and write dgamma and dbeta (C,).

    The statistics in `saved` must be the batch's.
    """
    target, (dy, x, y, gamma) = checks.arrays(dy=dy, x=x, y=y, gamma=gamma)
    N, _, _, C = x.shape
    moments = (saved.mean, saved.inv_std)
    windows = N * window.OH * window.OW
    channels = Channels(target, C, x.dtype, dy, x, y, argmax, *moments)
    windows_per_chunk, count = channels.chunks(windows, window.KH * window.KW)
    partial = target.empty((2, count, C), accumulator(x.dtype))
    arrays: tuple[Array, ...] = (dy, x, y, argmax, *moments, partial[0], partial[1])
    constants = _constants(window, channels)
    kernel = _SOURCE.kernel("batch_norm_pool_sums", target, x.dtype, **constants)
    sizes = (window, windows, C, int(relu), windows_per_chunk)
    kernel(channels.chunk_grid(count), target.threads, *arrays, *sizes)
    sums, _, _ = gradient_sums(target, partial, x.dtype, dbeta, dgamma)
    dx = target.empty(x.shape, x.dtype)
    arrays = (dy, x, y, argmax, gamma, *moments, *sums, dx)
    channels = Channels(target, C, x.dtype, *arrays)
    constants = _constants(window, channels)
    kernel = _SOURCE.kernel("batch_norm_pool_input_gradient", target, x.dtype, **constants)
    covered = N * -(-window.H // window.KH) * -(-window.W // window.KW)
    kernel(channels.grid(covered, x.size), target.threads, *arrays, window, N, C, int(relu))
    return dx


def _constants(window: Window, channels: Channels) -> dict[str, int]:
    return {"ROWS": window.KH, "COLUMNS": window.KW, **channels.constants}
