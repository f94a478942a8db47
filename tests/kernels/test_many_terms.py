"""Sums of many terms of one sign, or beside an outlier, in float32: digits are not lost one by one.

A register that adds up a million equal terms is wrong by one percent.
"""

import numpy as np
import pytest

import kernels
from tests.lib.support import host

TENTH = np.float32(0.1)


def tenths(*shape):
    return np.full(shape, TENTH)


def assert_near(found, expected):
    error = abs(host(found).astype(float) - expected).max()
    assert error <= 1e-4 * abs(expected), error / abs(expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_mean_of_a_large_image(target, channels):
    x = target.array(tenths(1, 1024, 512, channels))
    assert_near(kernels.global_avg_pool2d(x), float(TENTH))


def test_gradients_of_many_rows(target):
    rows = 2**19
    x, dy, w = (target.array(tenths(*shape)) for shape in ((rows, 1), (rows, 1), (1, 1)))
    _, dw, db = kernels.dense_backward(dy, x, w)
    assert_near(dw, float(TENTH) ** 2 * rows)
    assert_near(db, float(TENTH) * rows)
    one = target.array(np.ones(1, np.float32))
    _, saved = kernels.layer_norm(x, one, one)
    _, _, dbeta = kernels.layer_norm_backward(dy, x, one, saved)
    assert_near(dbeta, float(TENTH) * rows)


@pytest.mark.parametrize("columns", [64, 768, 4096, 40001])
def test_a_row_that_begins_with_an_outlier(target, columns):
    """The other columns are right by their own measure, not only by the outlier's."""
    x = np.random.default_rng(1).standard_normal((3, columns)).astype(np.float32)
    x[:, 0] = 1e4
    one, zero = np.ones(columns, np.float32), np.zeros(columns, np.float32)
    y, _ = kernels.layer_norm(*map(target.array, (x, one, zero)))
    exact = x.astype(float)
    centred = exact - exact.mean(axis=1, keepdims=True)
    expected = centred / np.sqrt(exact.var(axis=1, keepdims=True) + 1e-5)
    others = expected[:, 1:]
    assert abs(host(y)[:, 1:] - others).max() <= 1e-4 * others.std()
