"""Winograd's algorithm for 3 x 3 convolutions at stride 1, and their gradients.

`conv2d` and conv2d_pool.py use it on `cpu` where it takes less time than the GEMM.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from ..common.geometry import Window
from ..common.moments import Moments
from ..common.reduce import accumulator, accumulator_bytes
from ..gemm.precision import rounds
from ..runtime import Array, Source, Target
from ..runtime.recording import current
from ..runtime.types import Grid, Shape

_SOURCE = Source("conv/winograd.cu")
_TILE = 4  # outputs along a side of a tile
_POINTS = 36  # products per tile, channel and filter
_LINE = 16  # elements of padding between the matrices of two points
_LEAST_CHANNELS = 16  # with fewer, much of a register would be zeros
_LEAST_TILES = 16  # with fewer, transforming the filters takes longer than it saves
_LEAST_OUTPUTS = 6  # per tile on average; with fewer, 36 products take longer than the GEMM's
_FEW_CHUNKS = 4  # fewer blocks would leave cores idle: filters are divided among blocks, too
_BLOCKS = 16  # blocks that a small number of tiles is divided among
#: Found by ``bench/kernels/tune.py``: the most tiles in shared memory at a time, and the fewest
#: tiles for which the filter gradient keeps a partial result.
ON_CPU = {"tiles": 32, "tiles_a_split": 96}
_MOST_SPLITS = 16  # partial results of the filter gradient
_changed: ContextVar[Array | None] = ContextVar("changed", default=None)


class Tiles(ctypes.Structure):
    """The struct of ``winograd.cu``, field for field."""

    _fields_ = [(name, ctypes.c_int) for name in ("rows", "columns", "chunk", "depth", "width")]
    rows: int
    columns: int
    chunk: int
    depth: int
    width: int


@contextmanager
def keeping(changed: Array) -> Iterator[None]:
    """Cache the transformed filters of convolutions recorded in the block, in this thread.

    Replays transform the filters again only if one changed, so this pays with few tiles, too.

    Parameters
    ----------
    changed : array (F,) of int32
        changed[f] is nonzero if filter f differs from the last replay; see `fold_norm`.
    """
    token = _changed.set(None if current() is None else changed)
    try:
        yield
    finally:
        _changed.reset(token)


def suits(
    target: Target, dtype: Any, images: int, window: Window, C: int, F: int, groups: int = 1
) -> bool:
    """Return whether a convolution from C channels to F filters should use this algorithm."""
    g = window
    if not target.in_lanes or rounds() or min(C, F) < _LEAST_CHANNELS:
        return False
    if (g.KH, g.KW, g.SH, g.SW, g.DH, g.DW, groups) != (3, 3, 1, 1, 1, 1, 1):
        return False
    tiles = _tiles(target, dtype, (g.OH, g.OW), C, F)
    count = tiles.rows * tiles.columns
    least = _LEAST_TILES if _changed.get() is None else 1
    worth = images * count >= least and _LEAST_OUTPUTS * count <= g.OH * g.OW
    return worth and tiles.chunk > 0


def forward(
    target: Target,
    x: Array,
    w: Array,
    b: Array | None,
    y: Array,
    window: Window,
    *,
    relu: bool,
    moments: Moments | None = None,
) -> None:
    """Write the convolution of x (N, H, W, C) with w (F, 3, 3, C), plus b, to y (N, OH, OW, F).

    The moments of y, if given, are written for each of its `chunks`.
    """
    arrays = (b, y, *(moments or (None,) * 3))
    _convolve(target, "winograd_forward", x, w, y.shape[1:3], window, arrays, (int(relu),))


def chunks(target: Target, y: Array, C: int) -> int:
    """Return the number of chunks of tiles in which the result y (N, OH, OW, F) is computed."""
    N, OH, OW, F = y.shape
    tiles, count = _chunks(target, y.dtype, N, (OH, OW), C, F)
    return -(-count // tiles.chunk)


def pool_forward(
    target: Target,
    x: Array,
    w: Array,
    b: Array | None,
    y: Array,
    argmax: Array,
    window: Window,
) -> None:
    """Write the maxima of 2 x 2 outputs, clipped below at zero, to y, and their places to argmax.

    y and argmax are (N, OH // 2, OW // 2, F).
    """
    _, PH, PW, _ = y.shape
    _convolve(target, "winograd_pool_forward", x, w, (2 * PH, 2 * PW), window, (b, y, argmax))


def input_gradient(target: Target, dy: Array, w: Array, dx: Array, window: Window) -> None:
    """Write dx (N, H, W, C): the convolution of the result's gradient dy with flipped filters."""
    g = window
    flipped = Window(g.OH, g.OW, g.H, g.W, 3, 3, 1, 1, 2 - g.PH, 2 - g.PW, 1, 1)
    rest = (None, dx, None, None, None)
    _convolve(target, "winograd_forward", dy, w, (g.H, g.W), flipped, rest, (0,), flipped=True)


def filter_gradient(target: Target, dy: Array, x: Array, dw: Array, window: Window) -> None:
    """Write dw (F, 3, 3, C) for the gradient dy of the result."""
    (N, _, _, C), F = x.shape, dy.shape[3]
    tiles = _tiles(target, x.dtype, (window.OH, window.OW), C, F)
    count = N * tiles.rows * tiles.columns
    splits = min(-(-count // ON_CPU["tiles_a_split"]), _MOST_SPLITS)
    size = (splits, _POINTS, tiles.depth * tiles.width + _LINE)
    partial = target.empty(size, accumulator(dy.dtype))
    _launch(
        target,
        "winograd_filter_gradient",
        (splits, 1, 1),
        tiles,
        *(dy, x, partial, window, tiles, count, C, F),
    )
    kernel = _SOURCE.kernel("winograd_sum_filters", target, x.dtype)
    grid = target.stride_grid(_POINTS * C * tiles.width)
    kernel(grid, target.threads, partial, dw, F, C, tiles.depth, tiles.width, splits)


def _convolve(
    target: Target,
    entry: str,
    x: Array,
    w: Array,
    outputs: tuple[int, int],
    window: Window,
    arrays: tuple[Array | None, ...],
    options: tuple[int, ...] = (),
    *,
    flipped: bool = False,
) -> None:
    (N, _, _, C), F = x.shape, w.shape[3 if flipped else 0]
    tiles, count = _chunks(target, x.dtype, N, outputs, C, F)
    changed = _changed.get()
    shape, wide = (_POINTS, C * tiles.width + _LINE), accumulator(w.dtype)
    u = target.empty(shape, wide) if changed is None else target.kept(shape, wide)
    kernel = _SOURCE.kernel("winograd_filters", target, w.dtype)
    # A replay that keeps u finds nothing changed, mostly, and should wake no thread for it.
    grid = target.stride_grid(u.size) if changed is None else (1, 1, 1)
    kernel(grid, target.threads, w, changed, u, w.shape[0], w.shape[3], tiles.width, int(flipped))
    blocks, registers = -(-count // tiles.chunk), tiles.width // target.lanes(u.itemsize)
    # Each part of the filters transforms the tiles again, so there is one part if blocks suffice.
    parts = -(-registers // 3) if blocks < _FEW_CHUNKS else 1
    grid = (blocks, parts, 1)
    _launch(target, entry, grid, tiles, x, u, *arrays, window, tiles, count, C, F, *options)


def _launch(target: Target, entry: str, grid: Grid, tiles: Tiles, *arguments: Any) -> None:
    x = arguments[0]
    shared = _shared(tiles, accumulator_bytes(x.dtype))
    kernel = _SOURCE.kernel(entry, target, x.dtype)
    kernel(grid, target.threads, *arguments, shared=shared)


def _tiles(target: Target, dtype: Any, outputs: Shape, C: int, F: int) -> Tiles:
    """Return the tiles over the outputs (OH, OW); chunk is 0 if not even one tile fits."""
    itemsize = accumulator_bytes(dtype)  # of a value at a point
    lanes = target.lanes(itemsize)
    width = -(-F // lanes) * lanes
    height = _height(target, itemsize, width)
    unit = max(lanes, height)
    depth = -(-C // unit) * unit
    tiles = Tiles(-(-outputs[0] // _TILE), -(-outputs[1] // _TILE), 0, depth, width)
    room = target.shared_bytes - _shared(tiles, itemsize)
    fitting = room // (_POINTS * (depth + width) * itemsize)
    tiles.chunk = max(min(fitting, ON_CPU["tiles"]) // height * height, 0)
    return tiles


def _chunks(
    target: Target, dtype: Any, images: int, outputs: Shape, C: int, F: int
) -> tuple[Tiles, int]:
    """Return the tiles, in chunks small enough for several blocks, and the number of tiles."""
    tiles = _tiles(target, dtype, outputs, C, F)
    count = images * tiles.rows * tiles.columns
    unit = _height(target, accumulator_bytes(dtype), tiles.width)
    tiles.chunk = min(tiles.chunk, max(count // _BLOCKS // unit, 1) * unit)
    return tiles, count


def _height(target: Target, itemsize: int, width: int) -> int:
    """Return the rows of the source's micro-tiles: TALL if the filters fill one register."""
    lanes = target.lanes(itemsize)
    rows = 8 if lanes * itemsize == 64 else 4 if lanes > 1 else 2
    return 2 * rows if 1 < lanes == width else rows


def _shared(tiles: Tiles, itemsize: int) -> int:
    """Return the bytes of shared memory: `pitch` of the source for both operands."""
    return _POINTS * (tiles.chunk * (tiles.depth + tiles.width) + 2 * _LINE) * itemsize
