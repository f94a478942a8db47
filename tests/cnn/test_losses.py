"""Losses: the textbook pair against the fused loss, and both against the oracle."""

import numpy as np
import pytest

from cnn import (
    SGD,
    CrossEntropy,
    Dense,
    Ensemble,
    Flatten,
    Sequential,
    Softmax,
    SoftmaxCrossEntropy,
    Trainer,
)
from cnn.evaluation import default_loss, evaluate
from tests.lib import reference
from tests.lib.comparison import assert_close
from tests.lib.support import RTOL, host, normal

#: One row; a tail of one over eight classes; two classes; more classes than rows.
SHAPES = [(1, 10), (33, 9), (16, 2), (5, 101)]


def outputs_and_labels(target, shape, dtype="float64", scale=3.0):
    logits = scale * normal(0, *shape, dtype=dtype)
    labels = np.random.default_rng(1).integers(shape[1], size=shape[0])
    return target.array(logits.astype(dtype)), target.array(labels)


@pytest.mark.parametrize("shape", SHAPES)
def test_textbook_pair_equals_the_fused_loss(shape, target):
    logits, labels = outputs_and_labels(target, shape)
    softmax = Softmax()
    pair_loss, dy = CrossEntropy()(softmax.forward(logits, training=True), labels)
    pair_gradient = softmax.backward(dy)
    fused_loss, fused_gradient = SoftmaxCrossEntropy()(logits, labels)
    assert_close(pair_loss, fused_loss, rtol=1e-13)
    assert_close(pair_gradient, fused_gradient, rtol=1e-13)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_fused_loss_equals_the_oracle(shape, smoothing, target, dtype):
    logits, labels = outputs_and_labels(target, shape, dtype)
    loss, gradient = SoftmaxCrossEntropy(smoothing)(logits, labels)
    expected_loss, expected_gradient = reference.softmax_cross_entropy(
        *map(host, (logits, labels)), label_smoothing=smoothing
    )
    assert loss.shape == () and loss.dtype == gradient.dtype == dtype
    assert_close(loss, expected_loss, rtol=RTOL[dtype.name])
    assert_close(gradient, expected_gradient, rtol=RTOL[dtype.name])


@pytest.mark.parametrize("shape", SHAPES)
def test_textbook_loss_equals_the_oracle(shape, target, dtype):
    logits, labels = outputs_and_labels(target, shape, dtype)
    probabilities = Softmax().forward(logits)
    loss, gradient = CrossEntropy()(probabilities, labels)
    expected_loss, expected_gradient = reference.cross_entropy(*map(host, (probabilities, labels)))
    assert_close(loss, expected_loss, rtol=RTOL[dtype.name])
    assert_close(gradient, expected_gradient, rtol=RTOL[dtype.name])


@pytest.mark.parametrize("loss", [SoftmaxCrossEntropy(), CrossEntropy()])
def test_without_gradient_the_loss_is_the_same(loss, target):
    outputs, labels = outputs_and_labels(target, (7, 5))
    outputs = Softmax().forward(outputs)
    value, gradient = loss(outputs, labels, grad=False)
    assert gradient is None
    assert float(value) == float(loss(outputs, labels)[0])


@pytest.mark.parametrize("loss", [SoftmaxCrossEntropy(), CrossEntropy()])
def test_gradient_is_the_slope(loss, target):
    outputs, labels = outputs_and_labels(target, (4, 6), scale=1.0)
    outputs = Softmax().forward(outputs)  # probabilities, which are logits as good as any
    _, gradient = loss(outputs, labels)
    slopes = reference.finite_difference(
        lambda values: float(loss(target.array(values), labels)[0]), host(outputs)
    )
    assert_close(gradient, slopes, rtol=1e-7)


@pytest.mark.parametrize("loss", [SoftmaxCrossEntropy(), CrossEntropy()])
def test_certainty_costs_nothing_and_error_stays_finite(loss):
    logits = np.array([[1e4, -1e4], [1e4, -1e4]], np.float32)
    outputs = logits if isinstance(loss, SoftmaxCrossEntropy) else Softmax().forward(logits)
    value, gradient = loss(outputs, np.array([0, 0]))
    assert float(value) == 0
    value, gradient = loss(outputs, np.array([0, 1]))
    assert np.isfinite(value) and value > 10
    assert np.isfinite(gradient).all() and gradient[1].any()


def test_the_last_layer_decides_the_default_loss():
    assert default_loss(Sequential([Dense(3)], (4,))) == SoftmaxCrossEntropy()
    assert default_loss(Sequential([Dense(3), Softmax()], (4,))) == CrossEntropy()


def test_no_softmax_of_probabilities():
    """They would nearly equal each other: losses of ten classes are 1.46 to 2.46."""
    loss, data = SoftmaxCrossEntropy(), (np.zeros((4, 2, 2), np.uint8), np.arange(4) % 3)
    logits, ends = (
        Sequential([Flatten(), Dense(3), *end], (2, 2, 1), "cpu") for end in ([], [Softmax()])
    )
    for use in (
        lambda: Trainer(ends, SGD(0.1), loss),
        lambda: evaluate(ends, data, loss),
        lambda: evaluate(Ensemble([logits]), data, loss),
    ):
        with pytest.raises(ValueError, match="^loss: got SoftmaxCrossEntropy for outputs that are"):
            use()


@pytest.mark.parametrize(
    ("returned", "got"),
    [
        (lambda y: (1.0, y), "1.0, (4, 3)"),
        (lambda y: (y[:, 0], y), "(4,), (4, 3)"),
        (lambda y: (y[0, 0], y[0]), "(), (3,)"),
        (lambda y: (y[0, 0], None), "(), None"),
        (lambda y: y[0, 0], "()"),
        (lambda y: None, "None"),
    ],
    ids=["number", "of each image", "one gradient", "no gradient", "loss alone", "nothing"],
)
def test_a_loss_of_ones_own_that_returns_something_else(returned, got):
    model = Sequential([Flatten(), Dense(3)], (2, 2, 1), "cpu")
    trainer = Trainer(model, SGD(0.1), lambda outputs, labels, grad=True: returned(outputs))
    with pytest.raises(ValueError) as caught:
        trainer.fit((normal(0, 4, 2, 2, dtype=np.float32), np.arange(4) % 3))
    assert str(caught.value).startswith(
        f"loss: returned {got}, expected arrays of shapes () and (4"
    )


@pytest.mark.parametrize(
    ("returned", "got"),
    [
        (lambda y: y[:, 0], "(4,)"),
        (lambda y: (y[:, 0], None), "(4,), None"),
        (lambda y: y[0, 0], "()"),
        (lambda y: None, "None"),
    ],
    ids=["of each image", "of each image, and no gradient", "loss alone", "nothing"],
)
def test_a_loss_of_ones_own_that_returns_something_else_to_evaluate(returned, got):
    model = Sequential([Flatten(), Dense(3)], (2, 2, 1), "cpu")
    data = normal(0, 4, 2, 2, dtype=np.float32), np.arange(4) % 3
    with pytest.raises(ValueError) as caught:
        evaluate(model, data, lambda outputs, labels, grad=True: returned(outputs))
    assert str(caught.value).startswith(f"loss: returned {got}, expected the mean loss, an array")
