"""Images of one channel and few taps in 16 bits, on tensor cores."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from ..common.geometry import Window
from ..common.moments import Moments
from ..common.reduce import accumulator
from ..gemm.precision import multiplied
from ..runtime import Array, Source, Target

_FORWARD = Source("conv/one_channel_mma.cu")
_POOL = Source("conv/one_channel_pool_mma.cu")
_GRADIENT = Source("conv/one_channel_gradient_mma.cu")
_WARP = 32  # threads of a warp
_BLOCKS = 3  # of a multiprocessor, at most: a block has several images instead
_BESIDE = 8 * 1024  # bytes of shared memory that the kernels have beside an image
_CHUNKS = 8  # of a block's pixels, whose moments its threads share


class _Shape(NamedTuple):
    """How blocks are formed: constants of the sources."""

    filters: int  # of a group
    groups: int  # of a block, at most
    at_once: int  # pixels or pooling windows of a warp
    warps: int  # of a block, at most


_OF_PIXELS, _OF_WINDOWS = _Shape(8, 4, 16, 8), _Shape(8, 4, 8, 8)
_OF_GRADIENT = _Shape(16, 2, 16, 4)


def suits(target: Target, x: Array, g: Window) -> bool:
    """Whether tensor cores multiply arrays of x's type, and shared memory holds an image."""
    narrow = x.dtype.itemsize == 2 and multiplied(target, x.dtype) != "fp32"
    return narrow and _shared(g) <= target.near_bytes - _BESIDE


def forward(
    target: Target,
    x: Array,
    w: Array,
    b: Array | None,
    y: Array,
    g: Window,
    *,
    relu: bool,
    with_moments: bool,
) -> Moments | None:
    """Do what `one_channel.forward` does."""
    N, OH, OW, F = y.shape
    entry = "one_channel_mma_forward"
    launch, blocks, share = _launch(_FORWARD, entry, target, x, g, OH * OW, F, _OF_PIXELS)
    moments = Moments.empty(target, blocks * _CHUNKS, F, x.dtype) if with_moments else None
    launch(x, w, b, y, *(moments or (None,) * 3), g, N, share, F, int(relu))
    return moments


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
    """Do what `one_channel.pool_forward` does, for pooling windows of an even number of pixels."""
    N, PH, PW, F = y.shape
    sizes = {"POOL_H": kernel[0], "POOL_W": kernel[1]}
    entry = "one_channel_pool_mma_forward"
    launch, _, share = _launch(_POOL, entry, target, x, g, PH * PW, F, _OF_WINDOWS, **sizes)
    launch(x, w, b, y, argmax, g, N, share, PH, PW, F)


def filter_gradient(target: Target, dy: Array, x: Array, g: Window, bias: int) -> Array:
    """Do what `one_channel.filter_gradient` does, for dy (N, OH, OW, F) with OW and F even."""
    N, OH, OW, F = dy.shape
    entry = "one_channel_mma_filter_gradient"
    launch, blocks, share = _launch(_GRADIENT, entry, target, x, g, OH * OW, F, _OF_GRADIENT)
    sums = target.empty((blocks, (g.KH * g.KW + bias) * F), accumulator(dy.dtype))
    launch(dy, x, sums, g, N, share, F, bias)
    return sums


def _launch(
    source: Source,
    entry: str,
    target: Target,
    x: Array,
    g: Window,
    items: int,
    F: int,
    shape: _Shape,
    **constants: int,
) -> tuple[Callable[..., None], int, int]:
    """Return what launches a kernel for F filters and so many items of an image.

    Also the number of blocks that share the images, and the images of each.
    """
    N = x.shape[0]
    groups = min(-(-F // shape.filters), shape.groups)
    constants |= {"TAPS_H": g.KH, "TAPS_W": g.KW, "PADDED": int(not g.inside), "GROUPS": groups}
    precision = multiplied(target, x.dtype)
    kernel = source.kernel(entry, target, x.dtype, PRECISION=precision, **constants)
    share = -(-N // (_BLOCKS * target.multiprocessors))
    grid = (-(-N // share), -(-F // (shape.filters * groups)), 1)
    turns = -(-items // shape.at_once)
    warps = -(-turns // -(-turns // shape.warps))  # so many that they end together
    return partial(kernel, grid, warps * _WARP, shared=_shared(g)), grid[0], share


def _shared(g: Window) -> int:
    """Return the bytes of PixelPairs of ``pixel_pairs.cuh``."""
    rows, words = g.OH + g.KH - 1, (g.OW + g.KW) // 2
    return 2 * rows * words * 4
