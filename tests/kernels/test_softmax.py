"""Tests of softmax and of both cross-entropies."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import kernels
from tests.cases.check import check
from tests.lib import comparison, reference
from tests.lib.support import RTOL, host, normal, numbers

NAN, INF = np.nan, np.inf
INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", ">i2"]


def check_loss(target, logits, labels, weight=None, **options):
    """Compare softmax_cross_entropy with the oracle."""
    given = {"logits": logits, "labels": labels} | ({} if weight is None else {"weight": weight})
    sizes = {"N": 1, "C": 1, **options}
    return check(target, logits.dtype, "softmax_cross_entropy", given=given, **sizes)


def test_softmax_of_extreme_values(target, dtype):
    x = np.array([[1e4, -1e4, 0], [-1e4, -1e4, -1e4], [-INF, 0, 0], [-INF, -INF, 5]], dtype)
    (y,) = check(target, dtype, "softmax", given={"x": x}, N=4, C=3)
    check(target, dtype, "softmax_backward", given={"y": y}, N=4, C=3)
    assert y.tolist()[0] == [1, 0, 0] and y.tolist()[2:] == [[0, 0.5, 0.5], [0, 0, 1]]
    for row in [[NAN, 0, 1], [0, NAN, INF], [INF, 0, 1], [-INF, -INF, -INF]]:
        x = np.array([[1, 2, 3], row, [3, 2, 1]], dtype)
        y = host(kernels.softmax(target.array(x)))
        assert np.isnan(y[1]).all() and np.isfinite(y[[0, 2]]).all()


@hypothesis.given(
    N=st.integers(1, 20),
    C=st.integers(2, 40),  # of one class, see below
    weighted=st.booleans(),
    smoothing=st.sampled_from([0, 0.1, 0.9, 1]),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    ignore_index=st.sampled_from([-100, 0, 255]),
    seed=st.integers(0, 99),
)
def test_loss_equals_the_oracle(
    target, dtype, N, C, weighted, smoothing, reduction, ignore_index, seed
):
    rng = np.random.default_rng(seed)
    logits = 3 * normal(seed, N, C, dtype=dtype)
    labels = rng.integers(0, C, N)
    labels[rng.random(N) < 0.2] = ignore_index
    weight = rng.random(C).astype(dtype) if weighted else None
    options = {"reduction": reduction, "ignore_index": ignore_index}
    check_loss(target, logits, labels, weight, label_smoothing=smoothing, **options)


@pytest.mark.parametrize("C", [5, 33, 1100])  # a thread, a warp or a block has a row
@pytest.mark.parametrize("value", [INF, NAN])
def test_without_smoothing_weights_of_other_classes_count_for_nothing(target, dtype, C, value):
    """1 / examples, say, is infinite where a class has none."""
    logits, labels, weight = normal(0, 6, C, dtype=dtype), np.arange(6) % 4, np.ones(C, dtype)
    weight[4] = value
    check_loss(target, logits, labels, weight)


@pytest.mark.parametrize("smoothing", [0, 0.1, 1])
def test_the_gradient_of_a_single_class_is_zero_up_to_rounding(target, dtype, smoothing):
    """It is the difference of two equal terms of 1/6, the rows' shares of the mean."""
    weight = np.random.default_rng(1).random(1).astype(dtype)
    arrays = target.array(normal(1, 6, 1, dtype=dtype)), target.array(np.zeros(6, np.int64))
    options = {"weight": target.array(weight), "label_smoothing": smoothing}
    _, dlogits = kernels.softmax_cross_entropy(*arrays, **options)
    # Relative to the terms: nothing can be relative to the expected 0.
    assert abs(host(dlogits)).max() <= RTOL[dtype.name] / 6


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("smoothing", [0, 0.3])
def test_dlogits_equals_finite_differences(target, reduction, smoothing):
    logits, labels = normal(0, 5, 4), np.array([0, 3, -100, 1, 3])
    options = {"reduction": reduction, "label_smoothing": smoothing}
    options["weight"] = target.array(np.array([1, 0.5, 2, 0.1]))

    def loss(logits):
        arrays = target.array(logits), target.array(labels)
        return float(kernels.softmax_cross_entropy(*arrays, grad=False, **options)[0])

    arrays = target.array(logits), target.array(labels)
    _, dlogits = kernels.softmax_cross_entropy(*arrays, **options)
    comparison.assert_close(dlogits, reference.finite_difference(loss, logits), rtol=1e-6)


def test_without_grad_the_loss_is_the_same(target, dtype):
    arrays = target.array(normal(0, 9, 5, dtype=dtype)), target.array(np.arange(9) % 5)
    loss, dlogits = kernels.softmax_cross_entropy(*arrays, grad=False)
    assert dlogits is None
    assert loss == kernels.softmax_cross_entropy(*arrays)[0]


@pytest.mark.parametrize("integer", INTEGERS)
def test_labels_of_any_integer_dtype(target, dtype, integer):
    if target.name == "cuda" and integer.startswith(">"):
        pytest.skip("CuPy has no big-endian arrays")
    logits, labels = normal(0, 6, 130, dtype=dtype), np.array([0, 127, 1, 5, 64, 9])
    expected, _ = check_loss(target, logits, labels)
    loss, _ = check_loss(target, logits, labels.astype(integer))
    assert loss == expected
    probabilities = kernels.softmax(target.array(logits))
    textbook, _ = kernels.cross_entropy(probabilities, target.array(labels.astype(integer)))
    comparison.assert_close(textbook, expected, rtol=RTOL[dtype.name])


@pytest.mark.parametrize("label", [-1, 3, -101, 2**31, -(2**31), 2**62, -(2**62), 2**63 - 1])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_label_out_of_range_gives_nan_for_its_row(target, dtype, label, reduction):
    labels = np.array([0, label, 2])
    logits = normal(0, 3, 3, dtype=dtype)
    loss, dlogits = check_loss(target, logits, labels, reduction=reduction)
    assert np.isnan(dlogits[1]).all() and np.isfinite(dlogits[[0, 2]]).all()
    nan = np.isnan(loss)
    assert nan.tolist() == [False, True, False] if reduction == "none" else nan
    # The same with weights: none may be read out of bounds.
    check_loss(target, logits, labels, np.array([1, 2, 4], dtype), reduction=reduction)


@pytest.mark.parametrize("label", [2**63, 2**64 - 100, 2**64 - 1])
def test_an_unsigned_label_does_not_turn_negative(target, dtype, label):
    labels = target.array(np.array([0, label], np.uint64))  # 2**64 - 100: not the ignored -100
    loss, dlogits = kernels.softmax_cross_entropy(
        target.array(normal(0, 2, 3, dtype=dtype)), labels, reduction="none"
    )
    assert np.isnan(host(loss)).tolist() == [False, True] and np.isnan(host(dlogits)[1]).all()


def test_ignored_rows_give_zero_whatever_they_hold(target, dtype):
    logits = np.array([[1, 2], [NAN, INF], [3, 1]], dtype)
    labels = np.array([0, 255, 1], np.uint8)
    loss, dlogits = check_loss(target, logits, labels, ignore_index=255)
    assert np.isfinite(loss) and dlogits[1].tolist() == [0, 0]
    # The mean of nothing is NaN, its sum 0; gradients are 0.
    loss, dlogits = check_loss(target, logits[:1], labels[:1], ignore_index=0)
    assert np.isnan(loss) and not dlogits.any()
    loss, _ = check_loss(target, logits[:1], labels[:1], ignore_index=0, reduction="sum")
    assert loss == 0


@pytest.mark.parametrize("reduction, expected", [("mean", NAN), ("sum", 0), ("none", [])])
def test_an_empty_batch(target, dtype, reduction, expected):
    arrays = target.array(np.empty((0, 3), dtype)), target.array(np.empty(0, int))
    loss, dlogits = kernels.softmax_cross_entropy(*arrays, reduction=reduction)
    np.testing.assert_array_equal(numbers(loss), expected)
    assert dlogits.shape == (0, 3)
    loss, dprobabilities = kernels.cross_entropy(*arrays)
    assert np.isnan(host(loss)) and dprobabilities.shape == (0, 3)


def test_no_classes_leave_every_label_out_of_range(target, dtype):
    arrays = target.array(np.empty((3, 0), dtype)), target.array(np.zeros(3, int))
    losses, dlogits = kernels.softmax_cross_entropy(*arrays, reduction="none")
    assert np.isnan(host(losses)).all() and dlogits.shape == (3, 0)


def test_extreme_logits_give_finite_losses(target, dtype):
    logits = np.array([[1e4, -1e4, 0], [-1e4, 1e4, 0], [-INF, 0, 1], [0, -INF, -INF]], dtype)
    loss, dlogits = check_loss(target, logits, np.array([0, 0, 2, 0]), reduction="none")
    assert loss[:2].tolist() == [0, np.array(2e4, dtype)] and np.isfinite(loss).all()
    assert np.isfinite(dlogits).all()
    # A target that is impossible costs infinity, at a finite slope.
    loss, dlogits = check_loss(target, logits, np.array([0, 0, 0, 0]), reduction="none")
    assert loss[2] == INF and np.isfinite(dlogits).all()


def test_smoothing_reaches_the_impossible_classes(target, dtype):
    logits, labels = np.array([[0, -INF, 1]], dtype), np.array([0])
    loss, _ = check_loss(target, logits, labels, label_smoothing=0.1)
    assert loss == INF
    # Unless the class weighs nothing.
    weight = np.array([1, 0, 1], dtype)
    loss, _ = check_loss(target, logits, labels, weight, label_smoothing=0.1)
    assert np.isfinite(loss)


def test_a_mean_of_many_rows_keeps_its_precision(target):
    # Equal terms round the same way each time: one float32 sum of them would be 5e-5 off.
    logits, labels = np.zeros((10_000, 10), np.float32), np.zeros(10_000, np.uint8)
    loss, _ = kernels.softmax_cross_entropy(target.array(logits), target.array(labels))
    assert float(loss) == pytest.approx(np.log(10), rel=1e-6)
    weight = np.full(10, 0.1, np.float32)
    loss, _ = kernels.softmax_cross_entropy(
        target.array(logits), target.array(labels), weight=target.array(weight)
    )
    assert float(loss) == pytest.approx(np.log(10), rel=1e-6)
    probabilities = np.full((10_000, 10), 0.1, np.float32)
    loss, _ = kernels.cross_entropy(target.array(probabilities), target.array(labels))
    assert float(loss) == pytest.approx(np.log(10), rel=1e-6)


def check_textbook(target, probabilities, labels):
    """Compare cross_entropy with the oracle, which clips at the smallest number of the type."""
    loss, slope = kernels.cross_entropy(target.array(probabilities), target.array(labels))
    expected = reference.cross_entropy(probabilities, labels)
    for actual, wanted in zip((loss, slope), expected, strict=True):
        comparison.assert_close(actual, wanted, rtol=RTOL[probabilities.dtype.name])
    return host(loss), host(slope)


def test_textbook_loss_of_an_underflow_is_finite(target, dtype):
    loss, slope = check_textbook(target, np.array([[1, 0], [0, 1]], dtype), np.array([1, 1]))
    assert np.isfinite(loss) and np.isfinite(slope).all()


def test_textbook_loss_of_a_small_float64(target):
    loss, _ = check_textbook(target, np.array([[1, 1e-50]]), np.array([1]))
    assert loss == pytest.approx(50 * np.log(10))


def test_textbook_loss_of_labels_out_of_range_and_nan(target, dtype):
    probabilities = reference.softmax(normal(0, 4, 3)).astype(dtype)
    loss, slope = check_textbook(target, probabilities, np.array([0, 3, -100, 2]))
    assert np.isnan(loss)
    assert np.isnan(slope).all(axis=1).tolist() == [False, True, True, False]
    probabilities[0, 1] = NAN
    loss, slope = kernels.cross_entropy(target.array(probabilities), target.array(np.arange(4) % 3))
    assert np.isfinite(float(loss)) and np.isfinite(host(slope)).all()


def test_textbook_slope_equals_finite_differences(target):
    probabilities, labels = reference.softmax(normal(0, 4, 3)), np.array([2, 0, 1, 1])

    def loss(probabilities):
        return float(kernels.cross_entropy(target.array(probabilities), target.array(labels))[0])

    _, slope = kernels.cross_entropy(target.array(probabilities), target.array(labels))
    expected = reference.finite_difference(loss, probabilities)
    comparison.assert_close(slope, expected, rtol=1e-6)


@pytest.mark.parametrize("labels", [[2, 0, 1, 1], [2, 0, 7, 1]])  # with one out of range, too
def test_the_textbook_pair_equals_the_fused_loss(target, labels):
    logits, labels = target.array(normal(0, 4, 3)), target.array(np.array(labels))
    fused_loss, fused = kernels.softmax_cross_entropy(logits, labels)
    y = kernels.softmax(logits)
    loss, slope = kernels.cross_entropy(y, labels)
    comparison.assert_close(loss, host(fused_loss), rtol=1e-13)
    comparison.assert_close(kernels.softmax_backward(slope, y), host(fused), rtol=1e-13)


def test_the_mean_of_rows_without_weight_is_nan(target):
    """Smoothing gives such a row a loss: PyTorch's is NaN, too."""
    weight = target.array(np.array([0.0, 1, 2]))
    labels = target.array(np.zeros(4, int))
    logits = target.array(normal(0, 4, 3))
    loss, _ = kernels.softmax_cross_entropy(logits, labels, weight=weight, label_smoothing=0.1)
    assert np.isnan(host(loss))
