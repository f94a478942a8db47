"""im2col, its adjoint, and copies of images with their padding."""

from __future__ import annotations

from typing import Any

from ..common.channels import Channels
from ..common.geometry import Padding, Pair, Window, image_shape, window
from ..runtime import Array, Source, Target, checks
from ..runtime.types import INT32_MAX, Shape

_SOURCE = Source("conv/im2col.cu")
#: The same in im2col_near.cuh.
_NEAR_PIXELS = 15
#: Those that a row of k may skip at once: no fewer than a tile has steps of k.
_MOST_IMAGES = 64


def im2col(
    x: Array, kernel: Pair, *, stride: Pair = 1, padding: Padding = 0, dilation: Pair = 1
) -> Array:
    """Return every window of x (N, H, W, C) as a row: (N*OH*OW, KH*KW*C), zero in the padding.

    Parameters are those of `conv2d`; `kernel` is int or (h, w).

    Raises
    ------
    TypeError, ValueError
        As in `conv2d`.
    """
    target, (x,) = checks.arrays(x=x)
    checks.dimensions("x", x, "N, H, W, C")
    N, H, W, C = x.shape
    g, _ = window((H, W), kernel, stride=stride, padding=padding, dilation=dilation)
    rows, taps = N * g.OH * g.OW, g.KH * g.KW
    checks.count("kernel: elements of a window", taps * C)
    cols = target.empty((rows, taps * C), x.dtype)
    channels = Channels(target, C, x.dtype, x, cols, taps=taps)
    launch = _SOURCE.kernel("im2col_copy", target, x.dtype, **channels.constants)
    launch(channels.grid(rows, cols.size), target.threads, x, cols, g, rows, C)
    return cols


def col2im(
    cols: Array,
    x_shape: Shape,
    kernel: Pair,
    *,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
) -> Array:
    """Return the adjoint of `im2col`: x (N, H, W, C) with every copied value added up.

    Parameters
    ----------
    cols : array (N*OH*OW, KH*KW*C)
        What `im2col` gives for an image of `x_shape`, floating.
    x_shape : (N, H, W, C)
        Shape of the result.
    kernel, stride, padding, dilation
        As in `im2col`.

    Raises
    ------
    TypeError, ValueError
        If dtype, shapes or parameters do not fit.
    """
    target, (cols,) = checks.arrays(cols=cols)
    N, H, W, C = image_shape("x_shape", x_shape)
    g, _ = window((H, W), kernel, stride=stride, padding=padding, dilation=dilation)
    expected = (N * g.OH * g.OW, g.KH * g.KW * C)
    checks.shape("cols", cols, expected, "N*OH*OW, KH*KW*C")
    x = target.empty((N, H, W, C), cols.dtype)
    channels = Channels(target, C, cols.dtype, cols, x)
    launch = _SOURCE.kernel("col2im_sum", target, cols.dtype, **channels.constants)
    launch(channels.grid(N * H * W, x.size), target.threads, cols, x, g, N * H, C)
    return x


def distance(target: Target, g: Window, C: int) -> dict[str, Any]:
    """Return the constants of im2col_near.cuh for products over windows of images of C channels."""
    # No distance in memory is longer than so many images and the rows that windows extend over.
    rows = _MOST_IMAGES * g.H + g.OH * g.SH
    near = max(g.extent) <= _NEAR_PIXELS and rows * g.W * C <= INT32_MAX
    return {} if target.in_lanes or near else {"NEAR": 0}


def padded(target: Target, x: Array, g: Window) -> tuple[Array, Window]:
    """Return x (N, H, W, C) and the window over it; or a padded copy, where that takes less time.

    The GEMM in SIMD lanes reads x in place, but takes several times as long for rows that reach
    into padding.
    """
    if not target.in_lanes or g.inside:
        return x, g
    rows, columns = g.reach
    return (x, g) if rows * columns > 2 * g.H * g.W else with_padding(target, x, g)


def with_padding(target: Target, x: Array, g: Window) -> tuple[Array, Window]:
    """Return a copy of images with the padding that windows reach, and the window over it."""
    rows, columns = g.reach
    N, H, W, C = x.shape
    y = target.empty((N, rows, columns, C), x.dtype)
    kernel = _SOURCE.kernel("pad_images", target, x.dtype)
    grid = target.stride_grid(y.size)
    kernel(grid, target.threads, x, y, N, H, W, C, g.PH, g.PW, rows, columns)
    return y, Window(rows, columns, g.OH, g.OW, g.KH, g.KW, g.SH, g.SW, 0, 0, g.DH, g.DW)
