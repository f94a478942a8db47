"""Tests that the comparisons of the test suite reject what they must."""

import ml_dtypes
import numpy as np
import pytest

from kernels.runtime import cpu_target
from tests.lib import comparison

NAN, INF = np.nan, np.inf


@pytest.fixture
def rng():
    return np.random.default_rng(0)


class OnDevice:
    """An array that hands its values over through `get`, as CuPy's do."""

    def __init__(self, values):
        self.values = values

    def get(self):
        return self.values


def test_assert_close_accepts_equal_results(rng):
    expected = rng.normal(size=(4, 5))
    comparison.assert_close(OnDevice(expected.astype(np.float32)), expected, rtol=1e-6)
    comparison.assert_close([NAN, INF, -INF, 1], [NAN, INF, -INF, 1], rtol=0)
    comparison.assert_close(np.zeros(3), np.zeros(3), rtol=0)
    comparison.assert_close(np.empty((0, 3)), np.empty((0, 3)), rtol=0)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda x: np.full_like(x, NAN), "NaN positions"),
        (lambda x: np.where(x == x.max(), NAN, x), "NaN positions"),
        (lambda x: np.where(x == x.max(), INF, x), "infinities"),
        (lambda x: np.zeros_like(x), "all zeros"),
        (lambda x: x[::-1], "exceeds"),  # stale: the output of another input
        (lambda x: x * 1.001, "exceeds"),
        (lambda x: x.ravel(), "shape"),
        (lambda x: comparison.poison(x.shape, x.dtype), "NaN positions"),
    ],
)
def test_assert_close_rejects(rng, spoil, message):
    expected = rng.normal(size=(4, 5))
    with pytest.raises(AssertionError, match=message):
        comparison.assert_close(spoil(expected), expected, rtol=9e-4)


@pytest.mark.parametrize(
    "actual, expected",
    [([1, 2], [NAN, 2]), ([INF], [-INF]), ([1e300], [INF]), ([1e-9], [0]), ([0, 0], [0, 1e-30])],
)
def test_assert_close_rejects_special_values(actual, expected):
    with pytest.raises(AssertionError):
        comparison.assert_close(actual, expected, rtol=1e-3)


def test_assert_close_names_the_worst_element():
    with pytest.raises(AssertionError, match=r"worst at \(1, 0\): .*4.5.*, expected .*4.0"):
        comparison.assert_close([[1, 2.1], [4.5, 4]], [[1, 2], [4, 4]], rtol=1e-3)


def test_outputs_of_every_type_are_poisoned():
    for dtype in (np.float16, ml_dtypes.bfloat16):
        assert np.isnan(comparison.poison((2, 3), dtype)).all()
        assert np.isnan(cpu_target().empty((2, 3), dtype)).all()  # every output is: conftest.py
    assert comparison.poison((2, 3), np.uint8).tolist() == [[0xAB] * 3] * 2
    assert comparison.poison(4, np.uint16).tolist() == [0xABAB] * 4
