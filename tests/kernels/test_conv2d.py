"""Tests of the convolution and its gradients."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import kernels
from tests.cases.check import check
from tests.cases.conv import UNEVEN
from tests.lib import comparison, strategies, support
from tests.lib.support import host, normal, numbers

NAN, INF = np.nan, np.inf
FLOAT32 = np.dtype(np.float32)


@hypothesis.given(
    drawn=strategies.windows(),
    N=st.integers(0, 3),
    groups=st.integers(1, 3),
    channels=st.sampled_from([1, 2, 8, 9]),
    filters=st.sampled_from([1, 3, 8, 17]),
    bias=st.booleans(),
    relu=st.booleans(),
)
@hypothesis.settings(max_examples=100)
def test_equals_the_oracle(target, dtype, drawn, N, groups, channels, filters, bias, relu):
    (H, W), K, options = drawn
    sizes = {"N": N, "H": H, "W": W, "C": groups * channels, "F": groups * filters, "K": K}
    sizes |= {"groups": groups, **options}
    check(target, dtype, "conv2d", **sizes, bias=bias, relu=relu)
    check(target, dtype, "conv2d_backward", **sizes)


@pytest.mark.parametrize("C", support.CHANNELS)
def test_channel_counts(target, dtype, C):
    for F in support.CHANNELS:
        sizes = {"N": 2, "H": 5, "W": 4, "C": C, "F": F, "K": (3, 2), **UNEVEN}
        check(target, dtype, "conv2d", **sizes)
        check(target, dtype, "conv2d_backward", **sizes)


def test_equals_im2col_times_the_filters(target):
    x, w = normal(0, 3, 7, 6, 5), normal(1, 4, 2, 3, 5)
    y = host(kernels.conv2d(target.array(x), target.array(w), **UNEVEN))
    cols = host(kernels.im2col(target.array(x), (2, 3), **UNEVEN))
    comparison.assert_close(y, (cols @ w.reshape(4, -1).T).reshape(y.shape), rtol=1e-13)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_special_value_reaches_its_windows_alone(target, dtype, value):
    sizes = {"N": 2, "H": 6, "W": 7, "C": 3, "F": 5, "K": 3}
    x, w, dy = normal(0, 2, 6, 7, 3), normal(1, 5, 3, 3, 3), normal(2, 2, 6, 7, 5)
    x[1, 2, 3, 1] = value
    dy[0, 0, 6, 2] = value
    check(target, dtype, "conv2d", given={"x": x}, **sizes, padding=1)
    check(target, dtype, "conv2d_backward", given={"x": x, "dy": dy}, **sizes, padding=1)
    w[3, 1, 1, 2] = value
    y, *_ = check(target, dtype, "conv2d", given={"x": x, "w": w}, **sizes)
    assert np.isfinite(y[0, ..., :3]).all() and np.isfinite(y[0, ..., 4]).all()


def test_relu_keeps_nan_and_clips_infinity(target, dtype):
    x = np.array([NAN, INF, -INF, -2, -0.0, 3], dtype).reshape(1, 1, 6, 1)
    y = kernels.conv2d(target.array(x), target.array(np.ones((1, 1, 1, 1), dtype)), relu=True)
    np.testing.assert_array_equal(numbers(y).ravel(), [NAN, INF, 0, 0, 0, 3])


def test_the_filter_gradient_of_many_rows_keeps_its_precision(target):
    # 66049 products of equal sign: one float32 sum would be off by a hundred ulp.
    given = {"x": np.full((1, 257, 257, 1), 1.1), "dy": np.full((1, 257, 257, 2), 1.7)}
    sizes = {"N": 1, "H": 257, "W": 257, "C": 1, "F": 2, "K": 1}
    check(target, FLOAT32, "conv2d_backward", given=given, **sizes)


def test_a_window_that_reaches_over_two_to_the_31_elements(target):
    """From far in the padding to the image."""
    options = {"padding": ((5000, 0), (0, 0)), "dilation": (5000, 1)}
    sizes = {"N": 1, "H": 1, "W": 1000, "C": 1000, "F": 2, "K": (2, 1)}
    for name in ("conv2d", "conv2d_backward"):
        check(target, FLOAT32, name, **sizes, **options)


def test_a_row_with_padding_of_over_two_to_the_31_elements_is_refused(target):
    x, w = np.ones((1, 1, 1, 4096), np.float32), np.ones((1, 1, 1, 4096), np.float32)
    with pytest.raises(ValueError, match="x: elements of a padded row: got 8589938688"):
        kernels.conv2d(target.array(x), target.array(w), padding=(0, 2**20), stride=2**20)


def test_a_gradient_whose_padded_row_has_over_two_to_the_31_elements(target):
    # The filters' two taps lie so far apart that the pixel is under neither.
    options = {"padding": ((0, 0), (2**19, 2**19)), "dilation": (1, 2**20)}
    sizes = {"N": 1, "H": 1, "W": 1, "C": 1, "F": 8192, "K": (1, 2)}
    check(target, FLOAT32, "conv2d_backward", **sizes, **options)
