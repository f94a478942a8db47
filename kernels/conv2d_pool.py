"""Convolution, max-pooling and ReLU in one, and its gradients: what a planned step runs.

The convolution has neither groups nor dilation along a row; the pool's windows touch, do not
overlap and have two or four pixels.
"""

from __future__ import annotations

import ctypes
from typing import Any

from . import gemm, winograd
from .conv2d import padded
from .geometry import Window
from .reduce import accumulator
from .runtime import Array, Source, Target, checks
from .runtime.target import Shape

_FORWARD = Source("conv2d.cu")
_SOURCE = Source("conv2d_pool.cu", FILTERS=1, ROWS=1, VECTORS=1)
_BLOCKS = {"cpu": 16}  # each with partial gradients of its own; 64 elsewhere
_MOST_SHARED = 48 * 1024  # bytes a block may have without asking
_MOST_ON_CPU = 512 * 1024  # bytes that stay in the second-level cache
_REGISTERS = 20  # vectors of filters that a thread sums up at a time


class Pool(ctypes.Structure):
    """The struct of ``conv2d_pool.cu``, field for field."""

    _fields_ = [
        (name, ctypes.c_int) for name in ("PH", "PW", "KH", "KW", "height", "width", "depth", "run")
    ]
    PH: int
    PW: int
    KH: int
    KW: int
    height: int
    width: int
    depth: int
    run: int


def windows(
    target: Target, dtype: Any, filters: Shape, window: Window, kernel: tuple[int, int]
) -> Pool | None:
    """Return the windows of a pool of this size over a convolution's output, if it can be fused.

    Parameters
    ----------
    target, dtype
        What it is to run on.
    filters : (F, KH, KW, C)
        Shape of the filters.
    window : Window
        Geometry of the convolution.
    kernel : (h, w)
        Pixels of a pooling window; windows touch and do not overlap.
    """
    taps = kernel[0] * kernel[1]
    pool = Pool(window.OH // kernel[0], window.OW // kernel[1], *kernel)
    if taps not in (2, 4) or window.DW != 1 or pool.PH * pool.PW == 0:
        return None
    canvas, _, itemsize = _canvas(target, window, pool, filters[3], dtype)
    shared = _shared(canvas, filters[0], itemsize)
    limit = _MOST_ON_CPU if target.name == "cpu" else _MOST_SHARED
    return pool if shared <= limit else None


def forward(x: Array, w: Array, b: Array | None, window: Window, pool: Pool) -> tuple[Array, Array]:
    """Return y and argmax (N, PH, PW, F) of x (N, H, W, C)."""
    target, (x, w, b) = checks.arrays(x=x, w=w, b=b, optional=("b",))
    N, _, _, C = x.shape
    F = w.shape[0]
    shape = (N, pool.PH, pool.PW, F)
    y, argmax = target.empty(shape, x.dtype), target.empty(shape, "uint8")
    if (pool.KH, pool.KW) == (2, 2) and winograd.suits(target, x.dtype, N, window, C, F):
        winograd.pool_forward(x, w, b, y, argmax, window, target=target)
        return y, argmax
    rows = checks.count("x: pixels", N * pool.PH * pool.PW * pool.KH * pool.KW)
    x, window = padded(target, x, window)
    kernel = gemm.kernel(_FORWARD, "conv2d_pool_forward", target, x.dtype)
    kernel(
        gemm.tiles(target, rows, F),
        gemm.threads(target),
        *(x, w, b, y, argmax, window, rows, C, F),
        *(pool.PH, pool.PW, pool.KH, pool.KW),
    )
    return y, argmax


def input_gradient(
    dy: Array,
    y: Array,
    argmax: Array,
    w: Array,
    x_shape: Shape,
    window: Window,
    pool: Pool,
) -> Array:
    """Return dx (N, H, W, C) for the gradient dy of y."""
    target, (dy, y, w) = checks.arrays(dy=dy, y=y, w=w)
    (N, _, _, C), F = x_shape, w.shape[0]
    canvas, constants, itemsize = _canvas(target, window, pool, C, dy.dtype)
    rows = F * window.KH
    padded = target.empty((rows, canvas.run), accumulator(dy.dtype))
    kernel = _SOURCE.kernel("pad_filters", target, dy.dtype)
    sizes = (rows, window.KW, C, canvas.depth, canvas.run)
    kernel(target.stride_grid(padded.size), target.threads, w, padded, *sizes)
    dx = target.empty(x_shape, dy.dtype)
    kernel = _SOURCE.kernel("conv2d_pool_input_gradient", target, dy.dtype, **constants)
    shared = _shared(canvas, F, itemsize)
    arguments = (dy, y, argmax, padded, dx, window, canvas, N, C, F)
    kernel((_blocks(target, N), 1, 1), target.threads, *arguments, shared=shared)
    return dx


def filter_gradient(
    dy: Array,
    y: Array,
    argmax: Array,
    x: Array,
    dw: Array,
    db: Array | None,
    window: Window,
    pool: Pool,
) -> None:
    """Write dw (F, KH, KW, C) and, unless it is None, db (F,), for the gradient dy of y."""
    target, (dy, y, x) = checks.arrays(dy=dy, y=y, x=x)
    (N, _, _, C), F = x.shape, dw.shape[0]
    canvas, constants, itemsize = _canvas(target, window, pool, C, dy.dtype, F)
    blocks = _blocks(target, N)
    partial = target.empty((blocks, F, window.KH * canvas.run + 1), accumulator(dy.dtype))
    kernel = _SOURCE.kernel("conv2d_pool_filter_gradient", target, dy.dtype, **constants)
    shared = _shared(canvas, F, itemsize)
    arguments = (dy, y, argmax, x, partial, window, canvas, N, C, F)
    kernel((blocks, 1, 1), target.threads, *arguments, shared=shared)
    kernel = _SOURCE.kernel("sum_filters", target, dy.dtype)
    grid = target.stride_grid(dw.size + F)
    sizes = (F, window.KH, window.KW, C, canvas.depth, canvas.run, blocks)
    kernel(grid, target.threads, partial, dw, db, *sizes)


def _canvas(
    target: Target, g: Window, pool: Pool, C: int, dtype: Any, F: int = 1
) -> tuple[Pool, dict[str, int], int]:
    """Return what lies in shared memory, the registers of a thread, and the bytes of an element."""
    itemsize = 8 if accumulator(dtype) == "float64" else 4
    lanes = target.lanes(itemsize)
    limit = _REGISTERS if lanes > 1 else 1
    depth = C if lanes // 2 > C else -(-C // lanes) * lanes
    across = -(-g.KW * depth // lanes)
    height = max((pool.PH * pool.KH - 1) * g.SH + (g.KH - 1) * g.DH + 1, g.PH + g.H)
    width = max((pool.PW * pool.KW - 1) * g.SW + g.KW, g.PW + g.W)
    vectors = _divisor(across, limit)
    rows = _divisor(g.KH, limit // vectors) if vectors == across else 1
    filters = _divisor(F, limit // (vectors * rows)) if rows == g.KH else 1
    sizes = (pool.PH, pool.PW, pool.KH, pool.KW, height, width, depth, across * lanes)
    return Pool(*sizes), {"FILTERS": filters, "ROWS": rows, "VECTORS": vectors}, itemsize


def _divisor(number: int, limit: int) -> int:
    """Return the largest divisor up to a limit."""
    return max(d for d in range(1, max(limit, 1) + 1) if number % d == 0)


def _shared(canvas: Pool, F: int, itemsize: int) -> int:
    """Return the bytes of shared memory that both gradients fit in.

    The canvas; for one its gradients by window and the places of the windows, for the other the
    filters of one window by place.
    """
    windows, places = canvas.PH * canvas.PW, canvas.KH * canvas.KW
    elements = canvas.height * canvas.width * canvas.depth + canvas.run
    gradients = max(windows, places) * F
    return (elements + gradients) * itemsize + 4 * places * max(windows, F + 1)


def _blocks(target: Target, images: int) -> int:
    return min(images, _BLOCKS.get(target.name, 64))
