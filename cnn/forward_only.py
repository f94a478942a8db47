"""Layers for prediction: they keep nothing for a backward pass.

Values computed from the weights alone (a batch normalisation folded into the filters before it,
filters transformed for Winograd's algorithm) are cached. Each pass compares the weights, and
computes anew what depends on those that changed.
"""

from __future__ import annotations

import kernels
from kernels.lowlevel import (
    Array,
    Pool,
    conv2d_pool,
    fold_norm,
    keeping_transforms,
    transforms_filters,
)

from .layers import BatchNorm, Conv2D, Dense, Layer
from .network import Network


class ForwardDense(Layer):
    """A dense layer followed by a ReLU."""

    def __init__(self, dense: Dense) -> None:
        self.dense = dense

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return y (N, units)."""
        parameters = self.dense.parameters
        return kernels.dense(x, parameters["weight"], parameters.get("bias"), relu=True)


class ForwardConv(Layer):
    """A convolution, followed by a batch normalisation, a ReLU and max-pooling, or some of these.

    Parameters
    ----------
    network : Network
        Its target and dtype decide whether Winograd's algorithm is used.
    conv : Conv2D
        The convolution.
    norm : BatchNorm or None
        Folded into the filters.
    relu : bool
        Whether there is a ReLU.
    pool : Pool or None
        Max-pooling, which comes with a ReLU.
    """

    def __init__(
        self,
        network: Network,
        conv: Conv2D,
        norm: BatchNorm | None,
        relu: bool,
        pool: Pool | None,
    ) -> None:
        self._network = network
        self.conv, self.norm, self.relu, self.pool = conv, norm, relu, pool

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return y (N, OH, OW, F), or (N, PH, PW, F) with a pool."""
        weight, bias = self.conv.parameters["weight"], self.conv.parameters.get("bias")
        if self.norm is not None:
            norm = self.norm
            gamma, beta = norm.parameters["gamma"], norm.parameters["beta"]
            mean, variance = norm.state["running_mean"], norm.state["running_var"]
            folded = fold_norm(weight, bias, gamma, beta, mean, variance, norm.eps)
        elif self._transforms():
            folded = fold_norm(weight, bias)
        else:
            return self._convolve(x, weight, bias)
        *arrays, changed = folded
        with keeping_transforms(changed):
            return self._convolve(x, *arrays)

    def _convolve(self, x: Array, weight: Array, bias: Array | None) -> Array:
        conv = self.conv
        if self.pool is not None:
            return conv2d_pool(x, weight, bias, conv.window, self.pool)[0]
        return kernels.conv2d(x, weight, bias, relu=self.relu, **conv.options)

    def _transforms(self) -> bool:
        """Whether large batches use Winograd's algorithm, which transforms the filters."""
        conv = self.conv
        F, _, _, C = conv.parameters["weight"].shape
        sizes = (2**20, conv.window, C * conv.groups, F, conv.groups)
        return transforms_filters(self._network.target, self._network.dtype, *sizes)
