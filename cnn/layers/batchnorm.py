"""Batch normalisation."""

from __future__ import annotations

from dataclasses import dataclass

import kernels
from kernels.lowlevel import Array, Shape

from .. import checks
from ..initializers import ones, zeros
from .layer import Layer


@dataclass(eq=False)
class BatchNorm(Layer):
    """Batch normalisation over all but the last axis; see `kernels.batch_norm`."""

    recordable = True

    momentum: float = 0.1
    eps: float = 1e-5

    def __post_init__(self) -> None:
        """Check the settings."""
        checks.settle(self, momentum=checks.fraction, eps=checks.number(0))

    def build(self, shape: Shape) -> Shape:
        """Declare gamma, beta and the running statistics, (C,) each."""
        self.declare("gamma", shape[-1:], ones)
        self.declare("beta", shape[-1:], zeros)
        self.declare("running_mean", shape[-1:], zeros, trained=False)
        self.declare("running_var", shape[-1:], ones, trained=False)
        return shape

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return y of x's shape, by the batch's statistics if `training`, else running ones."""
        self._x = x = self.ready(x)
        arrays = (*self.parameters.values(), *self.state.values())
        y, self._saved = kernels.batch_norm(
            x, *arrays, training=training, momentum=self.momentum, eps=self.eps
        )
        return y

    def backward(self, dy: Array) -> Array:
        """Return dx of x's shape."""
        dx, _, _ = kernels.batch_norm_backward(
            dy,
            self._x,
            self.parameters["gamma"],
            self._saved,
            out_dgamma=self.gradients["gamma"],
            out_dbeta=self.gradients["beta"],
        )
        return dx
