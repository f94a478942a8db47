"""Launching the one GEMM, and the constants that its kernels are compiled with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..runtime import Array, Source, Target
from . import division
from .precision import multiplied
from .tiles import Tile


def forward(
    source: Source,
    entry: str,
    target: Target,
    sizes: division.Sizes,
    a: tuple[Any, ...],
    b: tuple[Any, ...],
    *,
    whole_rows: bool = False,
    **others: Any,
) -> tuple[Callable[..., None], division.Work]:
    """Return what launches the forward product of a layer, and how it is divided.

    What the layer does with the product besides, such as adding biases, ReLU, pooling or a loss,
    is its entry point's.

    Parameters
    ----------
    source, entry, target
        As `product` takes them.
    sizes, whole_rows
        As `divide` takes them.
    a, b : (array, *lengths)
        The operands, as `in_vectors` takes them.
    **others
        As `product` takes them.
    """
    dtype = a[0].dtype
    work = division.divide(target, dtype, sizes, whole_rows=whole_rows)
    vectors = in_vectors(target, *a), in_vectors(target, *b)
    return product(source, entry, target, dtype, work, vectors=vectors, **others), work


def product(
    source: Source,
    entry: str,
    target: Target,
    dtype: Any,
    work: division.Work,
    *,
    vectors: tuple[bool, bool],
    **others: Any,
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
    **others
        Constants besides those of the tile: element types and numbers, by name. Without one,
        ``sum_t`` is T.
    """
    more = {"sum_t": dtype, **others}
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
