"""One call of every public function of `kernels`, for tests of properties that all must have.

Sizes are small, but give several blocks, tiles and chunks, with tails, on every target.
"""

import numpy as np

from kernels.common.geometry import window
from kernels.common.moments import Moments
from kernels.conv import conv2d_pool, winograd
from kernels.conv.conv2d import forward_with_moments
from kernels.loss import dense_loss
from kernels.runtime import checks
from tests.cases import CASES
from tests.cases.case import Call
from tests.lib.support import normal


def conv2d_pool_and_gradients(x, w, b, dy, *, kernel=(2, 2)):
    """Call what a planned step does with a convolution, a pool and a ReLU; b may be None."""
    target, _ = checks.arrays(x=x)
    g, _ = window(x.shape[1:3], w.shape[1:3], stride=1, padding=1, dilation=1)
    pool = conv2d_pool.windows(target, x.dtype, w.shape, g, kernel)
    y, argmax = conv2d_pool.forward(x, w, b, g, pool)
    dw = target.empty(w.shape, w.dtype)
    db = None if b is None else target.empty(b.shape, b.dtype)
    dx = conv2d_pool.backward(dy, y, argmax, x, w, dw, db, g, pool)
    return y, argmax, dx, dw, db


def winograd_and_gradients(x, w, b, dy, *, padding=1):
    """Call what `conv2d` and its gradients are on `cpu` for filters of 3 x 3; b may be None."""
    target, _ = checks.arrays(x=x)
    g, _ = window(x.shape[1:3], 3, stride=1, padding=padding, dilation=1)
    y, dx, dw = (target.empty(array.shape, x.dtype) for array in (dy, x, w))
    maxima = (len(x), g.OH // 2, g.OW // 2, len(w))
    pooled, argmax = target.empty(maxima, x.dtype), target.empty(maxima, "uint8")
    winograd.forward(target, x, w, b, y, g, relu=b is None)
    winograd.pool_forward(target, x, w, b, pooled, argmax, g)
    winograd.input_gradient(target, dy, w, dx, g)
    winograd.filter_gradient(target, dy, x, dw, g)
    return y, pooled, argmax, dx, dw


def winograd_with_moments(x, w, b, *, padding=1):
    """Call what `forward_with_moments` does on `cpu` for filters of 3 x 3; b may be None."""
    target, _ = checks.arrays(x=x)
    g, _ = window(x.shape[1:3], 3, stride=1, padding=padding, dilation=1)
    (N, _, _, C), F = x.shape, len(w)
    y = target.empty((N, g.OH, g.OW, F), x.dtype)
    moments = Moments.empty(target, winograd.chunks(target, y, C), F, x.dtype)
    winograd.forward(target, x, w, b, y, g, relu=False, moments=moments)
    return y, moments


def _planned():
    # More images than the 64 blocks of a GPU, so that a block takes two; a row is left over.
    x, w = normal(0, 66, 5, 4, 3), normal(1, 5, 3, 3, 3)
    arrays = {"x": x, "w": w, "b": normal(2, 5), "dy": normal(3, 66, 2, 2, 5)}
    # Over 32 tiles of three micro-tiles each, so that the last chunk is not whole; an odd height.
    x, w = normal(4, 7, 5, 4, 17), normal(5, 9, 3, 3, 17)
    tiles = {"x": x, "w": w, "b": normal(6, 9), "dy": normal(7, 7, 5, 4, 9)}
    dense = {"x": normal(8, 300, 70), "w": normal(9, 10, 70), "b": normal(10, 10)}
    filtered = {name: tiles[name] for name in ("x", "w", "b")}
    return {
        "conv2d_pool": Call(conv2d_pool_and_gradients, arrays),
        "dense_cross_entropy": Call(
            dense_loss.dense_cross_entropy,
            {**dense, "labels": np.arange(300) % 10},
            {"label_smoothing": 0.1},
        ),
        "winograd": Call(winograd_and_gradients, tiles),
        "conv2d_moments": Call(forward_with_moments, filtered, {"padding": 1}),
        "winograd_moments": Call(winograd_with_moments, filtered),
    }


CALLS = {name: case.call() for name, case in CASES.items()}

#: What only planned steps do: no public function, whose arguments would be checked.
PLANNED = _planned()

#: Each (function, array argument).
ARGUMENTS = [(name, argument) for name, call in CALLS.items() for argument in call.arrays]
