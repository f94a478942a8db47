"""Tests of max- and average-pooling and their gradients."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import kernels
from tests.lib import comparison, reference, support
from tests.lib.support import RTOL, host, normal, numbers

NAN, INF = np.nan, np.inf

SHAPES = [
    ((1, 1, 1, 1), 1, {}),  # one pixel
    ((1, 1, 1, 3), 3, {"padding": 1}),  # one pixel, eight taps of nine in the padding
    ((0, 4, 4, 3), 2, {}),  # an empty batch
    ((2, 4, 4, 0), 2, {}),  # no channels
    ((1, 1, 2, 3), 2, {"padding": 4, "dilation": 5}),  # windows wholly in the padding
    ((2, 0, 3, 2), (2, 2), {"padding": 1, "stride": 1}),  # images without a pixel, padded
    ((3, 5, 7, 2), 2, {"ceil_mode": True}),  # the last windows hang over both edges
    ((3, 7, 5, 3), 3, {"stride": 2, "padding": 1, "ceil_mode": True}),
    ((2, 2, 1, 3), 3, {"stride": (2, 3), "ceil_mode": True}),  # the only window hangs over
    ((1, 2, 2, 9), 3, {"ceil_mode": True}),  # the same, of windows that touch
    ((2, 6, 6, 2), 2, {"stride": 3}),  # pixels that no window covers
    ((2, 5, 7, 3), (2, 3), {"stride": 2**31 - 1}),  # a stride at the limit of an int
    ((2, 9, 8, 3), 3, {"stride": 1, "dilation": (4, 3)}),  # holes between the taps
    ((3, 53, 47, 3), 2, {}),  # primes; more outputs than one block's 8192 elements
    ((1, 21, 19, 1), 16, {"stride": 3}),  # 256 taps: the last that uint8 holds
    ((1, 31, 2, 1), (257, 1), {"padding": (120, 0)}),  # 257 taps: uint16; longer than the image
    ((1, 20, 20, 9), 20, {}),  # 400 taps over the whole image
]


def check_max(target, x, kernel, **options):
    """Compare max_pool2d, its gradient and pool_indices with the oracle; return (y, argmax)."""
    y, argmax = kernels.max_pool2d(target.array(x), kernel, **options)
    expected, expected_argmax = reference.max_pool2d(x, kernel, **options)
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(numbers(y), expected)  # a choice, so exact
    assert argmax.dtype == expected_argmax.dtype
    np.testing.assert_array_equal(host(argmax), expected_argmax)

    indices = kernels.pool_indices(argmax, x.shape, kernel, **options)
    assert indices.dtype == np.int64
    expected = reference.pool_indices(expected_argmax, x.shape, kernel, **options)
    np.testing.assert_array_equal(host(indices), expected)

    dy = normal(9, *y.shape, dtype=x.dtype)
    dx = kernels.max_pool2d_backward(target.array(dy), argmax, x.shape, kernel, **options)
    expected = reference.max_pool2d_backward(dy, expected_argmax, x.shape, kernel, **options)
    comparison.assert_close(dx, expected, rtol=RTOL[x.dtype.name])
    return host(y), host(argmax)


def check_average(target, x, kernel, **options):
    """Compare avg_pool2d and its gradient with the oracle."""
    y = kernels.avg_pool2d(target.array(x), kernel, **options)
    assert y.dtype == x.dtype
    comparison.assert_close(y, reference.avg_pool2d(x, kernel, **options), rtol=RTOL[x.dtype.name])
    dy = normal(9, *y.shape, dtype=x.dtype)
    dx = kernels.avg_pool2d_backward(target.array(dy), x.shape, kernel, **options)
    expected = reference.avg_pool2d_backward(dy, x.shape, kernel, **options)
    comparison.assert_close(dx, expected, rtol=RTOL[x.dtype.name])


drawn_values = st.sampled_from(["normal", "ties", "special"])


def values(kind, *shape, dtype):
    """Return values of a kind: few different ones to tie, or NaN, infinities and -0.0."""
    if kind == "normal":
        return normal(0, *shape, dtype=dtype)
    choices = [-1, 0, 1] if kind == "ties" else [NAN, INF, -INF, -0.0, 0.0, 1, -INF, -INF]
    return np.random.default_rng(0).choice(choices, shape).astype(dtype)


@hypothesis.given(
    support.windows(pool=True), st.integers(0, 2), st.sampled_from([1, 3, 8, 9]), drawn_values
)
@hypothesis.settings(max_examples=100)
def test_max_pool_equals_the_oracle(target, dtype, drawn, N, C, kind):
    size, kernel, options = drawn
    check_max(target, values(kind, N, *size, C, dtype=dtype), kernel, **options)


@hypothesis.given(
    support.windows(pool=True), st.integers(0, 2), st.sampled_from([1, 3, 8, 9]), st.booleans()
)
@hypothesis.settings(max_examples=100)
def test_avg_pool_equals_the_oracle(target, dtype, drawn, N, C, count_include_pad):
    size, kernel, options = drawn
    x = normal(0, N, *size, C, dtype=dtype)
    check_average(target, x, kernel, count_include_pad=count_include_pad, **options)


@pytest.mark.parametrize("shape, kernel, options", SHAPES)
def test_max_pool_shapes(target, dtype, shape, kernel, options):
    check_max(target, normal(0, *shape, dtype=dtype), kernel, **options)


@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("shape, kernel, options", SHAPES)
def test_avg_pool_shapes(target, dtype, shape, kernel, options, count_include_pad):
    x = normal(0, *shape, dtype=dtype)
    check_average(target, x, kernel, count_include_pad=count_include_pad, **options)


@pytest.mark.parametrize("C", support.CHANNELS)
def test_channel_counts(target, dtype, C):
    x = normal(0, 2, 5, 6, C, dtype=dtype)
    options = {"stride": (1, 2), "padding": ((1, 0), (1, 1)), "ceil_mode": True}
    check_max(target, x, (2, 3), **options)
    check_average(target, x, (2, 3), **options)


def test_the_first_maximum_wins_a_tie(target, dtype):
    y, argmax = check_max(target, np.full((1, 4, 4, 9), 2, dtype), 2)
    assert (y == 2).all() and (argmax == 0).all()
    # -0.0 and 0.0 tie too.
    _, argmax = check_max(target, np.array([-0.0, 0.0], dtype).reshape(1, 1, 2, 1), (1, 2))
    assert argmax.ravel().tolist() == [0]


def test_nan_wins_and_the_first_of_several(target, dtype):
    x = np.array([INF, NAN, NAN, 1], dtype).reshape(1, 2, 2, 1)
    y, argmax = check_max(target, x, 2)
    assert np.isnan(y).all() and argmax.ravel().tolist() == [1]


def test_padding_never_wins(target, dtype):
    y, argmax = check_max(target, np.full((1, 2, 2, 9), -INF, dtype), 2, stride=1, padding=1)
    assert (y == -INF).all()
    assert argmax[0, ..., 0].tolist() == [[3, 2, 2], [1, 0, 0], [1, 0, 0]]  # the first real cell
    y, _ = check_max(target, np.full((1, 2, 2, 1), -5, dtype), 3, stride=1, padding=2)
    assert (y == -5).all()


def test_a_window_wholly_in_the_padding_is_empty(target, dtype):
    x = np.ones((1, 1, 1, 3), dtype)
    options = {"stride": 1, "padding": 4, "dilation": 5}
    y, argmax = check_max(target, x, 2, **options)
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


def test_gradients_equal_finite_differences(target):
    options = {"stride": (1, 2), "padding": ((1, 0), (1, 1)), "dilation": (2, 1)}
    x = normal(0, 2, 5, 4, 2)

    def max_pool(x):
        return host(kernels.max_pool2d(target.array(x), (2, 3), **options)[0])

    def average(x):
        return host(kernels.avg_pool2d(target.array(x), (2, 3), **options))

    dy = normal(1, *average(x).shape)
    _, argmax = kernels.max_pool2d(target.array(x), (2, 3), **options)
    dx = kernels.max_pool2d_backward(target.array(dy), argmax, x.shape, (2, 3), **options)
    expected = reference.finite_difference(lambda x: (dy * max_pool(x)).sum(), x)
    comparison.assert_close(dx, expected, rtol=1e-7)
    dx = kernels.avg_pool2d_backward(target.array(dy), x.shape, (2, 3), **options)
    expected = reference.finite_difference(lambda x: (dy * average(x)).sum(), x)
    comparison.assert_close(dx, expected, rtol=1e-7)


@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 1, 1),  # one pixel
        (0, 3, 3, 2),  # an empty batch
        (3, 7, 5, 9),  # a tail of channels
        (2, 112, 112, 3),  # 12544 terms
    ],
)
def test_global_average(target, dtype, shape):
    x, dy = normal(0, *shape, dtype=dtype), normal(1, shape[0], shape[3], dtype=dtype)
    y = kernels.global_avg_pool2d(target.array(x))
    assert y.dtype == dtype
    # The mean is far smaller than the terms: the tolerance is theirs.
    np.testing.assert_allclose(host(y), reference.global_avg_pool2d(x), atol=RTOL[dtype.name])
    dx = kernels.global_avg_pool2d_backward(target.array(dy), shape)
    expected = reference.global_avg_pool2d_backward(dy, shape)
    comparison.assert_close(dx, expected, rtol=RTOL[dtype.name])


def test_special_values_average_to_special_values(target, dtype):
    x = np.array([NAN, 1, INF, 1, -INF, 1, INF, -INF, 2, 4], dtype).reshape(1, 1, 10, 1)
    y = numbers(kernels.avg_pool2d(target.array(x), (1, 2)))
    np.testing.assert_array_equal(y.ravel(), [NAN, INF, -INF, NAN, 3])
