"""SGD, Adam and the moving average of weights, each one elementwise expression."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..common.pending import NOTHING, PendingSums
from ..runtime import Array, as_array, checks
from ..runtime.elementwise import Elementwise, Table


def _step(
    name: str, outputs: str, operation: str, scalars: str
) -> dict[tuple[bool, bool], Elementwise]:
    """Return an optimizer's kernels, by whether the gradient is scaled and whether it is narrow.

    Scaled gradients: see loss_scale.py. With a narrow gradient the kernel also rounds the new
    parameters to a copy of its type.
    """
    kernels = {}
    for narrow in (False, True):
        inputs = "G grad" if narrow else "T grad"
        written = f"{outputs}, G copy" if narrow else outputs
        body = f"{operation} copy = G(param);" if narrow else operation
        types: dict[str, Any] = {"G": "float16"} if narrow else {}
        for scaled in (False, True):
            made = Elementwise(
                f"{'scaled_' * scaled}{'narrow_' * narrow}{name}",
                f"{inputs}, raw A unscale" if scaled else inputs,
                written,
                _unscaled(body) if scaled else body,
                scalars,
                table=True,
                summed="grad",
                **types,
            )
            kernels[scaled, narrow] = made
    return kernels


def _unscaled(operation: str) -> str:
    return f"if (unscale[0] != 0) {{ {operation.replace('A(grad)', 'A(grad) * unscale[0]')} }}"


_SGD = _step(
    "sgd",
    "T param",
    "const A p = A(param); param = T(p - lr * (A(grad) + weight_decay * p));",
    scalars="A lr, A weight_decay",
)
_SGD_MOMENTUM = _step(
    "sgd_momentum",
    "T velocity, T param",
    "const A p = A(param), g = A(grad) + weight_decay * p, v = momentum * A(velocity) + g;"
    " velocity = T(v);"
    " param = T(p - lr * (nesterov ? g + momentum * v : v));",
    scalars="A lr, A weight_decay, A momentum, int32 nesterov",
)
_ADAM = _step(
    "adam",
    "T m, T v, T param",
    "const A p = A(param), g = A(grad) + l2 * p;"
    " const A first = beta1 * A(m) + take1 * g, second = beta2 * A(v) + take2 * g * g;"
    " m = T(first);"
    " v = T(second);"
    " param = T(p - (shrink * p + rate * first / (sqrt(second) * inv_root + eps)));",
    scalars="A l2, A shrink, A beta1, A take1, A beta2, A take2, A rate, A inv_root, A eps",
)
_EMA = Elementwise(
    "moving_average",
    "T value",
    "T average",
    "const A a = A(average); average = share < 1 ? T(a + share * (A(value) - a)) : value;",
    scalars="A share",
    table=True,
)
#: The numbers of one step, or a table with a row per step.
Scalars = tuple[float, ...] | Table


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
        Arrays of one shape and floating dtype.
    velocity : array, optional
        An array like param, zeros before the first step; updated in place. Needed with momentum.
    lr, momentum, weight_decay : float
        At least 0.
    nesterov : bool
        Look ahead along the velocity; needs momentum.

    Raises
    ------
    TypeError, ValueError
        If dtypes, devices, shapes or parameters do not fit, arrays overlap in memory, or one cannot
        be updated in place.
    """
    scalars = sgd_scalars(lr, momentum, nesterov, weight_decay)
    if momentum and velocity is None:
        raise ValueError("velocity: got None, expected an array, since momentum is set")
    sgd_update(scalars, param, grad, velocity if momentum else None)


def sgd_scalars(
    lr: float, momentum: float = 0, nesterov: bool = False, weight_decay: float = 0
) -> tuple[float, ...]:
    """Return the numbers of one step, checked, that `sgd_update` takes; see `sgd_step`."""
    lr = checks.number("lr", lr, least=0)
    momentum = checks.number("momentum", momentum, least=0)
    weight_decay = checks.number("weight_decay", weight_decay, least=0)
    if nesterov and not momentum:
        raise ValueError("nesterov: is set, expected a momentum above 0")
    return (lr, weight_decay, momentum, int(bool(nesterov))) if momentum else (lr, weight_decay)


def sgd_update(
    scalars: Scalars,
    param: Array,
    grad: Array,
    velocity: Array | None,
    unscale: Array | None = None,
    copy: Array | None = None,
    pending: PendingSums | None = None,
) -> None:
    """Take one step with the numbers of `sgd_scalars`; velocity is needed with momentum.

    If `unscale` (1,) is given, grad is multiplied by it; 0 skips the step. Its value is read on the
    device, not on the host. If `copy`, of grad's dtype, is given, the new param is written there,
    too. Where grad is still `pending` sums, they are added up and written there; that needs a
    `Table` of scalars.
    """
    state = {} if velocity is None else {"velocity": velocity}
    param, grad, *moving = _updated(param, grad, copy, **state)
    kernels = _SGD_MOMENTUM if moving else _SGD
    _launch(kernels, scalars, grad, unscale, copy, pending, *moving, param)


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
        Arrays of one shape and floating dtype; m and v are zeros before the first step.
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
        If dtypes, devices, shapes or parameters do not fit, arrays overlap in memory, or one cannot
        be updated in place.

    Notes
    -----
    Every step rounds param, m and v to their dtype. With the default betas, float16 rounds the v of
    a gradient below 0.005 to 0, and later steps are then too long: keep param, m and v in float32,
    and cast grad.
    """
    scalars = adam_scalars(step, lr, betas, eps, weight_decay, decoupled)
    adam_update(scalars, param, grad, m, v)


def adam_scalars(
    step: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0,
    decoupled: bool = False,
) -> tuple[float, ...]:
    """Return the numbers of one step, checked, that `adam_update` takes; see `adam_step`."""
    step = checks.whole("step", step, 1)
    lr = checks.number("lr", lr, least=0)
    eps = checks.number("eps", eps, least=0)
    weight_decay = checks.number("weight_decay", weight_decay, least=0)
    if not isinstance(betas, Sequence) or len(betas) != 2:
        raise ValueError(f"betas: got {checks.shown(betas)}, expected a pair of numbers")
    beta1, beta2 = (checks.number("betas", beta, least=0, below=1) for beta in betas)
    l2, shrink = (0.0, lr * weight_decay) if decoupled else (weight_decay, 0.0)
    rate, inv_root = lr / (1 - beta1**step), 1 / math.sqrt(1 - beta2**step)
    # 1 - beta is computed here, in double: in float32, 1 - 0.999f is off by 1e-5.
    return (l2, shrink, beta1, 1 - beta1, beta2, 1 - beta2, rate, inv_root, eps)


def adam_update(
    scalars: Scalars,
    param: Array,
    grad: Array,
    m: Array,
    v: Array,
    unscale: Array | None = None,
    copy: Array | None = None,
    pending: PendingSums | None = None,
) -> None:
    """Take one step with the numbers of `adam_scalars`; see `sgd_update` for the others."""
    param, grad, m, v = _updated(param, grad, copy, m=m, v=v)
    _launch(_ADAM, scalars, grad, unscale, copy, pending, m, v, param)


def average_update(scalars: Scalars, average: Array, value: Array) -> None:
    """Move an average towards a value, in place, by a share of the way, up to 1."""
    average, value = _updated(average, value, None)
    target, _ = as_array("average", average)
    _EMA(target, average.dtype, value, *_as_arguments(scalars), average)


def _launch(
    kernels: dict[tuple[bool, bool], Elementwise],
    scalars: Scalars,
    grad: Array,
    unscale: Array | None,
    copy: Array | None,
    pending: PendingSums | None,
    *arguments: Array,
) -> None:
    param = arguments[-1]
    target, _ = as_array("param", param)
    kernel = kernels[unscale is not None, copy is not None]
    inputs = (grad,) if unscale is None else (grad, unscale)
    if isinstance(scalars, Table):
        inputs = (*(NOTHING if pending is None else pending.arguments()), *inputs)
    inputs += _as_arguments(scalars)
    if copy is None:
        kernel(target, param.dtype, *inputs, *arguments)
    else:
        kernel(target, param.dtype, *inputs, *arguments, copy, G=copy.dtype)


def _as_arguments(scalars: Scalars) -> tuple[Any, ...]:
    return (scalars,) if isinstance(scalars, Table) else scalars


def _updated(param: Array, grad: Array, copy: Array | None, **state: Array) -> list[Array]:
    """Check param, state and copy, which are updated in place, and grad; return them contiguous."""
    written = {"param": param, **state} | ({} if copy is None else {"copy": copy})
    for name, array in written.items():
        checks.in_place(name, array)
    if copy is None:
        target, (param, grad, *slots) = checks.arrays(param=param, grad=grad, **state)
    else:
        target, (param, *slots) = checks.arrays(param=param, **state)
        _, (grad, copy) = checks.arrays(grad=grad, copy=copy)
        checks.shape("copy", copy, param.shape, "the shape of param")
    moving = dict(zip(state, slots, strict=True))
    for name, array in {"grad": grad, **moving}.items():
        checks.shape(name, array, param.shape, "the shape of param")
    checks.apart(target, {"param": param, **moving, "copy": copy}, {"grad": grad})
    return [param, grad, *slots]
