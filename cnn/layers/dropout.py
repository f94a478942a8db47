"""Dropout."""

from __future__ import annotations

from dataclasses import dataclass

import kernels
from kernels.lowlevel import Array

from .. import checks
from .layer import Layer


@dataclass(eq=False)
class Dropout(Layer):
    """In training, set values to 0 with probability p and scale the rest by 1 / (1 - p)."""

    recordable = True

    p: float

    def __post_init__(self) -> None:
        """Check the settings."""
        checks.settle(self, p=checks.number(0, below=1))

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return y of x's shape; x itself without `training`."""
        self._mask = None
        if not training:
            return x
        y, self._mask = kernels.dropout(x, self.p, seed=self.seed, offset=self.draws)
        self.draws += 1
        return y

    def backward(self, dy: Array) -> Array:
        """Return dx of x's shape."""
        return dy if self._mask is None else kernels.dropout_backward(dy, self._mask, self.p)
