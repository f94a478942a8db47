"""How a product is divided among blocks: its tile, and the parts of k."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from ..common.reduce import accumulator
from ..runtime import Array, Target
from ..runtime.types import GRID_YZ_MAX, Grid
from .precision import check_precision, in_force, multiplied
from .tiles import FMA, FMA_DOUBLE, MMA, MMA_16, MOST_IN_ROWS, Body, Tile

#: On `cpu`, found by ``bench/kernels/tune.py``: rows of a block (each block packs operand B), the
#: most blocks, and the most partial results of a split reduction.
ON_CPU = {"rows": 256, "blocks": 64, "splits": 16}
_BAND = 256  # parts of k on `cpu` are whole bands; as BAND of gemm_rows.cuh
# The model by which a tile is chosen, besides the GPU's number of multiprocessors: the instructions
# that each of them issues per clock, an H100's bytes per clock of L2, and clocks of a launch.
_ISSUE, _L2, _LAUNCH = 4, 2500, 2000
#: Parts of k to try; and, if there are several, those whose blocks fill the multiprocessors so many
#: times.
_SPLITS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256)
_FILLS = (1, 2, 3)
#: Whether k may be divided among blocks; the caller adds up their partial sums. "in tiles" is yes
#: only where blocks have many threads, each with a tile of the output.
Split = Literal["never", "in tiles", "always"]


class Work(NamedTuple):
    """How a product is divided among blocks."""

    tile: Tile | None  # None on cpu
    grid: Grid
    splits: int  # parts of k
    share: int  # length of a part; the last one has the rest

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 1 if self.tile is None else self.tile.warps * 32

    @property
    def stage(self) -> int:
        """Steps of k in a stage."""
        return 1 if self.tile is None else self.tile.BK

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
    """The sizes of `depth` products of M x N outputs over k < K, and whether k may be divided."""

    M: int
    N: int
    K: int
    depth: int = 1
    split: Split = "never"


#: The sizes of a product without outputs.
NOTHING = Sizes(0, 0, 0)


def divide(target: Target, dtype: Any, sizes: Sizes, *, whole_rows: bool = False) -> Work:
    """Divide a product among blocks.

    The division depends on sizes and dtype and, on `cuda`, on the GPU's number of multiprocessors.
    So the order of summation, and with it every bit of the product, is the same from run to run, on
    any number of a CPU's cores and on all GPUs of a model. Dividing k changes bits, among blocks or
    among a block's warps (slices). The rest of the tile does not, except those of sums over k.

    Parameters
    ----------
    sizes : Sizes
        Those of the product; a split of "always" gives 0 parts for K = 0.
    whole_rows : bool
        Whether a block must have all columns; see `has_whole_rows`.
    """
    check_precision(in_force(), target, dtype)
    if target.in_lanes:
        M, N, K, depth, split = sizes
        rows = min(-(-M // ON_CPU["rows"]), ON_CPU["blocks"])
        columns = -(-N // target.constants["BN"])
        splits, share = 1, K
        if split == "always":
            splits, share = _shares(K, _BAND, ON_CPU["splits"] // max(1, rows * columns * depth))
        return Work(None, (rows, columns, depth * splits), splits, share)
    most = MOST_IN_ROWS if whole_rows else None
    return _cheapest(_body(target, dtype), target.multiprocessors, sizes, _SPLITS, most)


def divide_both(target: Target, dtype: Any, first: Sizes, second: Sizes) -> tuple[Work, Work]:
    """Divide two products that may be one launch, as `divide` does each of them.

    Their blocks have as many threads, and stages of as many steps. Either may have no outputs, and
    then has no blocks.
    """
    works = [divide(target, dtype, sizes) for sizes in (first, second)]
    if target.in_lanes or not all(work.blocks for work in works):
        return works[0], works[1]
    return _cheapest_pair(_body(target, dtype), target.multiprocessors, first, second, _SPLITS)


# Cached: finding one takes longer than a small product.
@lru_cache(maxsize=1024)
def _cheapest(
    body: Body, multiprocessors: int, sizes: Sizes, splits: tuple[int, ...], most: int | None
) -> Work:
    """Return the division of a product on `cuda` with the least estimated time.

    If `most` is given, a block has all columns, of which there may be so many.
    """

    def cost(work: Work) -> tuple[bool, float]:
        too_many = max(work.grid[1:]) > GRID_YZ_MAX  # more blocks than a launch may have
        waves = -(-work.blocks // multiprocessors)
        clocks = _block_clocks(work, body) * max(waves, _ISSUE * 32 / work.threads)
        return too_many, clocks + _adding_clocks(work, sizes)

    tiles = [
        tile
        for tile in body.tiles
        if most is None or (sizes.N <= tile.BN <= most and body.leaves_room(tile))
    ]
    return min(_divisions(tiles, multiprocessors, sizes, splits), key=cost)


@lru_cache(maxsize=1024)
def _cheapest_pair(
    body: Body, multiprocessors: int, first: Sizes, second: Sizes, splits: tuple[int, ...]
) -> tuple[Work, Work]:
    """Return the divisions of two products in one launch with the least estimated time."""
    costs = [
        [
            (work, _block_clocks(work, body), _adding_clocks(work, sizes))
            for work in _divisions(body.tiles, multiprocessors, sizes, splits)
        ]
        for sizes in (first, second)
    ]
    best = None
    for one, clocks, adding in costs[0]:
        for other, other_clocks, other_adding in costs[1]:
            if one.threads != other.threads or one.stage != other.stage:
                continue
            last = _last_clock(multiprocessors, one.blocks, clocks, other.blocks, other_clocks)
            alone = max(clocks, other_clocks) * _ISSUE * 32 / one.threads
            cost = max(last, alone) + adding + other_adding
            if best is None or cost < best[0]:
                best = cost, (one, other)
    assert best is not None, "every tile can be both"
    return best[1]


def _last_clock(
    multiprocessors: int, first: int, clocks: float, second: int, others: float
) -> float:
    """Return when blocks are done of which each multiprocessor takes the next when it is free.

    There are `first` blocks, then `second` ones, of so many clocks each.
    """
    rounds, late = divmod(first, multiprocessors)
    early = multiprocessors - late  # free from `begin` on; the late ones from `end` on
    begin = rounds * clocks
    end = begin + clocks if late else begin
    ahead = (end - begin) / others  # blocks that an early one has done by then
    # The last block is one that began on an early multiprocessor, or on a late one.
    of_early = -(-second // early)
    if of_early > ahead:
        of_early = -(-(second + late * math.ceil(ahead)) // multiprocessors)
    of_late = max(0, -(-(second - early * math.floor(ahead)) // multiprocessors))
    return max(end, min(begin + of_early * others, end + of_late * others))


def _divisions(
    tiles: Sequence[Tile], multiprocessors: int, sizes: Sizes, parts: tuple[int, ...]
) -> Iterator[Work]:
    """Yield the divisions of a product, by tile and number of parts."""
    least = 0 if sizes.split == "always" else 1  # for K = 0, one part writes zeros
    for tile in tiles:
        rows, columns, _ = tile.grid(sizes.M, sizes.N, sizes.depth)
        blocks = rows * columns * sizes.depth
        wanted_parts = {1} if sizes.split == "never" else set(parts)
        if len(wanted_parts) > 1 and blocks:
            wanted_parts |= {fill * multiprocessors // blocks for fill in _FILLS} - {0}
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


def _block_clocks(work: Work, body: Body) -> float:
    """Return the estimated clocks of a block that keeps its multiprocessor busy."""
    tile = work.tile
    assert tile is not None
    return tile.BM * tile.BN * work.share / body.rate(tile) + body.exchange(tile)


def _adding_clocks(work: Work, sizes: Sizes) -> float:
    """Return the estimated clocks that it takes to add up the parts of k."""
    if work.splits <= 1:
        return 0
    return _LAUNCH + sizes.M * sizes.N * sizes.depth * work.splits * 8 / _L2


def _body(target: Target, dtype: Any) -> Body:
    if multiplied(target, dtype) != "fp32":
        return MMA_16 if dtype.itemsize == 2 else MMA
    return FMA_DOUBLE if dtype.itemsize == 8 else FMA
