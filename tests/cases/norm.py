"""Batch normalisation with a ReLU, layer normalisation, and their gradients."""

import numpy as np

import kernels
from tests.cases.case import Case, axes, images, zeros
from tests.lib import reference
from tests.lib.support import normal

EPS = 1e-5

# A chunk of the statistics has 1024 rows on a CPU and 128 on a GPU. Without the empty batch, on
# which PyTorch's own function divides by zero: test_batchnorm.py has it.
BATCH_SIZES = {
    "several blocks, a tail": {"N": 1100, "C": 9, "relu": True},
    "three rows, one channel": {"N": 3, "C": 1},  # of two, dx is what rounding leaves of 0
    "one row less than a chunk": {"N": 127, "C": 9},
    "a chunk": {"N": 128, "C": 9, "relu": True},
    "one row more": {"N": 129, "C": 1},
    "one row less than a chunk of a CPU": {"N": 1023, "C": 1, "relu": True},
    "a chunk of a CPU": {"N": 1024, "C": 9},
    "three chunks of a CPU": {"N": 3001, "C": 9, "relu": True},
    "more chunks than threads merge them": {"N": 257 * 128, "C": 1, "relu": True},
    "images of whole registers": images(4, 5, 7, 8, relu=True),
    "several registers and a tail": images(4, 5, 7, 33, relu=True),
    "a channel less than a register": images(4, 5, 7, 7),
    "three registers": images(4, 5, 7, 24),
    "six registers, of AVX-512": images(2, 3, 4, 90, relu=True),
    "seven, in two parts": images(2, 3, 4, 100),
    "a channel more than a block of a GPU has threads": {"N": 5, "C": 257, "relu": True},
    "by the running statistics, one channel": {"N": 129, "C": 1, "training": False},
    "by the running statistics, seven": {"N": 129, "C": 7, "training": False},
    "by the running statistics, a register and a tail": {"N": 129, "C": 9, "training": False},
    "by the running statistics, three registers": {"N": 129, "C": 24, "training": False},
    "by the running statistics, with a ReLU": {"N": 129, "C": 33, "training": False, "relu": True},
    "one value a channel": {"N": 1, "C": 9, "training": False},
    "another momentum and eps": {"N": 129, "C": 24, "momentum": 0.5, "eps": 0.1},
}
SMALL = {"N": 4, "C": 5}
BATCH_DIFFERENCES = [
    images(3, 2, 4, 2, training=training, relu=relu)
    for training in (True, False)
    for relu in (True, False)
]
BATCH_TIMED = {
    "14x14, 32 channels": images(256, 14, 14, 32),
    "56x56, 64 channels": images(64, 56, 56, 64),
}


def batch_norm_arguments(*, N, C, H=None, W=None, training=True, **options):
    gamma, beta, mean, var = (normal(10 + i, C) for i in range(4))
    running = {"running_mean": 1 + abs(mean), "running_var": 1 + abs(var)}  # near 0 a sum cancels
    pixels = () if H is None else (H, W)
    x = 2 + normal(0, *axes(N), *pixels, C)
    return {"x": x, "gamma": gamma, "beta": beta, **running, "training": training, **options}


def batch_norm(x, gamma, beta, running_mean, running_var, training, eps=EPS, **options):
    options |= {"training": training, "eps": eps}
    y, *running = reference.batch_norm(x, gamma, beta, running_mean, running_var, **options)
    batch = tuple(range(x.ndim - 1))
    mean, var = (x.mean(axis=batch), x.var(axis=batch)) if training else running
    return y, mean, 1 / np.sqrt(var + eps), *running


def batch_norm_gradient_arguments(**sizes):
    arguments = batch_norm_arguments(**sizes)
    y, mean, inv_std, *_ = batch_norm(**arguments)
    arguments |= {"dy": normal(1, *y.shape), "mean": mean, "inv_std": inv_std}
    clipped = {"y": y, "relu": True} if arguments.get("relu") else {}
    by_others = {} if arguments["training"] else {"training": False}
    given = ("dy", "x", "gamma", "mean", "inv_std")
    return {**{name: arguments[name] for name in given}, **clipped, **by_others}


def batch_norm_backward(dy, x, gamma, mean, inv_std, y=None, relu=False, training=True):
    g, xhat = np.where(y > 0, dy, 0) if relu else dy, (x - mean) * inv_std
    count, batch = x.size // len(gamma), tuple(range(x.ndim - 1))
    dgamma, dbeta = (g * xhat).sum(axis=batch), g.sum(axis=batch)
    of_batch = dbeta / count + xhat * dgamma / count if training else 0
    return gamma * inv_std * (g - of_batch), dgamma, dbeta


def torch_batch_norm(torch, x, gamma, beta, running_mean, running_var, relu=False, **options):
    def run():
        arguments = (x, running_mean, running_var, gamma, beta)
        y = torch.nn.functional.batch_norm(*arguments, **options)
        return torch.relu(y) if relu else y

    return run


def torch_batch_norm_backward(
    torch, dy, x, gamma, mean, inv_std, y=None, relu=False, training=True
):
    statistics = (None, None, mean, inv_std) if training else (mean, inv_std**-2 - EPS, None, None)
    others = (gamma, *statistics, training, EPS, [True] * 3)

    def run():
        passed = torch.where(y > 0, dy, 0) if relu else dy
        return torch.ops.aten.native_batch_norm_backward(passed, x, *others)

    return run


def backward_of_saved(mean, inv_std, training=True, **arguments):
    saved = kernels.BatchNormSaved(mean, inv_std, training=training)
    return kernels.batch_norm_backward(saved=saved, **arguments)


ROW_SIZES = {
    "several blocks, a tail": {"N": 261, "C": 70},
    "no batch axis": {"N": (), "C": 9},
    "one column": {"N": 3, "C": 1},
    "batch 1": {"N": 1, "C": 10},
    "an empty batch": {"N": 0, "C": 10},
    "several batch axes": {"N": (2, 3, 4), "C": 7},
    "accesses of 16 bytes, no block without a row for each warp": {"N": 8, "C": 64},
    "one column more than a warp takes at once": {"N": 5, "C": 257},
    "the last that one warp takes": {"N": 3, "C": 1024},
    "more than a warp takes": {"N": 3, "C": 1025},
    "the last that a block keeps for gradients": {"N": 9, "C": 8192},
    "more than it keeps": {"N": 2, "C": 8195},
    "the last that it keeps for a gradient in float64": {"N": 2, "C": 4096},
    "the last that a block keeps": {"N": 2, "C": 32768},
    "the last that one warp takes in float64": {"N": 3, "C": 512},
    "more than it takes": {"N": 3, "C": 513},
    "more than a warp takes, in accesses of 16 bytes": {"N": 3, "C": 1040},
    "more rows than a GPU's chunks of eight": {"N": 2051, "C": 3},
    "more than two on a CPU have": {"N": 70, "C": 1000},
    "in whole spans, more than a block keeps": {"N": 2, "C": 33008},
    "more than a core's own cache keeps": {"N": 2, "C": 65539},
    # In float32, E[x^2] - E[x]^2 keeps no digit of the variance.
    "a mean of 1e4, a deviation of 1": {"N": 9, "C": 300, "mean": 1e4},
    "NaN spoils its row alone": {"N": 9, "C": 300, "spoilt": np.nan},
    "infinity spoils its row alone": {"N": 9, "C": 300, "spoilt": np.inf},
}
# Of one column, dx is what rounding leaves of 0.
GRADIENT_SIZES = {why: sizes for why, sizes in ROW_SIZES.items() if sizes["C"] > 1}
TIMED = {"8192 x 768": {"N": 8192, "C": 768}, "256 x 32768": {"N": 256, "C": 32768}}


def layer_norm_arguments(*, N, C, mean=1.0, spoilt=0.0):  # no mean near 0, where it cancels
    x = normal(0, *axes(N), C) + mean
    if spoilt:
        x[1, 100] = spoilt
    return {"x": x, "gamma": normal(1, C), "beta": normal(2, C), "eps": EPS}


def layer_norm(x, gamma, beta, eps):
    mean = x.mean(axis=-1, keepdims=True)
    inv_std = 1 / np.sqrt(((x - mean) ** 2).mean(axis=-1, keepdims=True) + eps)
    return (x - mean) * inv_std * gamma + beta, mean.reshape(-1), inv_std.reshape(-1)


def layer_norm_gradient_arguments(**sizes):
    arguments = layer_norm_arguments(**sizes)
    with np.errstate(invalid="ignore"):
        _, mean, inv_std = layer_norm(**arguments)
    x, gamma = arguments["x"], arguments["gamma"]
    return {"dy": normal(3, *x.shape), "x": x, "gamma": gamma, "mean": mean, "inv_std": inv_std}


def layer_norm_backward(dy, x, gamma, mean, inv_std):
    mean, inv_std = (saved.reshape(*x.shape[:-1], 1) for saved in (mean, inv_std))
    batch = tuple(range(x.ndim - 1))
    xhat, g = (x - mean) * inv_std, dy * gamma
    along = (g * xhat).mean(axis=-1, keepdims=True)
    dx = inv_std * (g - g.mean(axis=-1, keepdims=True) - xhat * along)
    return dx, (dy * xhat).sum(axis=batch), dy.sum(axis=batch)


def torch_layer_norm_backward(torch, dy, x, gamma, mean, inv_std):
    saved = (value.reshape(*x.shape[:-1], 1) for value in (mean, inv_std))
    arguments = (dy, x, x.shape[-1:], *saved, gamma, gamma, [True] * 3)  # of beta the shape counts
    return lambda: torch.ops.aten.native_layer_norm_backward(*arguments)


CASES = [
    Case(
        "batch_norm",
        batch_norm_arguments,
        batch_norm,
        BATCH_SIZES,
        SMALL,
        BATCH_DIFFERENCES,
        in_place=("running_mean", "running_var"),
        results=1,
        images=True,
        pytorch=torch_batch_norm,
        refused=[
            ({"x": zeros(9)}, r"x: got shape \(9,\), expected 2 dimensions or more"),
            ({"gamma": zeros(8)}, r"gamma: got shape \(8,\), expected \(9,\)"),
            ({"beta": zeros(1, 9)}, r"beta: got shape \(1, 9\), expected \(9,\)"),
            ({"running_mean": zeros(8)}, r"running_mean: got shape \(8,\), expected"),
            ({"running_var": zeros(8)}, r"running_var: got shape \(8,\), expected"),
            ({"momentum": 1.1}, "momentum: got 1.1, expected at least 0 and at most 1"),
            ({"momentum": -0.1}, "momentum: got -0.1, expected at least 0"),
            ({"eps": np.nan}, "eps: got nan, expected at least 0"),
            ({"relu": zeros(2)}, "The truth value of an array"),
        ],
        mistyped=[
            ({"momentum": None}, "momentum: got None, expected a number"),
            ({"eps": "small"}, "eps: got 'small', expected a number"),
        ],
        row="batch_norm",
        timed=BATCH_TIMED,
        read_twice=("x",),  # the statistics are needed before the first result
    ),
    Case(
        "batch_norm_backward",
        batch_norm_gradient_arguments,
        batch_norm_backward,
        BATCH_SIZES,
        SMALL,
        BATCH_DIFFERENCES,
        rounding=10,  # of one channel, dgamma and dbeta are one sum each, whose terms mostly cancel
        gradients=("x", "gamma", "beta"),
        called=backward_of_saved,
        images=True,
        pytorch=torch_batch_norm_backward,
        refused=[
            ({"dy": zeros(1100, 8)}, r"dy: got .*, expected \(1100, 9\)"),
            ({"y": zeros(1, 9)}, r"y: got .*, expected \(1100, 9\)"),
            ({"mean": zeros(8)}, r"saved.mean: got .*, expected \(9,\)"),
            ({"inv_std": zeros(8)}, r"saved.inv_std: got .*, expected \(9,\)"),
        ],
        row="batch_norm gradient",
        timed=BATCH_TIMED,
        read_twice=("dy", "x"),  # dx needs sums over both
    ),
    Case(
        "layer_norm",
        layer_norm_arguments,
        layer_norm,
        ROW_SIZES,
        SMALL,
        results=1,
        functional=lambda F, x, gamma, beta, eps: F.layer_norm(x, x.shape[-1:], gamma, beta, eps),
        refused=[
            ({"x": zeros()}, r"x: got shape \(\), expected \(..., C\) with a C of 1 or more"),
            ({"x": zeros(5, 0)}, r"x: got shape \(5, 0\), expected \(..., C\)"),
            ({"gamma": zeros(8)}, r"gamma: got shape \(8,\), expected \(70,\)"),
            ({"beta": zeros(1, 70)}, r"beta: got shape \(1, 70\), expected \(70,\)"),
            ({"eps": -1}, "eps: got -1, expected at least 0"),
        ],
        row="layer_norm",
        timed=TIMED,
    ),
    Case(
        "layer_norm_backward",
        layer_norm_gradient_arguments,
        layer_norm_backward,
        GRADIENT_SIZES,
        SMALL,
        gradients=("x", "gamma", "beta"),
        called=lambda mean, inv_std, **others: kernels.layer_norm_backward(
            saved=kernels.LayerNormSaved(mean, inv_std), **others
        ),
        pytorch=torch_layer_norm_backward,
        refused=[
            ({"dy": zeros(261, 7)}, r"dy: got .*, expected \(261, 70\)"),
            ({"gamma": zeros(8)}, r"gamma: got shape \(8,\), expected \(70,\)"),
            ({"mean": zeros(8)}, r"saved.mean: got .*, expected \(261,\)"),
            ({"inv_std": zeros(261, 1)}, r"saved.inv_std: got .*, expected \(261,\)"),
        ],
        row="layer_norm gradient",
        timed=TIMED,
    ),
]
