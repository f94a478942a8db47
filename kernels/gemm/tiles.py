"""The tiles that a product may take on `cuda`, for each kind of arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..runtime.types import Grid

#: Bytes of shared memory that a multiprocessor of an H100 reads per clock.
SHARED_PER_CLOCK = 128


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
    SLICES: int = 1  # warps that share outputs: each has a slice of every stage's k
    speed: float = 1.0  # by the body's rate: see there

    @property
    def warps(self) -> int:
        """Warps of a block."""
        return self.BM // self.WARP_M * (self.BN // self.WARP_N) * self.SLICES

    @property
    def name(self) -> str:
        """What it is called in results: outputs of a block, of a warp, and slices, if several."""
        slices = f" in {self.SLICES} slices" if self.SLICES > 1 else ""
        return f"{self.BM}x{self.BN} by warps of {self.WARP_M}x{self.WARP_N}{slices}"

    @property
    def constants(self) -> dict[str, int]:
        """The constants that the GEMM's headers are compiled with."""
        names = "BM BN BK WARP_M WARP_N STAGES LANES_N SLICES".split()
        return {name: getattr(self, name) for name in names}

    def grid(self, M: int, N: int, depth: int) -> Grid:
        """Return the grid of `depth` products of M x N outputs."""
        return -(-M // self.BM), -(-N // self.BN), depth


@dataclass(frozen=True, eq=False)
class Body:
    """Tiles of one kind of arithmetic, and what limits it.

    Attributes
    ----------
    tiles : tuple of Tile
        The tiles. The speed of one without tensor cores is the share of multiply instructions in
        its main loop, by the best tile's (bench/results/main-loops.json); for the smallest, whose
        blocks spend more outside the loop, less. On tensor cores that of slices is less than 1, so
        that tiles without are preferred, whose loops have fewer instructions.
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
        return tile.speed * min(self.pipe, SHARED_PER_CLOCK / (self.size * (once + again)))

    def exchange(self, tile: Tile) -> float:
        """Return the clocks in which a block's warps give each other the sums of their slices."""
        return 2 * 4 * tile.BM * tile.BN * (tile.SLICES - 1) / SHARED_PER_CLOCK

    def leaves_room(self, tile: Tile) -> bool:
        """Whether the stages of a tile leave some shared memory, of 48 KiB."""
        return tile.STAGES * (tile.BM + tile.BN) * tile.BK * self.size < 48 * 1024


#: FP32 without tensor cores (gemm_fma.cuh): 8 x 8 outputs per lane, 4 x 12 for 24 columns, or less.
#: Arrays of 16 bits, too, where tensor cores lack their type. Append new tiles: the first stands
#: for all in `make resources`. tests/kernels/test_gemm_tiles.py takes every tile from here.
FMA = Body(
    (
        Tile(128, 64, 16, 64, 32, 3),
        Tile(64, 64, 16, 32, 32, 3, speed=0.92),
        Tile(256, 32, 16, 64, 32, 2, speed=0.98),
        Tile(128, 32, 16, 32, 32, 3, speed=0.9),
        Tile(256, 24, 16, 64, 24, 2, LANES_N=2, speed=0.94),
        Tile(128, 24, 16, 64, 24, 3, LANES_N=2, speed=0.92),
        Tile(256, 16, 16, 64, 16, 2, speed=0.88),
        Tile(128, 16, 16, 32, 16, 3, speed=0.78),
        Tile(32, 32, 16, 32, 16, 3, speed=0.7),
        Tile(32, 16, 16, 32, 16, 3, speed=0.6),
    ),
    pipe=128,
)
FMA_DOUBLE = Body((Tile(64, 64, 16, 32, 16, 2), Tile(32, 16, 16, 32, 16, 2, speed=0.8)), pipe=64)
#: Tensor cores (gemm_mma.cuh), float arrays.
MMA = Body(
    (Tile(64, 64, 32, 32, 32, 2), Tile(64, 32, 32, 32, 32, 2), Tile(32, 32, 32, 32, 32, 2)),
    pipe=1290,
    size=4,
)
#: Tensor cores, arrays of 16 bits.
MMA_16 = Body(
    (
        Tile(128, 128, 32, 64, 64, 3),
        Tile(128, 64, 32, 64, 32, 3),
        Tile(64, 64, 32, 32, 32, 3),
        Tile(128, 32, 32, 32, 32, 3),
        Tile(32, 32, 32, 32, 32, 3),
        Tile(192, 64, 32, 96, 32, 3),
        Tile(128, 32, 32, 64, 32, 3),
        Tile(64, 128, 32, 64, 64, 3, SLICES=2, speed=0.9),
        Tile(128, 64, 32, 64, 64, 3, SLICES=2, speed=0.9),
        Tile(64, 64, 64, 64, 64, 3, SLICES=4, speed=0.9),
    ),
    pipe=1290,  # by mma.sync
    size=2,
)
#: Most columns of a block that has whole rows, as loss/dense_loss.cu needs: the widest tile of each
#: body that fits in shared memory. Tiles of this width and less are that kernel's, too.
MOST_IN_ROWS = 64
