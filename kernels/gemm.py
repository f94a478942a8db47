"""Launch geometry of the one GEMM."""

from __future__ import annotations

from .runtime import Target
from .runtime.target import Grid

_SPLIT_BLOCKS = 128  # blocks that a split reduction aims at: some for every core or multiprocessor
_CPU_SPLITS = 16  # the same on cpu, where a partial result is as large as the result
_CPU_ROWS, _CPU_BLOCKS = 256, 64  # rows of a block there, and blocks: each packs operand B anew


def tiles(target: Target, M: int, N: int, depth: int = 1) -> Grid:
    """Return the grid of an M x N product, `depth` times over."""
    if target.name == "cpu":
        blocks = min(-(-M // _CPU_ROWS), _CPU_BLOCKS)
        return blocks, -(-N // target.constants["BN"]), depth
    return -(-M // target.constants["BM"]), -(-N // target.constants["BN"]), depth


def threads(target: Target) -> int:
    """Return THREADS of gemm.cuh: one a 4 x 4 micro-tile on cuda."""
    return 1 if target.name == "cpu" else target.constants["BM"] * target.constants["BN"] // 16


def split(target: Target, M: int, N: int, K: int, depth: int = 1) -> tuple[int, int]:
    """Return (splits, share of k in each) for a product with few tiles and a long k.

    The shapes alone decide, so that the order of summation, and with it every bit of the result,
    is the same from run to run and on any number of cores. No k gives no splits.
    """
    across, down, _ = tiles(target, M, N)
    blocks, step = _SPLIT_BLOCKS, target.constants["BK"]
    if target.name == "cpu":
        blocks, step = _CPU_SPLITS, 256
    wanted = max(1, blocks // max(1, across * down * depth))
    steps = -(-K // step)
    share = max(1, -(-steps // wanted)) * step
    return -(-K // share), share
