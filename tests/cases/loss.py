"""Softmax over the last axis and its Jacobian product."""

import numpy as np

from tests.cases.case import Case, axes, zeros
from tests.lib import reference
from tests.lib.support import normal

SIZES = {
    "several blocks, a tail": {"N": 300, "C": 10},
    "no batch axis, one class": {"N": (), "C": 1},
    "one class": {"N": 3, "C": 1},
    "batch 1": {"N": 1, "C": 10},
    "an empty batch": {"N": 0, "C": 10},
    "several batch axes": {"N": (2, 3, 4), "C": 7},
    "one less than a warp": {"N": 7, "C": 31},
    "one more": {"N": 7, "C": 33},
    "the last that one warp takes": {"N": 3, "C": 1024},
    "more than one warp takes": {"N": 3, "C": 1025},
    "more rows than warps": {"N": 2001, "C": 3},
    "more than a core's own cache keeps": {"N": 2, "C": 65537},
}
SMALL = {"N": 3, "C": 5}
TIMED = {"4096 x 1000": {"N": 4096, "C": 1000}, "256 x 32768": {"N": 256, "C": 32768}}


def softmax_arguments(*, N, C):
    return {"x": normal(0, *axes(N), C)}


def softmax_gradient_arguments(*, N, C):
    return {"dy": normal(1, *axes(N), C), "y": reference.softmax(**softmax_arguments(N=N, C=C))}


def numpy_softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    e /= e.sum(axis=-1, keepdims=True)
    return e


CASES = [
    Case(
        "softmax",
        softmax_arguments,
        reference.softmax,
        SIZES,
        SMALL,
        functional=lambda F, x: F.softmax(x, -1),
        numpy=numpy_softmax,
        refused=[({"x": zeros()}, r"x: got shape \(\), expected 1 dimension or more")],
        row="softmax",
        timed=TIMED,
    ),
    Case(
        "softmax_backward",
        softmax_gradient_arguments,
        reference.softmax_backward,
        SIZES,
        SMALL,
        gradients=("x",),
        pytorch=lambda torch, dy, y: (
            lambda: torch.ops.aten._softmax_backward_data(dy, y, -1, y.dtype)
        ),
        numpy=lambda dy, y: y * (dy - (dy * y).sum(axis=-1, keepdims=True)),
        refused=[({"y": zeros(10, 300)}, r"y: got .*, expected \(300, 10\)")],
        row="softmax gradient",
        timed=TIMED,
    ),
]
