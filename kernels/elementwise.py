"""ReLU, image normalisation, SGD and Adam: one expression each, one text for every target."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .runtime import Array, checks
from .runtime.elementwise import Elementwise

_RELU = Elementwise("relu_forward", "T x", "T y", "y = x < T(0) ? T(0) : x;")
_RELU_BACKWARD = Elementwise(
    "relu_backward", "T dy, T y", "T dx", "dx = y <= T(0) ? T(0) : dy;"
)
_NORMALIZE = Elementwise(
    "normalize",
    "U image",
    "T y",
    "y = (T(image) - mean) * inv_std;",
    scalars="T mean, T inv_std",
    U=np.uint8,
)
_SGD = Elementwise(
    "sgd",
    "T grad",
    "T param",
    "param -= lr * (grad + weight_decay * param);",
    scalars="T lr, T weight_decay",
)
_SGD_MOMENTUM = Elementwise(
    "sgd_momentum",
    "T grad",
    "T velocity, T param",
    "const T g = grad + weight_decay * param;"
    " velocity = momentum * velocity + g;"
    " param -= lr * (nesterov ? g + momentum * velocity : velocity);",
    scalars="T lr, T weight_decay, T momentum, int32 nesterov",
)
_ADAM = Elementwise(
    "adam",
    "T grad",
    "T m, T v, T param",
    "const T g = grad + l2 * param;"
    " m += (T(1) - beta1) * (g - m);"
    " v += (T(1) - beta2) * (g * g - v);"
    " param -= shrink * param + rate * m / (sqrt(v) * inv_root + eps);",
    scalars="T l2, T shrink, T beta1, T beta2, T rate, T inv_root, T eps",
)


def relu(x: Array) -> Array:
    """Return max(x, 0), NaN staying NaN; any shape, floating.

    Raises
    ------
    TypeError
        If x is not floating.
    """
    target, (x,) = checks.arrays(x=x)
    y = target.empty(x.shape, x.dtype)
    _RELU(target, x.dtype, x, y)
    return y


def relu_backward(dy: Array, y: Array) -> Array:
    """Return dx of `relu`, y being its result: dy, and 0 where y <= 0.

    Raises
    ------
    TypeError, ValueError
        If dtypes, devices or shapes do not fit.
    """
    target, (dy, y) = checks.arrays(dy=dy, y=y)
    checks.shape("y", y, dy.shape, "the shape of dy")
    dx = target.empty(dy.shape, dy.dtype)
    _RELU_BACKWARD(target, dy.dtype, dy, y, dx)
    return dx


def normalize(images: Array, mean: float, std: float, dtype: Any = np.float32) -> Array:
    """Return (images - mean) / std in a floating dtype; any shape, uint8 or floating.

    Raises
    ------
    TypeError, ValueError
        If a dtype or parameter does not fit.
    """
    target, images = checks.as_array("images", images)
    out = np.dtype(dtype)
    if images.dtype.name not in ("uint8", *target.dtypes):
        raise TypeError(f"images: got {images.dtype} on {target}, expected uint8 or floating")
    mean, std = checks.number("mean", mean), checks.number("std", std)
    if std <= 0:
        raise ValueError(f"std: got {std}, expected more than 0")
    images = checks.contiguous(target, images)
    y = target.empty(images.shape, out)
    _NORMALIZE(target, out, images, mean, 1 / std, y, U=images.dtype)
    return y


def sgd_step(
    param: Array,
    grad: Array,
    velocity: Array | None = None,
    *,
    lr: float,
    momentum: float = 0,
    nesterov: bool = False,
    weight_decay: float = 0,
) -> None:
    """Update param in place by stochastic gradient descent, as `torch.optim.SGD` does.

    g = grad + weight_decay * param; velocity = momentum * velocity + g;
    param -= lr * (g + momentum * velocity if nesterov else velocity)

    Parameters
    ----------
    param, grad : array
        Of one shape and floating dtype.
    velocity : array, optional
        Of the same; zeros before the first step; updated in place. Needed with momentum.
    lr, momentum, weight_decay : float
        At least 0.
    nesterov : bool
        Look ahead along the velocity; needs momentum.

    Raises
    ------
    TypeError, ValueError
        If dtypes, devices, shapes or parameters do not fit, or one cannot be updated in place.
    """
    lr = checks.number("lr", lr, least=0)
    momentum = checks.number("momentum", momentum, least=0)
    weight_decay = checks.number("weight_decay", weight_decay, least=0)
    if nesterov and not momentum:
        raise ValueError("nesterov: is set, expected a momentum above 0")
    if momentum and velocity is None:
        raise ValueError("velocity: got None, expected an array, since momentum is set")
    param, grad, velocity = _updated(param, grad, velocity=velocity)
    target, _ = checks.as_array("param", param)
    if velocity is None or not momentum:
        _SGD(target, param.dtype, grad, lr, weight_decay, param)
        return
    scalars = (lr, weight_decay, momentum, int(nesterov))
    _SGD_MOMENTUM(target, param.dtype, grad, *scalars, velocity, param)


def adam_step(
    param: Array,
    grad: Array,
    m: Array,
    v: Array,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0,
    decoupled: bool = False,
) -> None:
    """Update param, m and v in place by Adam, as `torch.optim.Adam` and `AdamW` do.

    Source: Kingma and Ba, "Adam", 2015; decoupled decay: Loshchilov and Hutter, 2019.

    Parameters
    ----------
    param, grad, m, v : array
        Of one shape and floating dtype; m and v are zeros before the first step.
    step : int
        Number of this step, from 1.
    lr, eps, weight_decay : float
        At least 0.
    betas : pair of float
        Decay of the two moments, in [0, 1).
    decoupled : bool
        Shrink param by lr * weight_decay (AdamW) instead of adding the decay to the gradient.

    Raises
    ------
    TypeError, ValueError
        If dtypes, devices, shapes or parameters do not fit, or one cannot be updated in place.
    """
    step = checks.whole("step", step, 1)
    lr = checks.number("lr", lr, least=0)
    eps = checks.number("eps", eps, least=0)
    weight_decay = checks.number("weight_decay", weight_decay, least=0)
    beta1, beta2 = (checks.number("betas", beta, least=0, below=1) for beta in betas)
    param, grad, m, v = _updated(param, grad, m=m, v=v)
    target, _ = checks.as_array("param", param)
    l2, shrink = (0.0, lr * weight_decay) if decoupled else (weight_decay, 0.0)
    rate, inv_root = lr / (1 - beta1**step), 1 / math.sqrt(1 - beta2**step)
    scalars = (l2, shrink, beta1, beta2, rate, inv_root, eps)
    _ADAM(target, param.dtype, grad, *scalars, m, v, param)


def _updated(param: Array, grad: Array, **state: Array | None) -> list[Array]:
    """Check param and its state for an update in place, and grad beside them."""
    for name, array in {"param": param, **state}.items():
        if array is not None:
            checks.in_place(name, array)
    _, taken = checks.arrays(param=param, grad=grad, **state)
    for name, array in zip(("grad", *state), taken[1:], strict=True):
        if array is not None:
            checks.shape(name, array, taken[0].shape, "the shape of param")
    return taken
