"""Max- and average-pooling and their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..common.channels import Channels
from ..common.geometry import Padding, Pads, Pair, Window, image_shape, window
from ..runtime import Array, Kernel, Source, Target, as_array, checks
from ..runtime.types import Grid, Shape

#: Of a max-pool's window: argmax is at most a uint16.
MOST_TAPS = 2**16
_FEW_TAPS = 16  # of a window that kernels on cuda are compiled for, and pixels of a stride
_SOURCE = Source("pooling/pool.cu", argmax_t=np.uint8)


def max_pool2d(
    x: Array,
    kernel: Pair,
    *,
    stride: Pair | None = None,
    padding: Padding = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
) -> tuple[Array, Array]:
    """Return the maximum of every window of x and its offset in the window.

    The first maximum in row-major order wins a tie, NaN wins over numbers, padding never wins. A
    window that lies wholly in the padding gives -inf, offset 0, and passes no gradient.

    Parameters
    ----------
    x : array (N, H, W, C)
        Images, floating.
    kernel : int or (h, w)
        Taps of the window.
    stride : int or (h, w), optional
        Pixels between neighbouring windows; the kernel's size by default.
    padding : int, (h, w), ((top, bottom), (left, right)), "valid" or "same"
        Up to the window's extent minus one on each side.
    dilation : int or (h, w)
        Pixels between neighbouring taps.
    ceil_mode : bool
        Round the number of windows up, as PyTorch does.

    Returns
    -------
    y : array (N, OH, OW, C)
    argmax : array (N, OH, OW, C)
        kh*KW + kw; uint8, or uint16 for windows of more than 256 taps.

    Raises
    ------
    TypeError, ValueError
        If dtype, shape or parameters do not fit.
    """
    target, (x,) = checks.arrays(x=x)
    checks.dimensions("x", x, "N, H, W, C")
    g, _ = _window(x.shape, kernel, stride, padding, dilation, ceil_mode)
    N, _, _, C = x.shape
    y = target.empty((N, g.OH, g.OW, C), x.dtype)
    argmax = target.empty(y.shape, _argmax_dtype(g))
    channels = Channels(target, C, x.dtype, x, y, argmax)
    launch = _max_kernel("max_pool2d_forward", target, x.dtype, g, channels)
    grid = channels.grid(N * g.OH * g.OW, max(x.size, y.size))  # few results of many pixels
    launch(grid, target.threads, x, y, argmax, g, N * g.OH, C)
    return y, argmax


def max_pool2d_backward(
    dy: Array,
    argmax: Array,
    x_shape: Shape,
    kernel: Pair,
    *,
    stride: Pair | None = None,
    padding: Padding = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
) -> Array:
    """Return dx (N, H, W, C) of `max_pool2d`: each dy (N, OH, OW, C) at its window's maximum.

    `argmax` is what `max_pool2d` gave; `x_shape` the shape of its x; the rest as there.

    Raises
    ------
    TypeError, ValueError
        If dtypes, devices, shapes or parameters do not fit.
    """
    target, (dy,) = checks.arrays(dy=dy)
    g, _ = _window(x_shape, kernel, stride, padding, dilation, ceil_mode)
    N, H, W, C = image_shape("x_shape", x_shape)
    checks.shape("dy", dy, (N, g.OH, g.OW, C), "the shape of the result")
    argmax = _argmax(target, argmax, g, dy.shape)
    dx = target.empty((N, H, W, C), dy.dtype)
    channels = Channels(target, C, dy.dtype, dy, argmax, dx)
    launch = _max_kernel("max_pool2d_backward", target, dy.dtype, g, channels)
    grid = _gradient_grid(target, channels, g, dx)
    launch(grid, target.threads, dy, argmax, dx, g, N * H, C)
    return dx


def pool_indices(
    argmax: Array,
    x_shape: Shape,
    kernel: Pair,
    *,
    stride: Pair | None = None,
    padding: Padding = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
) -> Array:
    """Return ih*W + iw of each maximum in its own channel plane: PyTorch's `return_indices`.

    Arguments are those of `max_pool2d_backward`. The result is int64 (N, OH, OW, C), -1 for a
    window that lies wholly in the padding.

    Raises
    ------
    TypeError, ValueError
        If dtype, shapes or parameters do not fit.
    """
    target, _ = as_array("argmax", argmax)
    g, _ = _window(x_shape, kernel, stride, padding, dilation, ceil_mode)
    N, _, _, C = image_shape("x_shape", x_shape)
    argmax = _argmax(target, argmax, g, (N, g.OH, g.OW, C))
    indices = target.empty(argmax.shape, np.int64)
    channels = Channels(target, C, np.dtype(np.float32), argmax, indices)
    launch = _max_kernel("pool_indices", target, np.dtype(np.float32), g, channels)
    grid = channels.grid(N * g.OH * g.OW, indices.size)
    launch(grid, target.threads, argmax, indices, g, N * g.OH, C)
    return indices


def avg_pool2d(
    x: Array,
    kernel: Pair,
    *,
    stride: Pair | None = None,
    padding: Padding = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """Return the average of every window of x, (N, OH, OW, C).

    Parameters
    ----------
    x, kernel, stride, padding, dilation, ceil_mode
        As in `max_pool2d`.
    count_include_pad : bool
        Whether the padding counts in the divisor. Cells beyond the padding, which `ceil_mode` may
        reach, never count.

    Raises
    ------
    TypeError, ValueError
        If dtype, shape or parameters do not fit.
    """
    target, (x,) = checks.arrays(x=x)
    checks.dimensions("x", x, "N, H, W, C")
    g, pads = _window(x.shape, kernel, stride, padding, dilation, ceil_mode)
    N, _, _, C = x.shape
    y = target.empty((N, g.OH, g.OW, C), x.dtype)
    channels = Channels(target, C, x.dtype, x, y)
    launch = _kernel("avg_pool2d_forward", target, x.dtype, g, channels)
    padded = (int(bool(count_include_pad)), pads[0][1], pads[1][1])
    grid = channels.grid(N * g.OH * g.OW, max(x.size, y.size))
    launch(grid, target.threads, x, y, g, N * g.OH, C, *padded)
    return y


def avg_pool2d_backward(
    dy: Array,
    x_shape: Shape,
    kernel: Pair,
    *,
    stride: Pair | None = None,
    padding: Padding = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """Return dx (N, H, W, C) of `avg_pool2d`: each dy (N, OH, OW, C) divided over its window.

    Raises
    ------
    TypeError, ValueError
        If dtype, shapes or parameters do not fit.
    """
    target, (dy,) = checks.arrays(dy=dy)
    g, pads = _window(x_shape, kernel, stride, padding, dilation, ceil_mode)
    N, H, W, C = image_shape("x_shape", x_shape)
    checks.shape("dy", dy, (N, g.OH, g.OW, C), "the shape of the result")
    dx = target.empty((N, H, W, C), dy.dtype)
    channels = Channels(target, C, dy.dtype, dy, dx)
    launch = _kernel("avg_pool2d_backward", target, dy.dtype, g, channels)
    padded = (int(bool(count_include_pad)), pads[0][1], pads[1][1])
    grid = _gradient_grid(target, channels, g, dx)
    launch(grid, target.threads, dy, dx, g, N * H, C, *padded)
    return dx


def global_avg_pool2d(x: Array) -> Array:
    """Return the average of every channel plane of x (N, H, W, C): (N, C).

    Raises
    ------
    TypeError, ValueError
        If dtype or shape do not fit, or the planes are empty.
    """
    target, (x,) = checks.arrays(x=x)
    checks.dimensions("x", x, "N, H, W, C")
    N, H, W, C = x.shape
    if H * W == 0:
        raise ValueError(f"x: got shape {x.shape}, expected images with pixels")
    y = target.empty((N, C), x.dtype)
    channels = Channels(target, C, x.dtype, x, y)
    launch = _SOURCE.kernel("global_avg_pool2d_forward", target, x.dtype, **channels.constants)
    launch(channels.chunk_grid(N), target.threads, x, y, checks.count("x: pixels", H * W), C)
    return y


def global_avg_pool2d_backward(dy: Array, x_shape: Shape) -> Array:
    """Return dx (N, H, W, C) of `global_avg_pool2d` for dy (N, C).

    Raises
    ------
    TypeError, ValueError
        If dtype or shapes do not fit.
    """
    target, (dy,) = checks.arrays(dy=dy)
    N, H, W, C = image_shape("x_shape", x_shape)
    checks.shape("dy", dy, (N, C), "(N, C) for x_shape's (N, H, W, C)")
    dx = target.empty((N, H, W, C), dy.dtype)
    channels = Channels(target, C, dy.dtype, dy, dx)
    launch = _SOURCE.kernel("global_avg_pool2d_backward", target, dy.dtype, **channels.constants)
    pixels = checks.count("x_shape: pixels", H * W)
    launch(channels.chunk_grid(N), target.threads, dy, dx, pixels, C)
    return dx


def _window(
    x_shape: Shape,
    kernel: Pair,
    stride: Pair | None,
    padding: Padding,
    dilation: Pair,
    ceil_mode: bool,
) -> tuple[Window, Pads]:
    N, H, W, C = image_shape("x_shape", x_shape)
    checks.count("x: elements of an image", H * W * C)
    return window(
        (H, W),
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
        pool=True,
    )


def _argmax_dtype(g: Window) -> Any:
    if g.KH * g.KW > MOST_TAPS:
        raise ValueError(f"kernel: got {g.KH} x {g.KW} taps, expected at most {MOST_TAPS}")
    return np.dtype(np.uint8 if g.KH * g.KW <= 256 else np.uint16)


def _argmax(target: Target, argmax: Any, g: Window, shape: Shape) -> Array:
    dtype = _argmax_dtype(g)
    argmax = checks.of_type(target, "argmax", argmax, str(dtype), "u")
    if argmax.dtype != dtype:
        raise TypeError(f"argmax: got {argmax.dtype}, expected {dtype} for {g.KH * g.KW} taps")
    checks.shape("argmax", argmax, shape, "the shape of the result")
    return argmax


def _max_kernel(entry: str, target: Target, dtype: Any, g: Window, channels: Channels) -> Kernel:
    return _kernel(entry, target, dtype, g, channels, argmax_t=_argmax_dtype(g))


def _kernel(
    entry: str, target: Target, dtype: Any, g: Window, channels: Channels, **types: Any
) -> Kernel:
    constants = channels.constants | _known(target, g)
    return _SOURCE.kernel(entry, target, dtype, **types, **constants)


def _known(target: Target, g: Window) -> dict[str, int]:
    """Return what a kernel may know of windows when it is compiled: all but the images' sizes."""
    if target.in_lanes or g.KH * g.KW > _FEW_TAPS or g.SH * g.SW > _FEW_TAPS:
        return {}
    if (g.DH, g.DW) != (1, 1) or 0 in (g.H, g.W, g.OH, g.OW):
        return {}
    sizes = {"TAPS_H": g.KH, "TAPS_W": g.KW, "STRIDE_H": g.SH, "STRIDE_W": g.SW}
    return sizes | {"INSIDE": int(g.inside)}


def _gradient_grid(target: Target, channels: Channels, g: Window, dx: Array) -> Grid:
    """Return the grid of a gradient: where windows are known, a thread has SH x SW pixels."""
    N, H, W, _ = dx.shape
    if _known(target, g):
        H, W = -(-(H + g.PH) // g.SH), -(-(W + g.PW) // g.SW)
    return channels.grid(N * H * W, dx.size)
