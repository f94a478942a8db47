"""Layer normalisation."""

from __future__ import annotations

from dataclasses import dataclass

import kernels
from kernels.lowlevel import Array, Shape

from .. import checks
from ..initializers import ones, zeros
from .layer import Layer


@dataclass(eq=False)
class LayerNorm(Layer):
    """Normalisation of each row, or of each pixel, over the last axis; see `kernels.layer_norm`."""

    recordable = True

    eps: float = 1e-5

    def __post_init__(self) -> None:
        """Check the settings."""
        checks.settle(self, eps=checks.number(0))

    def build(self, shape: Shape) -> Shape:
        """Declare gamma and beta, (C,) each."""
        self.declare("gamma", shape[-1:], ones)
        self.declare("beta", shape[-1:], zeros)
        return shape

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return y of x's shape."""
        self._x = x = self.ready(x)
        y, self._saved = kernels.layer_norm(x, *self.parameters.values(), eps=self.eps)
        return y

    def backward(self, dy: Array) -> Array:
        """Return dx of x's shape."""
        dx, _, _ = kernels.layer_norm_backward(
            dy,
            self._x,
            self.parameters["gamma"],
            self._saved,
            out_dgamma=self.gradients["gamma"],
            out_dbeta=self.gradients["beta"],
        )
        return dx
