"""Means and squares of a kernel's results, from which batch-norm makes its statistics."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..runtime import Array, Target
from .reduce import accumulator


class Moments(NamedTuple):
    """Means and squares of chunks of values, channel by channel; see ``norm/moments.cuh``.

    Attributes
    ----------
    means, squares : array (chunks, C)
        The mean of a chunk's values, and the sum of squares about it.
    counts : array (chunks,)
        Number of values of a chunk in each channel.
    """

    means: Array
    squares: Array
    counts: Array

    @classmethod
    def empty(cls, target: Target, chunks: int, C: int, dtype: Any) -> Moments:
        """Return uninitialised moments for values of a dtype."""
        wide = accumulator(dtype)
        means, squares = target.empty((chunks, C), wide), target.empty((chunks, C), wide)
        return cls(means, squares, target.empty((chunks,), "int32"))
