"""The GEMM's tiles, launch geometry and precision."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple

from ..common.reduce import accumulator
from ..runtime import Array, Source, Target
from ..runtime.types import GRID_YZ_MAX, Grid

#: On `cpu`, found by ``bench/kernels/tune.py``: rows of a block (each block packs operand B), the
#: most blocks, and the most partial results of a split reduction.
ON_CPU = {"rows": 256, "blocks": 64, "splits": 16}


class Tile(NamedTuple):
    """The tile of a block on `cuda`.

    The static_asserts of gemm_stages.cuh, gemm_fma.cuh and gemm_mma.cuh say which there may be; the
    stages of both operands must fit in 48 KiB.
    """

    BM: int  # rows and columns of a block
    BN: int
    BK: int  # steps of k in a stage
    WARP_M: int  # rows and columns of a warp
    WARP_N: int
    STAGES: int
    LANES_N: int = 4  # lanes side by side along n
    speed: float = 1.0  # by the body's rate: see there

    @property
    def warps(self) -> int:
        """Warps of a block."""
        return self.BM // self.WARP_M * (self.BN // self.WARP_N)

    @property
    def constants(self) -> dict[str, int]:
        """The constants that the GEMM's headers are compiled with."""
        names = "BM BN BK WARP_M WARP_N STAGES LANES_N".split()
        return {name: getattr(self, name) for name in names}

    def grid(self, M: int, N: int, depth: int) -> Grid:
        """Return the grid of `depth` products of M x N outputs."""
        return -(-M // self.BM), -(-N // self.BN), depth


@dataclass(frozen=True, eq=False)
class _Body:
    """Tiles of one kind of arithmetic, and what limits it.

    Attributes
    ----------
    tiles : tuple of Tile
        The tiles. The speed of one without tensor cores is the share of multiply instructions in
        its main loop, by the best tile's; with tensor cores it is less than 1 if reads conflict.
    pipe : int
        Multiply-adds of a multiprocessor per clock.
    size : int
        Bytes of an element in shared memory, if that may be slower or too small.
    """

    tiles: tuple[Tile, ...]
    pipe: int
    size: int = 0

    def rate(self, tile: Tile) -> float:
        """Return the multiply-adds of a multiprocessor per clock with a tile."""
        if not self.size:
            return self.pipe * tile.speed
        # The copies of a block write each element once; its warps read those of their outputs.
        once, again = (1 / tile.BM + 1 / tile.BN), (1 / tile.WARP_M + 1 / tile.WARP_N)
        return tile.speed * min(self.pipe, _SHARED / (self.size * (once + again)))

    def leaves_room(self, tile: Tile) -> bool:
        """Whether the stages of a tile leave some shared memory, of 48 KiB."""
        return tile.STAGES * (tile.BM + tile.BN) * tile.BK * self.size < 48 * 1024


#: FP32 without tensor cores (gemm_fma.cuh): 8 x 8 outputs per lane, 4 x 12 for 24 columns, or less.
#: Arrays of 16 bits, too, where tensor cores lack their type. Append new tiles: the first stands
#: for all in `make resources`. tests/kernels/test_gemm_tiles.py takes every tile from here.
_FMA = _Body(
    (
        Tile(128, 64, 16, 64, 32, 3),
        Tile(64, 64, 16, 32, 32, 3, speed=0.92),
        Tile(256, 32, 16, 64, 32, 2, speed=0.96),
        Tile(128, 32, 16, 32, 32, 3, speed=0.88),
        Tile(256, 24, 16, 64, 24, 2, LANES_N=2, speed=0.89),
        Tile(128, 24, 16, 64, 24, 3, LANES_N=2, speed=0.89),
        Tile(256, 16, 16, 64, 16, 2, speed=0.8),
        Tile(128, 16, 16, 32, 16, 3, speed=0.74),
        Tile(32, 32, 16, 32, 16, 3, speed=0.7),
        Tile(32, 16, 16, 32, 16, 3, speed=0.6),
    ),
    pipe=128,
)
_FMA_DOUBLE = _Body((Tile(64, 64, 16, 32, 16, 2), Tile(32, 16, 16, 32, 16, 2, speed=0.8)), pipe=64)
#: Tensor cores (gemm_mma.cuh), float arrays.
_MMA = _Body(
    (Tile(64, 64, 32, 32, 32, 2), Tile(64, 32, 32, 32, 32, 2), Tile(32, 32, 32, 32, 32, 2)),
    pipe=1290,
    size=4,
)
#: Tensor cores, arrays of 16 bits.
_MMA_16 = _Body(
    (
        Tile(128, 128, 32, 64, 32, 3),
        Tile(128, 64, 32, 64, 32, 3),
        Tile(64, 64, 32, 64, 32, 3),
        Tile(64, 64, 32, 32, 32, 3),
        Tile(128, 32, 32, 32, 32, 3, speed=0.9),
        Tile(32, 32, 32, 32, 32, 3, speed=0.8),
        Tile(192, 64, 32, 96, 32, 3),
    ),
    pipe=1290,  # by mma.sync
    size=2,
)
# The model by which a tile is chosen: an H100's multiprocessors, of each the instructions that it
# issues and the bytes of shared memory per clock, bytes per clock of L2, and clocks of a launch. It
# is the same on every GPU, so that bits do not depend on which one it is.
_MULTIPROCESSORS, _ISSUE, _SHARED, _L2, _LAUNCH = 132, 4, 128, 2500, 2000
#: Parts of k to try; and, if there are several, those whose blocks fill the multiprocessors so many
#: times.
_SPLITS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256)
_FILLS = (1, 2, 3)
#: Most columns of a block that has whole rows, as loss/dense_loss.cu needs: the widest tile of each
#: body that fits in shared memory. Tiles of this width and less are that kernel's, too.
MOST_IN_ROWS = 64
_NARROW = {"float16": "fp16", "bfloat16": "bf16"}
#: Whether k may be divided among blocks; the caller adds up their partial sums.
Split = Literal["never", "in tiles", "always"]

_precision: ContextVar[str] = ContextVar("precision", default="fp32")


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Round the operands of float32 products within a ``with`` block, in this thread.

    Parameters
    ----------
    name : {"fp32", "tf32", "bf16", "fp16"}
        "fp32" does not round. The others do, to nearest, and multiply on tensor cores: tf32 keeps
        10 bits after the point, bf16 7, both with the exponents of float32; fp16 keeps 10 and has
        no number above 65504. Sums and results are float32, and so are sums alone, as the
        gradients of biases.

    Raises
    ------
    ValueError
        From functions that multiply, if arrays or target do not support this precision.
    """
    token = _precision.set(name)
    try:
        yield
    finally:
        _precision.reset(token)


def rounds() -> bool:
    """Return whether `precision` is rounding operands."""
    return _precision.get() != "fp32"


def check_precision(name: str, target: Target, dtype: Any) -> None:
    """Raise ValueError unless arrays of a dtype can be multiplied in a precision on a target."""
    known = target.precisions if dtype == "float32" else ("fp32",)
    if name not in known:
        expected = " or ".join(map(repr, known))
        raise ValueError(
            f"precision: got {name!r} for {dtype} arrays on {target}, expected {expected}"
        )


def product(
    source: Source,
    entry: str,
    target: Target,
    dtype: Any,
    work: Work,
    *,
    vectors: tuple[bool, bool] = (False, False),
    **types: Any,
) -> Callable[..., None]:
    """Return a function that launches an entry point for a product in the chosen precision.

    Parameters
    ----------
    source, entry, target, dtype
        As `Source.kernel` takes them.
    work : Work
        What `divide` returned.
    vectors : (bool, bool)
        Whether A and B may be copied 16 bytes at a time; see `in_vectors`.
    **types
        Element types of other names than T in the entry's declaration; ``sum_t`` is T by itself.
    """
    more = {"sum_t": dtype, **types}
    if work.tile is not None:
        more |= constants(work.tile, dtype, multiplied(target, dtype), vectors)
    kernel = source.kernel(entry, target, dtype, **more)
    return partial(kernel, work.grid, work.threads)


def in_vectors(target: Target, array: Array, *lengths: int) -> bool:
    """Whether the threads of a block may copy an operand 16 bytes at a time.

    Parameters
    ----------
    array : array
        The operand.
    *lengths : int
        Elements from one row to the next, and of each contiguous part of a row.
    """
    units = [length * array.itemsize for length in lengths]
    return not target.in_lanes and not any(unit % 16 for unit in [target.address(array), *units])


def constants(tile: Tile, dtype: Any, precision: str, vectors: tuple[bool, bool]) -> dict[str, Any]:
    """Return the constants that a product's source is compiled with on `cuda`."""
    multiplied = {} if precision == "fp32" else {"PRECISION": precision}
    return {**constants_of_tile(tile, dtype, vectors), **multiplied}


def constants_of_tile(tile: Tile, dtype: Any, vectors: tuple[bool, bool]) -> dict[str, Any]:
    """Return those of them that depend on the tile and on the copies into it."""
    unit = 16 // dtype.itemsize
    wide = {f"VECTOR_{x}": unit if v else 1 for x, v in zip("AB", vectors, strict=True)}
    return {**tile.constants, **wide}


class Work(NamedTuple):
    """How a product is divided among blocks."""

    tile: Tile | None  # None on cpu
    grid: Grid
    splits: int
    share: int

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 1 if self.tile is None else self.tile.warps * 32

    @property
    def blocks(self) -> int:
        """Blocks in all."""
        return math.prod(self.grid)

    def parts(self, target: Target, dtype: Any) -> tuple[Array | None, Array | None, int, int]:
        """Return the arguments of a kernel that adds up its own parts of k.

        These are memory for the parts' sums and counters of finished blocks, or None for one part;
        the number of parts, and the length of a part.
        """
        if self.tile is None or self.splits == 1 or self.blocks == 0:
            return None, None, 1, self.share
        sums = target.empty((self.blocks, self.tile.BM * self.tile.BN), accumulator(dtype))
        counters = target.counters(self.blocks // self.splits)
        return sums, counters, self.splits, self.share


class Sizes(NamedTuple):
    """The sizes of a product, as `divide` takes them."""

    M: int
    N: int
    K: int
    depth: int = 1
    split: Split = "never"


#: The sizes of a product without outputs.
NOTHING = Sizes(0, 0, 0)


def divide(
    target: Target,
    dtype: Any,
    M: int,
    N: int,
    K: int,
    depth: int = 1,
    *,
    split: Split = "never",
    whole_rows: bool = False,
) -> Work:
    """Divide `depth` products of M x N outputs over k < K among blocks.

    The division depends on sizes and dtype alone. So the order of summation, and with it every bit
    of the product, is the same from run to run and on any number of cores. Dividing k changes bits,
    the tile does not, except those of sums over k. With "always", K = 0 gives 0 parts.

    Parameters
    ----------
    split : {"never", "in tiles", "always"}
        Whether k may be divided among blocks; the caller adds up their partial sums. "in tiles" is
        yes only where blocks have many threads, each with a tile of the output.
    whole_rows : bool
        Whether a block must have all columns; see `has_whole_rows`.
    """
    check_precision(_precision.get(), target, dtype)
    if target.in_lanes:
        rows, columns = (
            min(-(-M // ON_CPU["rows"]), ON_CPU["blocks"]),
            -(-N // target.constants["BN"]),
        )
        splits, share = 1, K
        if split == "always":
            splits, share = _shares(K, 256, ON_CPU["splits"] // max(1, rows * columns * depth))
        return Work(None, (rows, columns, depth * splits), splits, share)
    most = MOST_IN_ROWS if whole_rows else None
    return _cheapest(_body(target, dtype), Sizes(M, N, K, depth, split), _SPLITS, most)


def divide_both(target: Target, dtype: Any, first: Sizes, second: Sizes) -> tuple[Work, Work]:
    """Divide two products that may be one launch, as `divide` does each of them.

    Their blocks have as many threads. Either may have no outputs, and then has no blocks.
    """
    works = [divide(target, dtype, *s[:4], split=s.split) for s in (first, second)]
    if target.in_lanes or not all(work.blocks for work in works):
        return works[0], works[1]
    return _cheapest_pair(_body(target, dtype), first, second, _SPLITS)


# Cached: finding one takes longer than a small product.
@lru_cache(maxsize=1024)
def _cheapest(body: _Body, sizes: Sizes, splits: tuple[int, ...], most: int | None) -> Work:
    """Return the division of a product on `cuda` with the least estimated time.

    If `most` is given, a block has all columns, of which there may be so many.
    """

    def cost(work: Work) -> tuple[bool, float]:
        too_many = max(work.grid[1:]) > GRID_YZ_MAX  # more blocks than a launch may have
        waves = -(-work.blocks // _MULTIPROCESSORS)
        clocks = _block_clocks(work, body) * max(waves, _ISSUE * 32 / work.threads)
        return too_many, clocks + _adding_clocks(work, sizes)

    tiles = [
        tile
        for tile in body.tiles
        if most is None or (sizes.N <= tile.BN <= most and body.leaves_room(tile))
    ]
    return min(_divisions(tiles, sizes, splits), key=cost)


@lru_cache(maxsize=1024)
def _cheapest_pair(
    body: _Body, first: Sizes, second: Sizes, splits: tuple[int, ...]
) -> tuple[Work, Work]:
    """Return the divisions of two products in one launch with the least estimated time."""
    costs = [
        [
            (work, _block_clocks(work, body), _adding_clocks(work, sizes))
            for work in _divisions(body.tiles, sizes, splits)
        ]
        for sizes in (first, second)
    ]
    best = None
    for one, clocks, adding in costs[0]:
        for other, other_clocks, other_adding in costs[1]:
            if one.threads != other.threads:
                continue
            last = _last_clock(one.blocks, clocks, other.blocks, other_clocks)
            alone = max(clocks, other_clocks) * _ISSUE * 32 / one.threads
            cost = max(last, alone) + adding + other_adding
            if best is None or cost < best[0]:
                best = cost, (one, other)
    assert best is not None, "every tile can be both"
    return best[1]


def _last_clock(first: int, clocks: float, second: int, others: float) -> float:
    """Return when blocks are done of which each multiprocessor takes the next when it is free.

    There are `first` blocks, then `second` ones, of so many clocks each.
    """
    rounds, late = divmod(first, _MULTIPROCESSORS)
    early = _MULTIPROCESSORS - late  # free from `begin` on; the late ones from `end` on
    begin = rounds * clocks
    end = begin + clocks if late else begin
    ahead = (end - begin) / others  # blocks that an early one has done by then
    # The last block is one that began on an early multiprocessor, or on a late one.
    of_early = -(-second // early)
    if of_early > ahead:
        of_early = -(-(second + late * math.ceil(ahead)) // _MULTIPROCESSORS)
    of_late = max(0, -(-(second - early * math.floor(ahead)) // _MULTIPROCESSORS))
    return max(end, min(begin + of_early * others, end + of_late * others))


def _divisions(tiles: Sequence[Tile], sizes: Sizes, parts: tuple[int, ...]) -> Iterator[Work]:
    """Yield the divisions of a product, by tile and number of parts."""
    least = 0 if sizes.split == "always" else 1  # for K = 0, one part writes zeros
    for tile in tiles:
        rows, columns, _ = tile.grid(sizes.M, sizes.N, sizes.depth)
        blocks = rows * columns * sizes.depth
        wanted_parts = {1} if sizes.split == "never" else set(parts)
        if len(wanted_parts) > 1 and blocks:
            wanted_parts |= {fill * _MULTIPROCESSORS // blocks for fill in _FILLS} - {0}
        for wanted in sorted(wanted_parts):
            splits, share = _shares(sizes.K, tile.BK, wanted)
            splits = max(splits, least)
            yield Work(tile, (rows, columns, sizes.depth * splits), splits, share)
            if splits < wanted:
                break


def has_whole_rows(target: Target, N: int) -> bool:
    """Whether a block can have all of N columns."""
    if target.in_lanes:
        return target.constants["BN"] >= N
    return N <= MOST_IN_ROWS


def _shares(K: int, step: int, wanted: int) -> tuple[int, int]:
    """Return (parts, k per part): at most `wanted` parts of whole steps, 0 parts for K = 0."""
    steps = -(-K // step)
    share = max(1, -(-steps // max(1, wanted))) * step
    return -(-K // share), share


def _block_clocks(work: Work, body: _Body) -> float:
    """Return the estimated clocks of a block that keeps its multiprocessor busy."""
    tile = work.tile
    assert tile is not None
    return tile.BM * tile.BN * work.share / body.rate(tile)


def _adding_clocks(work: Work, sizes: Sizes) -> float:
    """Return the estimated clocks that it takes to add up the parts of k."""
    if work.splits <= 1:
        return 0
    return _LAUNCH + sizes.M * sizes.N * sizes.depth * work.splits * 8 / _L2


def multiplied(target: Target, dtype: Any) -> str:
    """Return the precision of products of arrays: arrays of 16 bits have their own."""
    if rounds():
        return _precision.get()
    own = _NARROW.get(dtype.name, "fp32")
    return own if own in target.precisions else "fp32"


def _body(target: Target, dtype: Any) -> _Body:
    if multiplied(target, dtype) != "fp32":
        return _MMA_16 if dtype.itemsize == 2 else _MMA
    return _FMA_DOUBLE if dtype.itemsize == 8 else _FMA
