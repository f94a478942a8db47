"""Fused convolution, max-pooling and ReLU, and its gradients, for planned steps.

The convolution has neither groups nor dilation along a row; the pool's windows do not overlap,
leave no gaps, and have two or four pixels.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

from ..common.geometry import Pooling, Window
from ..common.reduce import accumulator, accumulator_bytes
from ..gemm import division, gemm
from ..gemm.gradients import Rectified
from ..runtime import Array, Source, Target, checks
from ..runtime.types import Shape
from . import one_channel, winograd
from .conv2d import SOURCE, gradients
from .im2col import distance, padded

_UNPOOL = Source("conv/unpool.cu")
_SOURCE = Source("conv/conv2d_pool.cu", ROWS=1, VECTORS=1)  # for cpu
_BLOCKS = 16  # each writes partial gradients of its own
_MOST_ON_CPU = 512 * 1024  # bytes of an image and its filters: they must stay in the L2 cache
_MOST_STRIPS = 32 * 1024  # bytes of strips: they must stay in the L1 cache
_REGISTERS = 20  # SIMD registers of sums per thread, of AVX-512's 32
_FEWER_REGISTERS = 15  # of AVX2's 16: one is left for what multiplies the taps
_BITS = 31  # windows per word, as in the source


class Pool(ctypes.Structure):
    """The struct of ``conv2d_pool.cu``, field for field."""

    _fields_ = [
        (name, ctypes.c_int)
        for name in ("PH", "PW", "KH", "KW", "height", "width", "strips", "rows", "run")
    ]
    PH: int
    PW: int
    KH: int
    KW: int
    height: int
    width: int
    strips: int
    rows: int
    run: int


def windows(
    target: Target, dtype: Any, filters: Shape, window: Window, kernel: tuple[int, int]
) -> Pool | None:
    """Return the windows of a pool over a convolution's output, or None if it cannot be fused.

    Parameters
    ----------
    target, dtype
        Of the arrays.
    filters : (F, KH, KW, C)
        Shape of the filters.
    window : Window
        Geometry of the convolution.
    kernel : (h, w)
        Size of a pooling window, which is the stride, too.
    """
    taps = kernel[0] * kernel[1]
    pool = Pool(window.OH // kernel[0], window.OW // kernel[1], *kernel)
    if taps not in (2, 4) or window.DW != 1 or pool.PH * pool.PW == 0:
        return None
    if not target.in_lanes:
        return pool
    layouts = _layouts(target, window, pool, filters, dtype)
    return pool if all(layout.shared <= _MOST_ON_CPU for layout in layouts) else None


def forward(x: Array, w: Array, b: Array | None, window: Window, pool: Pool) -> tuple[Array, Array]:
    """Return y and argmax (N, PH, PW, F) of x (N, H, W, C)."""
    target, (x, w, b) = checks.arrays(x=x, w=w, b=b, optional=("b",))
    N, _, _, C = x.shape
    F = w.shape[0]
    shape = (N, pool.PH, pool.PW, F)
    y, argmax = target.empty(shape, x.dtype), target.empty(shape, "uint8")
    if (pool.KH, pool.KW) == (2, 2) and winograd.suits(target, x.dtype, N, window, C, F):
        winograd.pool_forward(target, x, w, b, y, argmax, window)
        return y, argmax
    rows = checks.count("x: pixels", N * pool.PH * pool.PW * pool.KH * pool.KW)
    if one_channel.suits(target, x, F, window):
        one_channel.pool_forward(target, x, w, b, y, argmax, window, (pool.KH, pool.KW))
        return y, argmax
    x, window = padded(target, x, window)
    sizes = division.Sizes(rows, F, w[0].size)
    near = distance(target, window, C)
    launch, _ = gemm.forward(SOURCE, "conv2d_pool_forward", target, sizes, (x, C), (w, C), **near)
    pixels = pool.PH, pool.PW, pool.KH, pool.KW
    launch(x, w, b, y, argmax, window, rows, C, F, *pixels)
    return y, argmax


def backward(
    dy: Array,
    y: Array,
    argmax: Array,
    x: Array,
    w: Array,
    dw: Array | None,
    db: Array | None,
    window: Window,
    pool: Pool,
    *,
    need_dx: bool = True,
    past: Rectified | None = None,
) -> Array | None:
    """Return dx (N, H, W, C) or None, and write dw (F, KH, KW, C) and db (F,) unless they are None.

    Without dw, there is no db. `past` is that of `conv2d.gradients`, for targets that are not
    `in_lanes`.

    On `cuda` the gradient of the convolution's output is written out and multiplied like any other,
    zeros included; so 0 * NaN gives NaN, as in PyTorch. On `cpu` zeros are skipped.
    """
    target, (dy, y, x, w) = checks.arrays(dy=dy, y=y, x=x, w=w)
    if not target.in_lanes:
        convolved = _unpooled(target, dy, rectified(y, argmax, window, pool))
        arrays = (convolved, x, w, dw, db)
        return gradients(target, *arrays, window, need_dx=need_dx, past=past)
    if dw is not None:
        _filter_gradient(target, dy, y, argmax, x, dw, db, window, pool)
    return _input_gradient(target, dy, y, argmax, w, x.shape, window, pool) if need_dx else None


def rectified(y: Array, argmax: Array, window: Window, pool: Pool) -> Rectified:
    """Return what `forward` has returned, as made from the convolution's output."""
    sizes = (window.OH, window.OW, y.shape[3], pool.PH, pool.PW, pool.KH, pool.KW)
    return Rectified(y, argmax, Pooling(*sizes))


def _unpooled(target: Target, dy: Array, past: Rectified) -> Array:
    """Return the gradient (N, OH, OW, F) of the pool's input, for the gradient dy of y."""
    dz = target.empty(past.shape, dy.dtype)
    y, argmax, pooling = past
    assert argmax is not None and pooling is not None
    aligned = all(target.address(a) % (4 * a.itemsize) == 0 for a in (dy, y, argmax))
    width = 4 if aligned and pooling.F % 4 == 0 else 1
    count = dy.size // width
    kernel = _UNPOOL.kernel("unpool", target, dy.dtype)
    arrays = (dy, y, argmax, dz)
    kernel(target.stride_grid(count), target.threads, *arrays, pooling, count, width)
    return dz


def _input_gradient(
    target: Target,
    dy: Array,
    y: Array,
    argmax: Array,
    w: Array,
    x_shape: Shape,
    window: Window,
    pool: Pool,
) -> Array:
    """Return dx (N, H, W, C) for the gradient dy of y."""
    (N, _, _, C), F = x_shape, w.shape[0]
    _, layout = _layouts(target, window, pool, w.shape, dy.dtype)
    rows, length, run = F * window.KH, window.KW * C, layout.pool.run
    filters = target.empty((rows, run), accumulator(dy.dtype))
    kernel = _SOURCE.kernel("pad_filters", target, dy.dtype)
    kernel(target.stride_grid(filters.size), target.threads, w, filters, rows, length, run)
    dx = target.empty(x_shape, dy.dtype)
    kernel = _SOURCE.kernel("conv2d_pool_input_gradient", target, dy.dtype, **layout.constants)
    arguments = (dy, y, argmax, filters, dx, window, layout.pool, N, C, F)
    kernel((min(N, _BLOCKS), 1, 1), target.threads, *arguments, shared=layout.shared)
    return dx


def _filter_gradient(
    target: Target,
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
    (N, _, _, C), F = x.shape, dw.shape[0]
    layout, _ = _layouts(target, window, pool, dw.shape, dy.dtype)
    rows, run = layout.pool.rows, layout.pool.run
    blocks = min(N, _BLOCKS)
    partial = target.empty((blocks, F, rows * run + 1), accumulator(dy.dtype))
    kernel = _SOURCE.kernel("conv2d_pool_filter_gradient", target, dy.dtype, **layout.constants)
    arguments = (dy, y, argmax, x, partial, window, layout.pool, N, C, F)
    kernel((blocks, 1, 1), target.threads, *arguments, shared=layout.shared)
    kernel = _SOURCE.kernel("sum_filters", target, dy.dtype)
    grid = target.stride_grid(dw.size + F)
    length = window.KH * window.KW * C // rows
    kernel(grid, target.threads, partial, dw, db, F, rows, length, run, blocks)


class _Layout(NamedTuple):
    """The layout of image and filters in memory, for one gradient."""

    pool: Pool
    constants: dict[str, int]
    shared: int  # bytes of shared memory per block


def _layouts(
    target: Target, g: Window, pool: Pool, filters: Shape, dtype: Any
) -> tuple[_Layout, _Layout]:
    """Return the layouts for the gradients of filters (F, KH, KW, C) and of the input.

    With few channels, a row of taps does not fill its vectors. Strips, in which all rows of taps
    are one run, then need fewer vectors, though these cross lines of the cache.
    """
    F, KH, KW, C = filters
    itemsize = accumulator_bytes(dtype)
    lanes = target.lanes(itemsize)
    most = _REGISTERS if lanes * itemsize == 64 else _FEWER_REGISTERS
    limit = most if lanes > 1 else 1
    windows, places = pool.PH * pool.PW, pool.KH * pool.KW
    height = max((pool.PH * pool.KH - 1) * g.SH + (KH - 1) * g.DH + 1, g.PH + g.H)
    width = max((pool.PW * pool.KW - 1) * g.SW + KW, g.PW + g.W)
    image = height * width * C + lanes

    def layout(rows: int, length: int, strips: int, integers: int) -> _Layout:
        across = -(-length // lanes)
        sizes = (pool.PH, pool.PW, pool.KH, pool.KW, height, width, strips, rows, across * lanes)
        vectors = _divisor(across, limit)
        fitting = _divisor(rows, limit // vectors) if vectors == across else 1
        shared = (image + strips) * itemsize + integers * 4
        return _Layout(Pool(*sizes), {"ROWS": fitting, "VECTORS": vectors}, shared)

    strips = pool.PW * pool.KW * height * KW * C + lanes
    fewer = 2 * -(-KH * KW * C // lanes) < KH * -(-KW * C // lanes)
    integers = windows * places + -(-windows // (2 * _BITS)) * 2 * F
    if lanes > 1 and g.DH == 1 and fewer and strips * itemsize <= _MOST_STRIPS:
        of_filters = layout(1, KH * KW * C, strips, integers)
    else:
        of_filters = layout(KH, KW * C, 0, integers)
    return of_filters, layout(KH, KW * C, 0, 0)


def _divisor(number: int, limit: int) -> int:
    """Return the largest divisor up to a limit."""
    return max(d for d in range(1, max(limit, 1) + 1) if number % d == 0)
