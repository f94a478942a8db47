"""Softmax over the last axis and its Jacobian product; both cross-entropies."""

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
    "the last that a block keeps for a gradient": {"N": 2, "C": 16384},
    "the last that a block keeps": {"N": 2, "C": 32768},
    "the last that one warp takes in float64": {"N": 3, "C": 512},
    "more than it takes": {"N": 3, "C": 513},
    "more rows than warps": {"N": 2001, "C": 3},
    "in whole spans, more than a block keeps": {"N": 2, "C": 33008},
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


LOSS_SIZES = {
    "several blocks, a tail": {"N": 300, "C": 10, "weighted": True, "label_smoothing": 0.1},
    "one row, one class": {"N": 1, "C": 1},
    "batch 1": {"N": 1, "C": 10},
    "one class more than a warp has lanes": {"N": 3, "C": 33},
    "more than one warp takes": {"N": 2, "C": 1025},
    "the same, smoothed": {"N": 2, "C": 1025, "weighted": True, "label_smoothing": 0.1},
    "more than it keeps if they are no whole spans": {"N": 2, "C": 16385, "label_smoothing": 0.1},
    "the last that a block keeps": {"N": 2, "C": 32768, "weighted": True, "label_smoothing": 0.1},
    "more than it keeps": {"N": 2, "C": 33008, "weighted": True, "label_smoothing": 0.1},
    "more than a core's own cache keeps": {"N": 2, "C": 65537},
    "a sum, some rows ignored": {"N": 37, "C": 7, "reduction": "sum", "ignore_index": 3},
    "losses of rows": {"N": 301, "C": 10, "reduction": "none", "label_smoothing": 0.3},
    "nothing but smoothing": {"N": 37, "C": 7, "label_smoothing": 1.0},
    "a weighted mean, some rows ignored": {"N": 37, "C": 7, "weighted": True, "ignore_index": 0},
}
TEXTBOOK_SIZES = {
    "several blocks, a tail": {"N": 300, "C": 10},
    "one row, one class": {"N": 1, "C": 1},
    "batch 1": {"N": 1, "C": 10},
    "a prime": {"N": 37, "C": 10},
    "more rows than a block adds up": {"N": 8200, "C": 3},
    "one class more than a warp has lanes": {"N": 3, "C": 33},
    "more than one warp takes": {"N": 2, "C": 1025},
}
LOSS_TIMED = {
    f"{N} x {C}": {"N": N, "C": C} for N, C in ((256, 10), (16384, 10), (4096, 1000), (256, 32768))
}


def loss_arguments(*, N, C, weighted=False, **options):
    weight = {"weight": abs(normal(18, C))} if weighted else {}
    return {"logits": normal(6, N, C), "labels": np.arange(N) % C, **weight, **options}


def textbook_arguments(*, N, C):
    return {"probabilities": reference.softmax(normal(0, N, C)), "labels": np.arange(N) % C}


def torch_softmax_cross_entropy(torch, logits, labels, weight=None, **options):
    logits.requires_grad_()

    def run():
        loss = torch.nn.functional.cross_entropy(logits, labels, weight, **options)
        total = loss.sum() if loss.ndim else loss
        return loss, *torch.autograd.grad(total, logits)

    return run


def torch_cross_entropy(torch, probabilities, labels):
    probabilities.requires_grad_()

    def run():
        loss = torch.nn.functional.nll_loss(probabilities.log(), labels)
        return loss, *torch.autograd.grad(loss, probabilities)

    return run


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
    Case(
        "softmax_cross_entropy",
        loss_arguments,
        reference.softmax_cross_entropy,
        LOSS_SIZES,
        {"N": 2, "C": 3},
        pytorch=torch_softmax_cross_entropy,
        refused=[
            ({"logits": zeros(300)}, "logits: got .*, expected 2 dimensions"),
            ({"labels": zeros(300, 10, dtype=int)}, "labels: got shape"),
            ({"labels": zeros(1, dtype=int)}, r"labels: .*expected \(300,\)"),
            ({"weight": zeros(9)}, r"weight: got .*, expected \(10,\)"),
            ({"reduction": "avg"}, "reduction: got 'avg', expected 'mean'"),
            ({"label_smoothing": 1.5}, "label_smoothing: got 1.5, expected"),
            ({"label_smoothing": -1}, "label_smoothing: got -1, expected"),
            ({"ignore_index": 2**40}, "ignore_index: got 1099511627776"),
        ],
        mistyped=[
            ({"ignore_index": None}, "ignore_index: got None, expected"),
            ({"label_smoothing": True}, "label_smoothing: got True, expected"),
        ],
        row="softmax_cross_entropy",
        timed=LOSS_TIMED,
    ),
    Case(
        "cross_entropy",
        textbook_arguments,
        reference.cross_entropy,
        TEXTBOOK_SIZES,
        {"N": 2, "C": 3},
        pytorch=torch_cross_entropy,
        refused=[
            ({"probabilities": zeros(10)}, "probabilities: got shape"),
            ({"labels": zeros(10, dtype=int)}, r"labels: got .*, expected \(300,\)"),
        ],
    ),
]
