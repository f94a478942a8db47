"""Launch geometry of the one GEMM, and the precision of its products."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from .runtime import Kernel, Source, Target
from .runtime.target import Grid

_SPLIT_BLOCKS = 128  # blocks that a split reduction aims at: some for every core or multiprocessor
#: How `cpu` shares a product out, by ``bench/tune.py``: the rows of a block, which packs operand B
#: anew, and the most blocks; the partial results of a split reduction.
ON_CPU = {"rows": 256, "blocks": 64, "splits": 16}
#: Tiles for tensor cores (gemm_mma.cuh), in place of the target's; 32 KB of shared memory.
_TILES = {
    "tf32": {"BM": 64, "BN": 64, "BK": 32, "WARP_M": 32, "WARP_N": 32, "STAGES": 2},
    "bf16": {"BM": 64, "BN": 64, "BK": 32, "WARP_M": 32, "WARP_N": 32, "STAGES": 2},
    "fp16": {"BM": 64, "BN": 64, "BK": 32, "WARP_M": 32, "WARP_N": 32, "STAGES": 2},
}
_precision: ContextVar[str] = ContextVar("precision", default="fp32")


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Round the operands of products of float32 arrays for a while, in this thread.

    Parameters
    ----------
    name : {"fp32", "tf32", "bf16", "fp16"}
        "fp32" does not round. The others do, to nearest, and multiply on tensor cores: tf32 keeps
        10 bits after the point, bf16 7, both with the exponents of float32; fp16 keeps 10 and has
        no number above 65504. Sums are taken in float32, results stay float32. The gradients of
        conv2d_pool.py do not come under it: they are no GEMM.

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


def kernel(source: Source, entry: str, target: Target, dtype: Any) -> Kernel:
    """Return an entry point that multiplies in the chosen precision."""
    name = _precision.get()
    if rounds():
        check_precision(name, target, dtype)
    return source.kernel(entry, target, dtype, **constants(name))


def constants(name: str) -> dict[str, Any]:
    """Return the constants of sources for a precision, in place of a target's."""
    return {"PRECISION": name, **_TILES[name]} if name in _TILES else {}


def tiles(target: Target, M: int, N: int, depth: int = 1) -> Grid:
    """Return the grid of an M x N product, `depth` times over."""
    if target.name == "cpu":
        blocks = min(-(-M // ON_CPU["rows"]), ON_CPU["blocks"])
        return blocks, -(-N // target.constants["BN"]), depth
    tile = _tile(target)
    return -(-M // tile["BM"]), -(-N // tile["BN"]), depth


def threads(target: Target) -> int:
    """Return THREADS of the GEMM: one a 4 x 4 micro-tile on cuda, or 32 a warp's tile."""
    if target.name == "cpu":
        return 1
    tile = _tile(target)
    outputs = tile["BM"] * tile["BN"]
    if "WARP_M" in tile:
        return outputs // (tile["WARP_M"] * tile["WARP_N"]) * 32
    return outputs // 16


def split(target: Target, M: int, N: int, K: int, depth: int = 1) -> tuple[int, int]:
    """Return (splits, share of k in each) for a product with few tiles and a long k.

    The shapes alone decide, so that the order of summation, and with it every bit of the result,
    is the same from run to run and on any number of cores. No k gives no splits.
    """
    across, down, _ = tiles(target, M, N)
    blocks, step = _SPLIT_BLOCKS, _tile(target)["BK"]
    if target.name == "cpu":
        blocks, step = ON_CPU["splits"], 256
    wanted = max(1, blocks // max(1, across * down * depth))
    steps = -(-K // step)
    share = max(1, -(-steps // wanted)) * step
    return -(-K // share), share


def _tile(target: Target) -> dict[str, int]:
    return _TILES.get(_precision.get(), target.constants)
