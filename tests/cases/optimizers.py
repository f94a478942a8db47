"""One step of SGD and of Adam."""

import numpy as np

from tests.cases.case import Case, axes, zeros
from tests.lib import reference
from tests.lib.support import normal

SIZES = {
    "several blocks, a tail": {"count": (90, 101)},
    "no axis": {"count": ()},
    "one element": {"count": 1},
    "none": {"count": (0, 3)},
    "primes": {"count": (7, 11, 13)},
    "one block": {"count": 8192},
    "one element more": {"count": 8193},
    "several blocks, the last one short": {"count": (3, 5471, 2)},
}
SMALL = {"count": 8}
TIMED = {"speedrun": {"count": 215_194}, "16M": {"count": 2**24}}


def flat_arrays(count, *names):
    shape = axes(count)
    return {name: np.asarray(normal(i, *shape)) for i, name in enumerate(names)}


def sgd_arguments(*, count, lr=1e-3, momentum=0.9, nesterov=True, **options):
    names = ("param", "grad", "velocity")[: 3 if momentum else 2]
    options |= {"lr": lr, "momentum": momentum, "nesterov": nesterov}
    return {**flat_arrays(count, *names), **options}


def adam_arguments(*, count, step=1, lr=1e-3, **options):
    arrays = flat_arrays(count, "param", "grad", "m", "v")
    return {**arrays, "v": np.abs(arrays["v"], out=arrays["v"]), "step": step, "lr": lr, **options}


def torch_step(optimizer, param):
    def run():
        optimizer.step()
        return param

    return run


def torch_sgd(torch, param, grad, velocity=None, **settings):
    param = torch.nn.Parameter(param)
    param.grad = grad
    optimizer = torch.optim.SGD([param], fused=True, **settings)
    optimizer.state[param] = {} if velocity is None else {"momentum_buffer": velocity}
    return torch_step(optimizer, param)


def torch_adam(torch, param, grad, m, v, step, decoupled=False, **settings):
    param = torch.nn.Parameter(param)
    param.grad = grad
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    optimizer = kind([param], fused=True, **({"weight_decay": 0} | settings))
    before = torch.full((), step - 1.0, device=param.device)
    optimizer.state[param] = {"step": before, "exp_avg": m, "exp_avg_sq": v}
    return torch_step(optimizer, param)


CASES = [
    Case(
        "sgd_step",
        sgd_arguments,
        reference.sgd_step,
        SIZES
        | {
            "plain": {"count": 99, "momentum": 0, "nesterov": False},
            "momentum": {"count": 99, "nesterov": False, "lr": 0.5},
            "weight decay": {"count": 99, "momentum": 0, "nesterov": False, "weight_decay": 0.01},
            "everything": {"count": 99, "weight_decay": 0.01, "lr": 0.5},
            "a rate of 0": {"count": 99, "weight_decay": 0.01, "lr": 0},
        },
        SMALL,
        in_place=("param", "velocity"),
        results=1,
        pytorch=torch_sgd,
        refused=[
            ({"grad": zeros(90, 100)}, r"grad: got .*, expected \(90, 101\)"),
            ({"velocity": zeros(9090)}, r"velocity: got .*, expected \(90, 101\)"),
            ({"momentum": 0, "nesterov": True}, "nesterov: is set, expected a momentum"),
            ({"lr": -0.1}, "lr: got -0.1, expected at least 0"),
            ({"lr": 1e39}, r"sgd_momentum: lr: got 1e\+39, which does not fit float32"),
            ({"weight_decay": np.nan}, "weight_decay: got nan, expected at least 0"),
        ],
        mistyped=[
            ({"lr": 1j}, "lr: got 1j, expected a number"),
            ({"lr": np.timedelta64(1)}, r"lr: got np.timedelta64\(1\), expected a number"),
        ],
        row="sgd",
        timed=TIMED,
    ),
    Case(
        "adam_step",
        adam_arguments,
        reference.adam_step,
        SIZES
        | {
            "a later step": {"count": 99, "step": 1000, "lr": 0.1},
            "the last step": {"count": 99, "step": 2**31 - 1, "lr": 0.1},
            "weight decay": {"count": 99, "step": 2, "lr": 0.1, "weight_decay": 0.01},
            "decoupled": {"count": 99, "lr": 0.1, "weight_decay": 0.01, "decoupled": True},
            "no first moment": {"count": 99, "step": 3, "lr": 0.1, "betas": (0.0, 0.99)},
            "no second moment": {"count": 99, "step": 3, "lr": 0.1, "betas": (0.5, 0.0)},
            "a large eps": {"count": 99, "step": 3, "lr": 0.1, "eps": 0.1},
        },
        SMALL,
        in_place=("param", "m", "v"),
        results=1,
        pytorch=torch_adam,
        refused=[
            ({"m": zeros(1)}, r"m: got shape \(1,\), expected \(90, 101\)"),
            ({"v": zeros(101, 90)}, r"v: got .*, expected \(90, 101\)"),
            ({"step": 0}, "step: got 0, expected at least 1"),
            ({"lr": 1e38}, r"adam: rate: got 1.0*2e\+39, which does not fit float32"),
            ({"betas": (0.9, 1)}, "betas: got 1, expected at least 0 and below 1"),
            ({"betas": 0.9}, "betas: got 0.9, expected a pair"),
            ({"betas": (1, 2, 3)}, r"betas: got \(1, 2, 3\), expected a pair"),
        ],
        mistyped=[
            ({"step": 1.0}, "step: got 1.0, expected a whole number"),
            ({"betas": (0.9, None)}, "betas: got None, expected a number"),
        ],
        row="adam",
        timed=TIMED,
    ),
]
