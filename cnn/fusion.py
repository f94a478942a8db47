"""Which layers are fused into one: one table, for training and for prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from kernels.lowlevel import Pool, conv2d_pool_windows, fits_dense_cross_entropy

from .forward_only import ForwardConv, ForwardDense
from .fused import (
    AfterReLU,
    ConvNorm,
    ConvPool,
    DenseLoss,
    Norm,
    Rectifying,
    Reshaped,
    WithReLU,
)
from .layers import BatchNorm, Conv2D, Dense, Dropout, Flatten, Layer, MaxPool2D, ReLU
from .losses import Loss, SoftmaxCrossEntropy
from .network import Network

#: Takes the network and a pattern's layers; returns the fused layer, or None if they do not fit.
Build = Callable[..., Layer | None]


class Pattern(NamedTuple):
    """Classes of consecutive layers, and what fuses them; None if they are not fused."""

    kinds: tuple[type[Any], ...]
    training: Build | None
    prediction: Build | None


def fuse(network: Network, loss: Loss | None = None) -> list[Layer]:
    """Return a network's layers for training, fused where a pattern fits, on the same parameters.

    If a loss is given, it may become part of the last layer.
    """
    chain = [*network.layers, *([] if loss is None else [loss])]
    layers = _rewritten(network, chain, [(p.kinds, p.training) for p in PATTERNS])
    if layers and layers[-1] is loss:
        del layers[-1]
    return layers if network.target.in_lanes else _passing(layers)


def fuse_for_prediction(network: Network) -> list[Layer]:
    """Return a network's layers for prediction, fused where a pattern fits.

    They use the same parameters. Only their `forward` may be called, without `training`.
    """
    chain = [layer for layer in network.layers if type(layer) is not Dropout]
    return _rewritten(network, chain, [(p.kinds, p.prediction) for p in PATTERNS])


def _rewritten(
    network: Network,
    chain: Sequence[Any],
    patterns: Sequence[tuple[tuple[type[Any], ...], Build | None]],
) -> list[Any]:
    """Return the chain with layers fused, from the first on, by the first pattern that fits."""
    done: list[Any] = []
    left = list(chain)
    while left:
        count, replacement = 1, left[0]
        for kinds, build in patterns:
            # Exact classes only: a derived one may compute something else.
            if build is None or tuple(map(type, left[: len(kinds)])) != kinds:
                continue
            built = build(network, *left[: len(kinds)])
            if built is not None:
                count, replacement = len(kinds), built
                break
        done.append(replacement)
        del left[:count]
    return done


def _passing(layers: list[Layer]) -> list[Layer]:
    """Let the kernels of an input's gradient pass it back through the ReLU that made the input.

    A `Flatten` may be in between.
    """
    done: list[Layer] = []
    for layer in layers:
        flatten = done[-1] if done and type(done[-1]) is Flatten else None
        before = done[-2 if flatten else -1] if len(done) > bool(flatten) else None
        if isinstance(layer, AfterReLU) and isinstance(before, Rectifying):
            layer.before, before.passed = before, True
            if flatten is not None:
                done[-1] = Reshaped(flatten)
        done.append(layer)
    return done


def _conv_pool(network: Network, conv: Conv2D, *after: Layer) -> Layer | None:
    pool = _pool_of_conv(network, conv, after)
    return None if pool is None else ConvPool(conv, pool)


def _conv_norm(network: Network, conv: Conv2D, norm: BatchNorm, *after: Layer) -> Layer | None:
    fused = _norm(network, norm, *after)
    return None if fused is None else ConvNorm(conv, fused)


def _norm(network: Network, norm: BatchNorm, *after: Layer) -> Norm | None:
    pool = _max_pool(after)
    if pool is not None and not _is_plain(pool):
        return None
    return Norm(norm, _has_relu(after), pool)


def _with_relu(network: Network, layer: Conv2D | Dense, relu: ReLU) -> Layer:
    return WithReLU(layer)


def _dense_loss(network: Network, dense: Dense, loss: SoftmaxCrossEntropy) -> Layer | None:
    return DenseLoss(dense, loss) if fits_dense_cross_entropy(network.target, dense.units) else None


def _forward_conv(network: Network, conv: Conv2D, *after: Layer) -> Layer | None:
    norm = after[0] if after and isinstance(after[0], BatchNorm) else None
    after = after if norm is None else after[1:]
    if _max_pool(after) is None:
        return ForwardConv(network, conv, norm, _has_relu(after), None)
    pool = _pool_of_conv(network, conv, after)
    return None if pool is None else ForwardConv(network, conv, norm, True, pool)


def _forward_dense(network: Network, dense: Dense, relu: ReLU) -> Layer:
    return ForwardDense(dense)


#: The first that fits is taken, so a pattern stands before its own beginnings.
PATTERNS = (
    #       consecutive layers                       in training  in prediction
    Pattern((Conv2D, BatchNorm, ReLU, MaxPool2D), _conv_norm, _forward_conv),
    Pattern((Conv2D, BatchNorm, MaxPool2D, ReLU), _conv_norm, _forward_conv),
    Pattern((Conv2D, BatchNorm, MaxPool2D), _conv_norm, None),
    Pattern((Conv2D, BatchNorm, ReLU), _conv_norm, _forward_conv),
    Pattern((Conv2D, BatchNorm), _conv_norm, _forward_conv),
    Pattern((Conv2D, ReLU, MaxPool2D), _conv_pool, _forward_conv),
    Pattern((Conv2D, MaxPool2D, ReLU), _conv_pool, _forward_conv),
    Pattern((Conv2D, ReLU), _with_relu, _forward_conv),
    Pattern((Conv2D,), None, _forward_conv),
    Pattern((BatchNorm, ReLU, MaxPool2D), _norm, None),
    Pattern((BatchNorm, MaxPool2D, ReLU), _norm, None),
    Pattern((BatchNorm, ReLU), _norm, None),
    Pattern((BatchNorm, MaxPool2D), _norm, None),
    Pattern((Dense, ReLU), _with_relu, _forward_dense),
    Pattern((Dense, SoftmaxCrossEntropy), _dense_loss, None),
)


def _has_relu(layers: Sequence[Layer]) -> bool:
    return any(isinstance(layer, ReLU) for layer in layers)


def _max_pool(layers: Sequence[Layer]) -> MaxPool2D | None:
    return next((layer for layer in layers if isinstance(layer, MaxPool2D)), None)


def _is_plain(pool: MaxPool2D) -> bool:
    """Whether windows do not overlap, have no gaps or padding, and have at most 16 pixels."""
    g = pool.window
    plain = (g.KH, g.KW) == (g.SH, g.SW) and pool.padding in (0, "valid") and pool.dilation == 1
    return plain and not pool.ceil_mode and g.KH * g.KW <= 16


def _pool_of_conv(network: Network, conv: Conv2D, after: Sequence[Layer]) -> Pool | None:
    """Return the pool to fuse with a convolution and ReLU, or None if no kernel does that."""
    pool = _max_pool(after)
    if pool is None or not _is_plain(pool) or conv.groups != 1:
        return None
    kernel = pool.window.KH, pool.window.KW
    filters = conv.parameters["weight"].shape
    return conv2d_pool_windows(network.target, network.dtype, filters, conv.window, kernel)
