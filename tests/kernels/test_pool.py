"""Tests of max- and average-pooling and their gradients."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import kernels
from tests.cases.case import images
from tests.cases.check import check
from tests.lib import strategies
from tests.lib.support import host, numbers

NAN, INF = np.nan, np.inf


def check_max(target, dtype, given=None, **sizes):
    """Compare max_pool2d, its indices and its gradient with the oracle; return y and argmax."""
    y, argmax = check(target, dtype, "max_pool2d", given=given, **sizes)
    check(target, dtype, "pool_indices", given={"argmax": argmax}, **sizes)
    check(target, dtype, "max_pool2d_backward", given={"argmax": argmax}, **sizes)
    return y, argmax


@hypothesis.given(
    drawn=strategies.windows(pool=True),
    N=st.integers(0, 2),
    C=st.sampled_from([1, 3, 8, 9]),
    kind=st.sampled_from(["normal", "ties", "special"]),
)
@hypothesis.settings(max_examples=100)
def test_max_pool_equals_the_oracle(target, dtype, drawn, N, C, kind):
    (H, W), K, options = drawn
    check_max(target, dtype, **images(N, H, W, C, K=K, kind=kind, **options))


@hypothesis.given(
    strategies.windows(pool=True), st.integers(0, 2), st.sampled_from([1, 3, 8, 9]), st.booleans()
)
@hypothesis.settings(max_examples=100)
def test_avg_pool_equals_the_oracle(target, dtype, drawn, N, C, count_include_pad):
    (H, W), K, options = drawn
    sizes = images(N, H, W, C, K=K, count_include_pad=count_include_pad, **options)
    check(target, dtype, "avg_pool2d", **sizes)
    check(target, dtype, "avg_pool2d_backward", **sizes)


def test_the_first_maximum_wins_a_tie(target, dtype):
    x = np.full((1, 4, 4, 9), 2.0)
    y, argmax = check_max(target, dtype, {"x": x}, **images(1, 4, 4, 9, K=2))
    assert (y == 2).all() and (argmax == 0).all()
    # -0.0 and 0.0 tie too.
    x = np.array([-0.0, 0.0]).reshape(1, 1, 2, 1)
    _, argmax = check_max(target, dtype, {"x": x}, **images(1, 1, 2, 1, K=(1, 2)))
    assert argmax.ravel().tolist() == [0]


def test_nan_wins_and_the_first_of_several(target, dtype):
    x = np.array([INF, NAN, NAN, 1]).reshape(1, 2, 2, 1)
    y, argmax = check_max(target, dtype, {"x": x}, **images(1, 2, 2, 1, K=2))
    assert np.isnan(y).all() and argmax.ravel().tolist() == [1]


def test_padding_never_wins(target, dtype):
    x = np.full((1, 2, 2, 9), -INF)
    y, argmax = check_max(target, dtype, {"x": x}, **images(1, 2, 2, 9, K=2, stride=1, padding=1))
    assert (y == -INF).all()
    assert argmax[0, ..., 0].tolist() == [[3, 2, 2], [1, 0, 0], [1, 0, 0]]  # the first real cell
    x = np.full((1, 2, 2, 1), -5.0)
    y, _ = check_max(target, dtype, {"x": x}, **images(1, 2, 2, 1, K=3, stride=1, padding=2))
    assert (y == -5).all()


def test_a_window_wholly_in_the_padding_is_empty(target, dtype):
    x = np.ones((1, 1, 1, 3))
    options = {"stride": 1, "padding": 4, "dilation": 5}
    y, argmax = check_max(target, dtype, {"x": x}, **images(1, 1, 1, 3, K=2, **options))
    assert (y[0, 1:4, 1:4] == -INF).all() and (argmax[0, 1:4, 1:4] == 0).all()
    indices = host(kernels.pool_indices(target.array(argmax), x.shape, 2, **options))
    assert (indices[0, 1:4, 1:4] == -1).all()
    average = host(kernels.avg_pool2d(target.array(x), 2, **options, count_include_pad=False))
    assert (average[0, 1:4, 1:4] == 0).all()


def test_offsets_up_to_65535(target):
    x = np.zeros((1, 256, 256, 1), np.float32)
    x[0, 255, 255] = 1  # the last of 65536 taps
    y, argmax = kernels.max_pool2d(target.array(x), 256)
    assert argmax.dtype == np.uint16 and host(argmax).ravel().tolist() == [65535]
    assert host(kernels.pool_indices(argmax, x.shape, 256)).ravel().tolist() == [65535]
    dx = kernels.max_pool2d_backward(y, argmax, x.shape, 256)
    np.testing.assert_array_equal(host(dx), x)
    with pytest.raises(ValueError, match="kernel: got 257 x 256 taps, expected at most 65536"):
        kernels.max_pool2d(target.array(np.zeros((1, 257, 256, 1), np.float32)), (257, 256))


def test_special_values_average_to_special_values(target, dtype):
    x = np.array([NAN, 1, INF, 1, -INF, 1, INF, -INF, 2, 4], dtype).reshape(1, 1, 10, 1)
    y = numbers(kernels.avg_pool2d(target.array(x), (1, 2)))
    np.testing.assert_array_equal(y.ravel(), [NAN, INF, -INF, NAN, 3])
