"""The dense layer and its gradients."""

import numpy as np

from tests.cases.case import Case, zeros
from tests.lib.support import normal

# The tile of a block is 256 x 64 outputs by 256 of k on cpu; on cuda it is one of those in
# kernels/gemm/tiles.py, all of which test_gemm_tiles.py tries. Each dimension is rows in one of the
# three products and k in another.
SIZES = {
    "several blocks, a tail": {"N": 300, "inputs": 70, "outputs": 65},
    "one product": {"N": 1, "inputs": 1, "outputs": 1},
    "an empty batch": {"N": 0, "inputs": 5, "outputs": 3},
    "no inputs: the bias alone": {"N": 3, "inputs": 0, "outputs": 5},
    "no outputs": {"N": 3, "inputs": 5, "outputs": 0},
    "nothing": {"N": 0, "inputs": 0, "outputs": 0},
    "one less than a tile": {"N": 255, "inputs": 63, "outputs": 63},
    "whole tiles": {"N": 256, "inputs": 256, "outputs": 64},
    "tiles of one row, one column, one k": {"N": 257, "inputs": 257, "outputs": 65},
    "batch 1, three steps of k": {"N": 1, "inputs": 603, "outputs": 10},
    "primes": {"N": 37, "inputs": 41, "outputs": 43},
    "k of the input gradient a whole step": {"N": 8, "inputs": 8, "outputs": 256},
    "over 128 steps of rows: splits of two steps": {"N": 33000, "inputs": 3, "outputs": 2},
    "three chunks of the bias gradient": {"N": 2049, "inputs": 9, "outputs": 33},
}
SMALL = {"N": 4, "inputs": 5, "outputs": 3}
TIMED = {
    "speedrun 1": {"N": 256, "inputs": 800, "outputs": 256},
    "speedrun 2": {"N": 256, "inputs": 256, "outputs": 10},
    "large": {"N": 1024, "inputs": 1024, "outputs": 1024},
    "odd sizes": {"N": 33, "inputs": 129, "outputs": 67},
}


def dense_arguments(*, N, inputs, outputs, bias=True, **options):
    arrays = {"x": normal(0, N, inputs), "w": normal(1, outputs, inputs)}
    return {**arrays, "b": normal(2, outputs) if bias else None, **options}


def dense(x, w, b, relu=False):
    y = x @ w.T + (0 if b is None else b)
    return np.maximum(y, 0) if relu else y


def dense_gradient_arguments(*, N, inputs, outputs, **options):
    arrays = {"x": normal(0, N, inputs), "w": normal(1, outputs, inputs)}
    return {"dy": normal(9, N, outputs), **arrays, **options}


def dense_backward(dy, x, w, need_dx=True, need_dw=True, need_db=True):
    dx, dw, db = dy @ w, dy.T @ x, dy.sum(axis=0)
    return dx if need_dx else None, dw if need_dw else None, db if need_db else None


def torch_dense(torch, x, w, b, relu=False):
    linear = torch.nn.functional.linear
    return (lambda: linear(x, w, b).relu()) if relu else (lambda: linear(x, w, b))


def torch_dense_backward(torch, dy, x, w, need_dx=True, need_dw=True, need_db=True):
    return lambda: (
        dy @ w if need_dx else None,
        dy.t() @ x if need_dw else None,
        dy.sum(0) if need_db else None,
    )


CASES = [
    Case(
        "dense",
        dense_arguments,
        dense,
        SIZES
        | {
            "no bias": SIZES["primes"] | {"bias": False},
            "no bias, a ReLU": SIZES["one less than a tile"] | {"bias": False, "relu": True},
            "a ReLU": SIZES["several blocks, a tail"] | {"relu": True},
        },
        SMALL,
        pytorch=torch_dense,
        refused=[
            ({"x": zeros(300)}, r"x: got shape \(300,\), expected 2 dimensions \(N, in\)"),
            ({"x": zeros(30, 2, 35)}, r"x: got shape \(30, 2, 35\), expected 2 dimensions"),
            ({"w": zeros(70, 65)}, r"w: got shape \(70, 65\), expected \(70, 70\)"),
            ({"b": zeros(64)}, r"b: got shape \(64,\), expected \(65,\) "),
        ],
        row="dense forward",
        timed=TIMED,
        operations=lambda N, inputs, outputs: 2 * N * inputs * outputs,
    ),
    Case(
        "dense_backward",
        dense_gradient_arguments,
        dense_backward,
        SIZES
        | {
            "no dx": SIZES["several blocks, a tail"] | {"need_dx": False},
            "no dw": SIZES["several blocks, a tail"] | {"need_dw": False},
            "no db": SIZES["several blocks, a tail"] | {"need_db": False},
            "dx alone": SIZES["several blocks, a tail"] | {"need_dw": False, "need_db": False},
            "db alone": SIZES["several blocks, a tail"] | {"need_dx": False, "need_dw": False},
        },
        SMALL,
        gradients=("x", "w", "b"),
        pytorch=torch_dense_backward,
        refused=[({"dy": zeros(65, 300)}, r"dy: got .*, expected \(300, 65\)")],
        row="dense gradients",
        timed=TIMED,
        operations=lambda N, inputs, outputs: 4 * N * inputs * outputs,
    ),
]
