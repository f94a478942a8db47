"""Launches of two products, of which neither needs the other's result."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
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
    sizes : Sizes
        As `division.divide_both` takes them; without outputs, the product is left out.
    vectors : (bool, bool)
        As `gemm.product` takes them.
    arguments : tuple
        Those of the entry point for this product, before those that depend on its division.
    constants : mapping
        Those that this product is compiled with, besides its tile's.
    """

    sizes: division.Sizes
    vectors: tuple[bool, bool]
    arguments: tuple[Any, ...]
    constants: Mapping[str, Any] = {}


def launch(
    source: Source,
    entry: str,
    target: Target,
    dtype: Any,
    first: Product,
    second: Product,
    works: tuple[division.Work, division.Work],
    sums: tuple[Any, ...],
    *arguments: Any,
    **others: Any,
) -> None:
    """Launch an entry point for both products: blocks of either fill what the other leaves idle.

    The caller adds up the parts of the first product, the kernel those of the second.

    Parameters
    ----------
    source, entry, target, dtype, **others
        As `gemm.product` takes them.
    first, second : Product
        The products, in the order of their arguments.
    works : (Work, Work)
        What `division.divide_both` returned for them.
    sums : tuple
        The arguments that say where the first one's parts are written.
    *arguments
        What follows the second product's.
    """
    (one, other), numbers = works, [work.blocks for work in works]
    more = {"LAUNCHED": (numbers[0] > 0) + 2 * (numbers[1] > 0), **others}
    more |= {**first.constants, **second.constants}
    if all(numbers) and other.tile is not None:
        of_tile = gemm.constants_of_tile(other.tile, dtype, second.vectors)
        more |= {f"SECOND_{name}": value for name, value in of_tile.items()}
    work, vectors = (one, first.vectors) if numbers[0] else (other, second.vectors)
    work = work._replace(grid=(sum(numbers), 1, 1))
    run = gemm.product(source, entry, target, dtype, work, vectors=vectors, **more)
    of_first = *first.arguments, *sums, one.share, Blocks(*one.grid)
    of_second = *second.arguments, *other.parts(target, dtype), Blocks(*other.grid)
    run(*of_first, *of_second, *arguments)
