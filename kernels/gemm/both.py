"""Launches of two products, of which neither needs the other's result."""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

from ..runtime import Source, Target
from . import division, gemm


class Blocks(ctypes.Structure):
    """The struct of gemm.cuh, field for field."""

    _fields_ = [(name, ctypes.c_int) for name in ("x", "y", "z")]


class Product(NamedTuple):
    """One of the two products.

    Attributes
    ----------
    work : Work
        Of `division.divide_both`; if it has no blocks, the product is left out.
    vectors : (bool, bool)
        As `gemm.product` takes them.
    arguments : tuple
        Those of the entry point for this product, before its `Blocks`.
    """

    work: division.Work
    vectors: tuple[bool, bool]
    arguments: tuple[Any, ...]


def launch(
    source: Source,
    entry: str,
    target: Target,
    dtype: Any,
    first: Product,
    second: Product,
    *arguments: Any,
    **types: Any,
) -> None:
    """Launch an entry point for both products: blocks of either fill what the other leaves idle.

    Parameters
    ----------
    source, entry, target, dtype, **types
        As `gemm.product` takes them.
    first, second : Product
        The products, in the order of their arguments.
    *arguments
        What follows the second product's.
    """
    numbers = [product.work.blocks for product in (first, second)]
    more = {"LAUNCHED": (numbers[0] > 0) + 2 * (numbers[1] > 0), **types}
    if all(numbers) and second.work.tile is not None:
        of_tile = gemm.constants_of_tile(second.work.tile, dtype, second.vectors)
        more |= {f"SECOND_{name}": value for name, value in of_tile.items()}
    work, vectors, _ = first if numbers[0] else second
    work = work._replace(grid=(sum(numbers), 1, 1))
    run = gemm.product(source, entry, target, dtype, work, vectors=vectors, **more)
    of_first, of_second = Blocks(*first.work.grid), Blocks(*second.work.grid)
    run(*first.arguments, of_first, *second.arguments, of_second, *arguments)
