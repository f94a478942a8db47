"""Convolution of images of one channel with few taps, max-pooled and clipped: a GPU's own path."""

from __future__ import annotations

from ..common.geometry import Window
from ..gemm import gemm
from ..runtime import Array, Source, Target
from ..runtime.types import GRID_YZ_MAX

_SOURCE = Source("conv/one_channel.cu")
_FILTERS = 8  # of a thread
_THREADS = 128
_MOST_TAPS = 25  # pixels under them, in registers beside what else there is


def suits(target: Target, x: Array, F: int, g: Window) -> bool:
    """Whether `pool_forward` does this convolution, and at less cost than as a product.

    Of 16 bits, or rounded to them, a product takes tensor cores.
    """
    wide = x.dtype.itemsize >= 4 and not gemm.rounds()
    few = x.shape[3] == 1 and g.KH * g.KW <= _MOST_TAPS and F <= _FILTERS * GRID_YZ_MAX
    return not target.in_lanes and wide and few and (g.SH, g.SW, g.DH, g.DW) == (1, 1, 1, 1)


def pool_forward(
    target: Target,
    x: Array,
    w: Array,
    b: Array | None,
    y: Array,
    argmax: Array,
    g: Window,
    kernel: tuple[int, int],
) -> None:
    """Write y and argmax (N, PH, PW, F) of x (N, H, W, 1), pooled in windows of a size."""
    N, PH, PW, F = y.shape
    taps = {"TAPS_H": g.KH, "TAPS_W": g.KW, "POOL_H": kernel[0], "POOL_W": kernel[1]}
    launch = _SOURCE.kernel("one_channel_pool_forward", target, x.dtype, **taps)
    windows = N * PH * PW
    grid = (-(-windows // _THREADS), -(-F // _FILTERS), 1)
    launch(grid, _THREADS, x, w, b, y, argmax, g, windows, PH, PW, F)
