"""The steps of the SGEMM worklog, from the naive kernel to tiles of a warp: `ladder.cu`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

#: GFLOP/s of cuBLAS in the worklog.
LIBRARY = 23250


def extrapolated(step: Step, counts: Mapping[int, Mapping[str, Any]], size: int) -> dict[str, Any]:
    """Return the counts of a launch on M = N = K = `size`, from those of one block at two Ks.

    They are exact: all blocks do the same, each pass over a part of K does, too, and no sector or
    bank depends on the sizes, which are multiples of 32 floats. So counts are linear in K and in
    the number of blocks. The two Ks must be multiples of one pass.
    """
    (k0, first), (k1, second) = sorted(counts.items())

    def at_size(of: Callable[[Mapping[str, Any]], int]) -> int:
        steps, rest = divmod((of(second) - of(first)) * (size - k0), k1 - k0)
        assert rest == 0
        return of(first) + steps

    columns, rows = step.grid(size, size)
    block = {name: at_size(lambda one, name=name: one["all"][name]) for name in first["all"]}
    bytes_of_matrix = 4 * size * size
    return {
        **first,
        "grid": [columns, rows, 1],
        "longest_warp": at_size(lambda one: one["longest_warp"]),
        "bytes": {"read": 2 * bytes_of_matrix, "written": bytes_of_matrix},
        "least": block,
        "all": {name: figure * columns * rows for name, figure in block.items()},
    }
