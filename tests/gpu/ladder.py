"""The steps of the SGEMM worklog, from the naive kernel to tiles of a warp: `ladder.cu`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TEXT = (Path(__file__).parent / "ladder.cu").read_text()


@dataclass(frozen=True)
class Step:
    """A kernel of the ladder."""

    kernel: str
    tile: int  # rows, and columns, of C per block; sizes must be multiples of it
    threads: int  # per block
    published: int  # GFLOP/s at M = N = K = 4096 on an RTX A6000, by the worklog

    def grid(self, rows: int, columns: int) -> tuple[int, int]:
        """Return the grid for C[rows, columns]."""
        return columns // self.tile, rows // self.tile


#: https://siboehm.com/articles/22/CUDA-MMM; its cuBLAS comes to 23250 GFLOP/s.
STEPS = (
    Step("naive", 32, 1024, 309),
    Step("coalesced", 32, 1024, 1987),
    Step("shared_tiles", 32, 1024, 2980),
    Step("column_tiles", 64, 512, 8475),
    Step("square_tiles", 128, 256, 15972),
    Step("vectors", 128, 256, 18237),
    Step("larger_tiles", 128, 256, 19721),
    Step("warp_tiles_of_parts", 128, 128, 21779),
)
