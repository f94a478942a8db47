"""Batch normalisation with a ReLU, and its gradient."""

import numpy as np

import kernels
from tests.cases.case import Case, axes, zeros
from tests.lib import reference
from tests.lib.support import normal

# A chunk of the statistics has 1024 rows on cpu and 128 on cuda. Without the empty batch, on which
# PyTorch's own function divides by zero: test_batchnorm.py has it.
BATCH_SIZES = {
    "several blocks, a tail": {"N": 1100, "C": 9},
    "three rows, one channel": {"N": 3, "C": 1},  # of two, dx is what rounding leaves of 0
    "one row less than a chunk": {"N": 127, "C": 9},
    "a chunk": {"N": 128, "C": 9},
    "one row more": {"N": 129, "C": 1},
    "one row less than a chunk on cpu": {"N": 1023, "C": 1},
    "a chunk on cpu": {"N": 1024, "C": 9},
    "three chunks on cpu": {"N": 3001, "C": 9},
    "more chunks than threads merge them": {"N": 257 * 128, "C": 1},
    "images of whole registers": {"N": (4, 5, 7), "C": 8},
    "several registers and a tail": {"N": (4, 5, 7), "C": 33},
    "a channel more than a cuda block has threads": {"N": 5, "C": 257},
}
SMALL = {"N": 4, "C": 3}
RELU = {"training": True, "relu": True}


def batch_norm_arrays(*, N, C):
    gamma, beta, mean, var = (normal(10 + i, C) for i in range(4))
    running = {"running_mean": 1 + abs(mean), "running_var": 1 + abs(var)}  # near 0 a sum cancels
    return {"x": 2 + normal(0, *axes(N), C), "gamma": gamma, "beta": beta, **running}


def batch_norm(x, gamma, beta, running_mean, running_var, **options):
    y, *running = reference.batch_norm(x, gamma, beta, running_mean, running_var, **options)
    batch = tuple(range(x.ndim - 1))
    return y, x.mean(axis=batch), 1 / np.sqrt(x.var(axis=batch) + 1e-5), *running


def batch_norm_gradient_arrays(**sizes):
    arrays = batch_norm_arrays(**sizes)
    y, mean, inv_std, *_ = batch_norm(**arrays, **RELU)
    x, gamma = arrays["x"], arrays["gamma"]
    saved = {"mean": mean, "inv_std": inv_std}
    return {"dy": normal(1, *x.shape), "x": x, "gamma": gamma, **saved, "y": y}


def batch_norm_backward(dy, x, gamma, mean, inv_std, y, relu):
    g, xhat = np.where(y > 0, dy, 0), (x - mean) * inv_std
    count, batch = x.size // len(gamma), tuple(range(x.ndim - 1))
    dgamma, dbeta = (g * xhat).sum(axis=batch), g.sum(axis=batch)
    return gamma * inv_std * (g - dbeta / count - xhat * dgamma / count), dgamma, dbeta


def torch_batch_norm(torch, x, gamma, beta, running_mean, running_var):
    def run():
        y = torch.nn.functional.batch_norm(
            x.movedim(-1, 1), running_mean, running_var, gamma, beta, training=True
        )
        return torch.relu(y).movedim(1, -1)

    return run


def torch_batch_norm_backward(torch, dy, x, gamma, mean, inv_std, y):
    dy, x, y = (tensor.movedim(-1, 1) for tensor in (dy, x, y))
    others = (gamma, None, None, mean, inv_std, True, 1e-5, [True] * 3)

    def run():
        masked = torch.where(y > 0, dy, 0)
        dx, *others_ = torch.ops.aten.native_batch_norm_backward(masked, x, *others)
        return dx.movedim(1, -1), *others_

    return run


def backward_of_saved(mean, inv_std, **arguments):
    saved = kernels.BatchNormSaved(mean, inv_std, training=True)
    return kernels.batch_norm_backward(saved=saved, **arguments)


CASES = [
    Case(
        "batch_norm",
        batch_norm_arrays,
        batch_norm,
        BATCH_SIZES,
        SMALL,
        options=RELU,
        in_place=("running_mean", "running_var"),
        results=1,
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
        ],
    ),
    Case(
        "batch_norm_backward",
        batch_norm_gradient_arrays,
        batch_norm_backward,
        BATCH_SIZES,
        SMALL,
        options={"relu": True},
        rounding=10,  # of one channel, dgamma and dbeta are one sum each, whose terms mostly cancel
        gradients=("x", "gamma", "beta"),
        called=backward_of_saved,
        pytorch=torch_batch_norm_backward,
        refused=[
            ({"dy": zeros(1100, 8)}, r"dy: got .*, expected \(1100, 9\)"),
            ({"y": zeros(1, 9)}, r"y: got .*, expected \(1100, 9\)"),
            ({"mean": zeros(8)}, r"saved.mean: got .*, expected \(9,\)"),
            ({"inv_std": zeros(8)}, r"saved.inv_std: got .*, expected \(9,\)"),
        ],
    ),
]
