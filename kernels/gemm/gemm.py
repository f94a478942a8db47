"""The one GEMM's tiles and launch geometry, and the precision of its products."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple

from ..common.reduce import accumulator
from ..runtime import Array, Source, Target
from ..runtime.types import GRID_YZ_MAX, Grid

#: How `cpu` shares a product out, by ``bench/kernels/tune.py``: the rows of a block, which packs
#: operand B anew, and the most blocks; the partial results of a split reduction.
ON_CPU = {"rows": 256, "blocks": 64, "splits": 16}


class Tile(NamedTuple):
    """What a block of a product takes on `cuda`; see gemm_fma.cuh."""

    BM: int  # rows and columns of a block,
    BN: int
    BK: int  # the steps of k in a stage,
    WARP_M: int  # rows and columns of a warp,
    WARP_N: int
    STAGES: int
    LANES_N: int = 4  # lanes side by side along n,
    speed: float = 1.0  # the share of its instructions that multiplies, beside the best tile's

    @property
    def warps(self) -> int:
        """Warps of a block."""
        return self.BM // self.WARP_M * (self.BN // self.WARP_N)

    @property
    def constants(self) -> dict[str, int]:
        """What the headers of the GEMM are compiled with."""
        names = "BM BN BK WARP_M WARP_N STAGES LANES_N".split()
        return {name: getattr(self, name) for name in names}

    def grid(self, M: int, N: int, depth: int) -> Grid:
        """Return the blocks of an M x N product, `depth` times over."""
        return -(-M // self.BM), -(-N // self.BN), depth


@dataclass(frozen=True, eq=False)
class _Body:
    """Tiles of one way to multiply, and the multiply-adds of a multiprocessor in a clock."""

    tiles: tuple[Tile, ...]
    rate: int


#: On the ordinary cores: 8 x 8 outputs a lane, 4 x 12 for 24 columns, then fewer.
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
    rate=128,
)
_FMA_DOUBLE = _Body((Tile(64, 64, 16, 32, 16, 2), Tile(32, 16, 16, 32, 16, 2, speed=0.8)), rate=64)
#: On tensor cores (gemm_mma.cuh), of float arrays, whose traffic is what limits them.
_MMA = _Body(
    (
        Tile(64, 64, 32, 32, 32, 2),
        Tile(64, 32, 32, 32, 32, 2, speed=0.9),
        Tile(32, 32, 32, 32, 32, 2, speed=0.8),
    ),
    rate=256,
)
#: The same of arrays of 16 bits.
_MMA_16 = _Body(
    (
        Tile(128, 128, 32, 64, 32, 3),
        Tile(128, 64, 32, 64, 32, 3, speed=0.95),
        Tile(64, 64, 32, 64, 32, 3, speed=0.95),
        Tile(64, 64, 32, 32, 32, 3, speed=0.75),
        Tile(128, 32, 32, 32, 32, 3, speed=0.7),
        Tile(32, 32, 32, 32, 32, 3, speed=0.4),
    ),
    rate=1290,
)
# What the choice of a tile goes by: an H100's multiprocessors, the instructions that one of them
# and one warp begin in a clock, the bytes that L2 takes in a clock, and the clocks of a launch.
_MULTIPROCESSORS, _ISSUE, _L2, _LAUNCH = 132, 4, 2500, 2000
_SPLITS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
#: Columns of a block that has whole rows: the widest tiles leave no shared memory for more.
MOST_IN_ROWS = 64
_NARROW = {"float16": "fp16", "bfloat16": "bf16"}
#: Where k may be divided among blocks, whose partial sums are then to be added up.
Split = Literal["never", "in tiles", "always"]

_precision: ContextVar[str] = ContextVar("precision", default="fp32")


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Round the operands of products of float32 arrays for a while, in this thread.

    Parameters
    ----------
    name : {"fp32", "tf32", "bf16", "fp16"}
        "fp32" does not round. The others do, to nearest, and multiply on tensor cores: tf32 keeps
        10 bits after the point, bf16 7, both with the exponents of float32; fp16 keeps 10 and has
        no number above 65504. Sums are taken in float32, results stay float32.

    Raises
    ------
    ValueError
        From the functions that multiply, where arrays or target do not have this precision.
    """
    token = _precision.set(name)
    try:
        yield
    finally:
        _precision.reset(token)


def rounds() -> bool:
    """Return whether operands are rounded here and now."""
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
) -> Callable[..., None]:
    """Return what launches an entry point for a product in the chosen precision.

    Parameters
    ----------
    source, entry, target, dtype
        As `Source.kernel` takes them. A parameter of type ``sum_t`` is of this dtype, or where k
        is divided of the type that sums are taken in.
    work : Work
        How the product is shared out, as `divide` returns it.
    vectors : (bool, bool)
        Whether A and B may be copied 16 bytes at a time; see `in_vectors`.
    """
    more: dict[str, Any] = {"sum_t": dtype if work.splits == 1 else accumulator(dtype)}
    if work.tile is not None:
        more |= constants(work.tile, dtype, _multiplied(target, dtype), vectors)
    kernel = source.kernel(entry, target, dtype, **more)
    return partial(kernel, work.grid, work.threads)


def in_vectors(target: Target, array: Array, *lengths: int) -> bool:
    """Whether the threads of a block may copy an operand 16 bytes at a time.

    Parameters
    ----------
    array : array
        What the operand is read from.
    *lengths : int
        Elements from one of its rows to the next, and of what is contiguous in a row.
    """
    units = [length * array.itemsize for length in lengths]
    return not target.in_lanes and not any(unit % 16 for unit in [target.address(array), *units])


def constants(tile: Tile, dtype: Any, precision: str, vectors: tuple[bool, bool]) -> dict[str, Any]:
    """Return what the sources of products are compiled with on `cuda`."""
    unit = 16 // dtype.itemsize
    wide = {f"VECTOR_{x}": unit if v else 1 for x, v in zip("AB", vectors, strict=True)}
    return {**tile.constants, **wide, **({} if precision == "fp32" else {"PRECISION": precision})}


class Work(NamedTuple):
    """How a product is shared out."""

    tile: Tile | None  # None on cpu
    grid: Grid
    splits: int
    share: int

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 1 if self.tile is None else self.tile.warps * 32


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
    """Share out an M x N product over k < K, `depth` times over.

    Sizes and type alone decide, so that the order of summation, and with it every bit of the
    result, is the same from run to run and on any number of cores. The tile changes no bit, parts
    of k do. With "always", no k gives no parts.

    Parameters
    ----------
    split : {"never", "in tiles", "always"}
        Where k may be divided among blocks, whose partial sums are then to be added up: "in tiles"
        where blocks have many threads, each with a tile of the output.
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
    parts = (1,) if split == "never" else _SPLITS
    least = 0 if split == "always" else 1  # one part writes zeros where there is no k
    return _cheapest(_body(target, dtype), M, N, K, depth, parts, least, whole_rows)


@lru_cache(maxsize=1024)
def _cheapest(
    body: _Body,
    M: int,
    N: int,
    K: int,
    depth: int,
    parts: tuple[int, ...],
    least: int,
    whole_rows: bool,
) -> Work:
    """Return the way to share out a product on `cuda` that is estimated to take least time.

    It is kept, for to find it takes longer than a small product.
    """
    best = None
    for tile in body.tiles:
        if whole_rows and not N <= tile.BN <= MOST_IN_ROWS:
            continue
        rows, columns, _ = tile.grid(M, N, depth)
        for wanted in parts:
            splits, share = _shares(K, tile.BK, wanted)
            splits = max(splits, least)
            work = Work(tile, (rows, columns, depth * splits), splits, share)
            too_many = max(work.grid[1:]) > GRID_YZ_MAX  # blocks, for any launch
            cost = too_many, _clocks(work, body.rate, M * N * depth)
            if best is None or cost < best[0]:
                best = cost, work
            if splits < wanted:
                break
    assert best is not None, "no tile has whole rows"
    return best[1]


def has_whole_rows(target: Target, N: int) -> bool:
    """Whether a block can have all of N columns."""
    if target.in_lanes:
        return target.constants["BN"] >= N
    return N <= MOST_IN_ROWS


def _shares(K: int, step: int, wanted: int) -> tuple[int, int]:
    """Return (parts, k of each) for at most so many parts of whole steps, none if there is no k."""
    steps = -(-K // step)
    share = max(1, -(-steps // max(1, wanted))) * step
    return -(-K // share), share


def _clocks(work: Work, rate: int, outputs: int) -> float:
    """Return an estimate of the clocks that a product takes on `cuda`, with what adds it up."""
    tile = work.tile
    assert tile is not None
    waves = -(-math.prod(work.grid) // _MULTIPROCESSORS)
    block = tile.BM * tile.BN * work.share / (rate * tile.speed)  # if it keeps all schedulers busy
    clocks = block * max(waves, _ISSUE / tile.warps)
    if work.splits > 1:
        clocks += _LAUNCH + outputs * work.splits * 8 / _L2
    return clocks


def _multiplied(target: Target, dtype: Any) -> str:
    """Return the precision that products of arrays are taken in: narrow arrays' is their own."""
    if rounds():
        return _precision.get()
    own = _NARROW.get(dtype.name, "fp32")
    return own if own in target.precisions else "fp32"


def _body(target: Target, dtype: Any) -> _Body:
    if _multiplied(target, dtype) != "fp32":
        return _MMA_16 if dtype.itemsize == 2 else _MMA
    return _FMA_DOUBLE if dtype.itemsize == 8 else _FMA
