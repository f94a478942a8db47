"""Tests of the dense layer and its gradients."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import kernels
from tests.cases.check import check
from tests.lib import comparison, reference
from tests.lib.support import normal, numbers

NAN, INF = np.nan, np.inf


@hypothesis.given(
    rows=st.integers(0, 40),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 40),
    bias=st.booleans(),
    relu=st.booleans(),
)
def test_equals_the_oracle(target, dtype, rows, inputs, outputs, bias, relu):
    sizes = {"N": rows, "inputs": inputs, "outputs": outputs}
    check(target, dtype, "dense", **sizes, bias=bias, relu=relu)
    check(target, dtype, "dense_backward", **sizes)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_special_value_reaches_its_row_alone(target, dtype, value):
    sizes = {"N": 9, "inputs": 5, "outputs": 7}
    x, w = normal(0, 9, 5), normal(1, 7, 5)
    x[3, 2] = value
    check(target, dtype, "dense", given={"x": x}, **sizes)
    check(target, dtype, "dense_backward", given={"x": x}, **sizes)
    w[4, 1] = value
    (y,) = check(target, dtype, "dense", given={"x": x, "w": w}, **sizes)
    check(target, dtype, "dense_backward", given={"x": x, "w": w}, **sizes)
    assert np.isfinite(np.delete(np.delete(y, 3, axis=0), 4, axis=1)).all()


def test_relu_keeps_nan_and_clips_infinity(target, dtype):
    x = np.array([[NAN], [INF], [-INF], [-2], [-0.0], [3]], dtype)
    y = kernels.dense(target.array(x), target.array(np.ones((1, 1), dtype)), relu=True)
    np.testing.assert_array_equal(numbers(y).ravel(), [NAN, INF, 0, 0, 0, 3])


def test_a_bias_gradient_of_many_rows_keeps_its_precision(target):
    # Equal terms round the same way each time: one float32 sum of them would be 3e-4 off.
    dy, x = np.full((70_000, 1), 0.1, np.float32), np.full((70_000, 1), 0.7, np.float32)
    _, dw, db = kernels.dense_backward(*map(target.array, (dy, x, np.ones((1, 1), np.float32))))
    _, expected_dw, expected_db = reference.dense_backward(dy, x, np.ones((1, 1)))
    comparison.assert_close(db, expected_db, rtol=5e-5)
    comparison.assert_close(dw, expected_dw, rtol=5e-5)
