"""Images as rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kernels.lowlevel import Array, Shape

from .layer import Layer


@dataclass(eq=False)
class Flatten(Layer):
    """From (N, ...) to (N, product of the rest)."""

    recordable = True

    def build(self, shape: Shape) -> Shape:
        """Return the product, as a shape."""
        return (math.prod(shape),)

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return a view of x."""
        self._shape = x.shape
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))

    def backward(self, dy: Array) -> Array:
        """Return a view of dy."""
        return dy.reshape(self._shape)
