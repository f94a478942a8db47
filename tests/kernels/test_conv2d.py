"""Tests of the convolution and its gradients."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import kernels
from tests.lib import comparison, reference, support
from tests.lib.support import RTOL, host, normal, numbers

NAN, INF = np.nan, np.inf

# Every parameter differs between the axes and sides, so that none can be mixed up.
UNEVEN = {"stride": (1, 2), "padding": ((2, 1), (0, 3)), "dilation": (2, 1)}


def check_forward(target, x, w, b=None, **options):
    """Compare conv2d with the oracle and return the shape of the result."""
    arrays = [None if array is None else target.array(array) for array in (x, w, b)]
    y = kernels.conv2d(*arrays, **options)
    assert y.dtype == x.dtype
    comparison.assert_close(y, reference.conv2d(x, w, b, **options), rtol=RTOL[x.dtype.name])
    return y.shape


def check_backward(target, dy, x, w, **options):
    """Compare conv2d_backward with the oracle."""
    gradients = kernels.conv2d_backward(*map(target.array, (dy, x, w)), **options)
    expected = reference.conv2d_backward(dy, x, w, **options)
    for gradient, reference_gradient in zip(gradients, expected, strict=True):
        assert gradient.dtype == x.dtype
        comparison.assert_close(gradient, reference_gradient, rtol=RTOL[x.dtype.name])


@hypothesis.given(
    drawn=support.windows(),
    N=st.integers(0, 3),
    groups=st.integers(1, 3),
    channels=st.sampled_from([1, 2, 8, 9]),
    filters=st.sampled_from([1, 3, 8, 17]),
    bias=st.booleans(),
    relu=st.booleans(),
)
@hypothesis.settings(max_examples=100)
def test_equals_the_oracle(target, dtype, drawn, N, groups, channels, filters, bias, relu):
    (H, W), kernel, options = drawn
    options["groups"] = groups
    KH, KW = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    x = normal(0, N, H, W, groups * channels, dtype=dtype)
    w = normal(1, groups * filters, KH, KW, channels, dtype=dtype)
    b = normal(2, groups * filters, dtype=dtype) if bias else None
    shape = check_forward(target, x, w, b, relu=relu, **options)
    check_backward(target, normal(3, *shape, dtype=dtype), x, w, **options)


# On cpu a block has 256 rows and packs 96 filters x 1024 of k; on cuda its tile is 64 x 64 x 16.
@pytest.mark.parametrize(
    "x_shape, w_shape, options",
    [
        ((1, 1, 1, 1), (1, 1, 1, 1), {}),  # one pixel, one product
        ((1, 1, 1, 2), (3, 3, 3, 2), {"padding": 1}),  # eight taps of nine in the padding
        ((0, 5, 5, 3), (4, 3, 3, 3), {}),  # an empty batch
        ((2, 0, 4, 3), (4, 2, 2, 3), {"padding": 1}),  # images without a pixel, padded
        ((1, 15, 17, 255), (63, 1, 1, 255), {}),  # one less than a tile of rows, filters and k
        ((1, 16, 16, 4), (64, 8, 8, 4), {"padding": "same"}),  # exactly one tile of each
        ((1, 1, 257, 257), (65, 1, 1, 257), {}),  # one more: a tile of one row, column and k
        ((1, 4, 5, 1025), (97, 1, 1, 1025), {}),  # one more than is packed
        ((2, 19, 23, 67), (13, 3, 3, 67), {"padding": 1}),  # primes; k of 603 takes three steps
        ((3, 7, 5, 33), (66, 3, 3, 1), {"groups": 33}),  # depthwise, two filters a channel
        ((2, 6, 6, 16), (16, 3, 3, 8), {"groups": 2, "padding": 1}),  # whole registers by group
        ((5, 13, 11, 24), (9, 2, 3, 24), {"stride": (2, 3)}),  # pixels that no window covers
        ((2, 4, 4, 3), (2, 2, 2, 3), {"stride": 2**31 - 1}),  # a stride at the limit of an int
        ((1, 9, 9, 3), (2, 3, 3, 3), {"dilation": 4}),  # the window just fits
        ((1, 2, 3, 3), (2, 2, 2, 3), {"padding": 9, "dilation": 7}),  # mostly padding
        ((3, 19, 17, 1), (24, 5, 5, 1), {"padding": ((2, 1), (0, 3))}),  # one channel: by taps
        ((2, 23, 29, 1), (33, 4, 3, 1), {"stride": (2, 3), "dilation": (1, 2), "padding": 3}),
        ((2, 11, 13, 1), (99, 3, 3, 1), {}),  # more filters than are packed, by few taps
        ((1, 35, 33, 1), (3, 34, 31, 1), {}),  # more taps than are packed, in short runs
        ((1, 1, 4353, 1), (1, 1, 1, 1), {}),  # a split that ends with one row past a band of 256
        ((2, 129, 128, 1), (2, 1, 1, 1), {}),  # over 128 steps of rows: splits of two steps each
    ],
)
def test_shapes(target, dtype, x_shape, w_shape, options):
    x, w, b = (
        normal(i, *shape, dtype=dtype) for i, shape in enumerate([x_shape, w_shape, w_shape[:1]])
    )
    shape = check_forward(target, x, w, b, **options)
    check_backward(target, normal(3, *shape, dtype=dtype), x, w, **options)


@pytest.mark.parametrize("channels", support.CHANNELS)
@pytest.mark.parametrize("filters", support.CHANNELS)
def test_channel_counts(target, dtype, channels, filters):
    x, w = (
        normal(0, 2, 5, 4, channels, dtype=dtype),
        normal(1, filters, 3, 2, channels, dtype=dtype),
    )
    shape = check_forward(target, x, w, normal(2, filters, dtype=dtype), **UNEVEN)
    check_backward(target, normal(3, *shape, dtype=dtype), x, w, **UNEVEN)


@pytest.mark.parametrize("groups", [1, 2])
def test_gradients_equal_finite_differences(target, groups):
    options = {"groups": groups, **UNEVEN}
    x, w, b = normal(0, 2, 3, 4, 4), normal(1, 2, 2, 3, 4 // groups), normal(2, 2)

    def y(x, w, b):
        return host(kernels.conv2d(*map(target.array, (x, w, b)), **options))

    dy = normal(3, *y(x, w, b).shape)
    dx, dw, db = kernels.conv2d_backward(*map(target.array, (dy, x, w)), **options)
    for gradient, f, at in [
        (dx, lambda x: (dy * y(x, w, b)).sum(), x),
        (dw, lambda w: (dy * y(x, w, b)).sum(), w),
        (db, lambda b: (dy * y(x, w, b)).sum(), b),
    ]:
        comparison.assert_close(gradient, reference.finite_difference(f, at), rtol=1e-7)


def test_equals_im2col_times_the_filters(target):
    x, w = normal(0, 3, 7, 6, 5), normal(1, 4, 2, 3, 5)
    y = host(kernels.conv2d(target.array(x), target.array(w), **UNEVEN))
    cols = host(kernels.im2col(target.array(x), (2, 3), **UNEVEN))
    comparison.assert_close(y, (cols @ w.reshape(4, -1).T).reshape(y.shape), rtol=1e-13)


def test_what_is_not_needed_is_spared_alone(target, dtype):
    x, w, dy = normal(0, 2, 5, 5, 3), normal(1, 4, 3, 3, 3), normal(2, 2, 3, 3, 4)
    arrays = [target.array(array.astype(dtype)) for array in (dy, x, w)]
    expected = kernels.conv2d_backward(*arrays)
    for option, place in (("need_dx", 0), ("need_db", 2)):
        found = kernels.conv2d_backward(*arrays, **{option: False})
        assert found[place] is None
        for other in {0, 1, 2} - {place}:
            np.testing.assert_array_equal(host(found[other]), host(expected[other]))


def test_an_empty_batch_has_gradients_of_zero(target, dtype):
    x, w = normal(0, 0, 5, 5, 3, dtype=dtype), normal(1, 4, 3, 3, 3, dtype=dtype)
    dy = normal(2, 0, 3, 3, 4, dtype=dtype)
    dx, dw, db = kernels.conv2d_backward(*map(target.array, (dy, x, w)))
    assert dx.shape == x.shape
    assert not host(dw).any() and dw.shape == w.shape
    assert not host(db).any() and db.shape == (4,)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@np.errstate(invalid="ignore")  # in the oracle
def test_a_special_value_reaches_its_windows_alone(target, dtype, value):
    x, w = normal(0, 2, 6, 7, 3, dtype=dtype), normal(1, 5, 3, 3, 3, dtype=dtype)
    dy = normal(2, 2, 6, 7, 5, dtype=dtype)
    x[1, 2, 3, 1] = value
    dy[0, 0, 6, 2] = value
    check_forward(target, x, w, padding=1)
    check_backward(target, dy, x, w, padding=1)
    w[3, 1, 1, 2] = value
    check_forward(target, x, w)
    y = host(kernels.conv2d(target.array(x), target.array(w)))
    assert np.isfinite(y[0, ..., :3]).all() and np.isfinite(y[0, ..., 4]).all()


def test_relu_keeps_nan_and_clips_infinity(target, dtype):
    x = np.array([NAN, INF, -INF, -2, -0.0, 3], dtype).reshape(1, 1, 6, 1)
    y = kernels.conv2d(target.array(x), target.array(np.ones((1, 1, 1, 1), dtype)), relu=True)
    np.testing.assert_array_equal(numbers(y).ravel(), [NAN, INF, 0, 0, 0, 3])


def test_the_filter_gradient_of_many_rows_keeps_its_precision(target):
    # 66049 products of equal sign: one float32 sum would be off by a hundred ulp.
    x = np.full((1, 257, 257, 1), 1.1, np.float32)
    dy, w = np.full((1, 257, 257, 2), 1.7, np.float32), np.ones((2, 1, 1, 1), np.float32)
    check_backward(target, dy, x, w)


def test_the_stride_of_a_single_window_may_be_of_any_length(target):
    x, w, dy = (
        normal(i, *shape, dtype="float32")
        for i, shape in enumerate([(40, 3, 3, 4), (8, 3, 3, 4), (40, 1, 1, 8)])
    )
    check_backward(target, dy, x, w, stride=(2**30, 2**31 - 1))


def test_a_row_with_padding_of_over_two_to_the_31_elements_is_refused(target):
    x, w = np.ones((1, 1, 1, 4096), np.float32), np.ones((1, 1, 1, 4096), np.float32)
    with pytest.raises(ValueError, match="x: elements of a padded row: got 8589938688"):
        kernels.conv2d(target.array(x), target.array(w), padding=(0, 2**20), stride=2**20)


def test_a_gradient_whose_padded_row_has_over_two_to_the_31_elements(target):
    # The filters' two taps lie so far apart that the pixel is under neither.
    options = {"padding": ((0, 0), (2**19, 2**19)), "dilation": (1, 2**20)}
    x, w, dy = (
        np.ones(shape, np.float32) for shape in [(1, 1, 1, 1), (8192, 1, 2, 1), (1, 1, 1, 8192)]
    )
    check_backward(target, dy, x, w, **options)
