"""Tests of the dense layer and its gradients."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import kernels
from tests.lib import comparison, reference
from tests.lib.support import RTOL, host, normal, numbers

NAN, INF = np.nan, np.inf


def check(target, x, w, b=None, *, relu=False):
    """Compare dense and, for a random dy, dense_backward with the oracle, whose w is (in, out)."""
    arrays = [None if array is None else target.array(array) for array in (x, w, b)]
    y = kernels.dense(*arrays, relu=relu)
    rtol = RTOL[x.dtype.name]
    assert y.dtype == x.dtype
    comparison.assert_close(y, reference.dense(x, w.T, b, relu=relu), rtol=rtol)

    dy = normal(9, *y.shape, dtype=x.dtype)
    dx, dw, db = kernels.dense_backward(target.array(dy), *arrays[:2])
    expected_dx, expected_dw, expected_db = reference.dense_backward(dy, x, w.T)
    comparison.assert_close(dx, expected_dx, rtol=rtol)
    comparison.assert_close(dw, expected_dw.T, rtol=rtol)
    comparison.assert_close(db, expected_db, rtol=rtol)
    assert dx.dtype == dw.dtype == db.dtype == x.dtype


@hypothesis.given(
    rows=st.integers(0, 40),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 40),
    bias=st.booleans(),
    relu=st.booleans(),
)
def test_equals_the_oracle(target, dtype, rows, inputs, outputs, bias, relu):
    x, w = normal(0, rows, inputs, dtype=dtype), normal(1, outputs, inputs, dtype=dtype)
    check(target, x, w, normal(2, outputs, dtype=dtype) if bias else None, relu=relu)


def test_what_is_not_needed_is_spared_alone(target, dtype):
    arrays = [
        target.array(normal(i, *shape, dtype=dtype))
        for i, shape in enumerate([(5, 3), (5, 4), (3, 4)])
    ]
    expected = kernels.dense_backward(*arrays)
    for option, place in (("need_dx", 0), ("need_db", 2)):
        found = kernels.dense_backward(*arrays, **{option: False})
        assert found[place] is None
        for other in {0, 1, 2} - {place}:
            np.testing.assert_array_equal(host(found[other]), host(expected[other]))


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@np.errstate(invalid="ignore")  # in the oracle
def test_a_special_value_reaches_its_row_alone(target, dtype, value):
    x, w = normal(0, 9, 5, dtype=dtype), normal(1, 7, 5, dtype=dtype)
    x[3, 2] = value
    check(target, x, w)
    w[4, 1] = value
    check(target, x, w)
    y = host(kernels.dense(target.array(x), target.array(w)))
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
