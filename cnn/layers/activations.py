"""ReLU and softmax."""

from __future__ import annotations

from dataclasses import dataclass

import kernels
from kernels.lowlevel import Array

from .layer import Layer


@dataclass(eq=False)
class ReLU(Layer):
    """max(x, 0)."""

    recordable = True

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return y of x's shape."""
        self._y = y = kernels.relu(x)
        return y

    def backward(self, dy: Array) -> Array:
        """Return dx of x's shape."""
        return kernels.relu_backward(dy, self._y)


@dataclass(eq=False)
class Softmax(Layer):
    """Probabilities over the last axis; train it with the loss `CrossEntropy`."""

    recordable = True

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return y of x's shape."""
        self._y = y = kernels.softmax(x)
        return y

    def backward(self, dy: Array) -> Array:
        """Return the product of dy with the Jacobian of softmax."""
        return kernels.softmax_backward(dy, self._y)
