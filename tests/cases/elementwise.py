"""ReLU and its gradient."""

import numpy as np

from tests.cases.case import Case, axes, zeros
from tests.lib import reference
from tests.lib.support import normal

SIZES = {
    "several blocks, a tail": {"count": (5, 15, 13, 9)},
    "no axis": {"count": ()},
    "one element": {"count": 1},
    "none": {"count": (0, 3)},
    "one block": {"count": 8192},
    "one element more": {"count": 8193},
}
SMALL = {"count": 20}
TIMED = {"16M": {"count": 2**24}}


def relu_arguments(*, count):
    return {"x": np.asarray(normal(0, *axes(count)))}


def relu_gradient_arguments(*, count):
    dy = np.asarray(normal(1, *axes(count)))
    return {"dy": dy, "y": np.asarray(reference.relu(**relu_arguments(count=count)))}


CASES = [
    Case(
        "relu",
        relu_arguments,
        reference.relu,
        SIZES,
        SMALL,
        rounding=0,
        functional=lambda F, x: F.relu(x),
        numpy=lambda x: np.maximum(x, 0),
        row="relu",
        timed=TIMED,
    ),
    Case(
        "relu_backward",
        relu_gradient_arguments,
        reference.relu_backward,
        SIZES,
        SMALL,
        rounding=0,
        gradients=("x",),
        pytorch=lambda torch, dy, y: lambda: torch.ops.aten.threshold_backward(dy, y, 0),
        numpy=lambda dy, y: np.where(y > 0, dy, 0),
        refused=[({"y": zeros(5)}, r"y: got shape \(5,\), expected \(5, 15, 13, 9\)")],
        row="relu gradient",
        timed=TIMED,
    ),
]
