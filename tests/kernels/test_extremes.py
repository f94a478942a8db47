"""Values at the ends of float16's range: sums are wider, so that only results need to fit.

Runs of terms of one sign add up to far more than 65504 before those of the other sign come; a sum
in float16 would be infinite, one in bfloat16 would lose what is small beside it.
"""

import numpy as np
import pytest

import kernels
from tests.lib import reference
from tests.lib.comparison import assert_close
from tests.lib.support import RTOL, host, normal

#: Near the largest number of float16, and a few of its smallest.
SCALES = [6e4, 2.0**-22]


def runs(*shape, scale=1.0, axis=0):
    """Return values whose sign changes once, halfway along an axis; the first ones are halved."""
    values = np.full(shape, scale)
    along = np.moveaxis(values, axis, 0)
    along[len(along) // 2 :] *= -1
    along[0] *= 0.5
    return values


def check(target, function, oracle, *arrays, **options):
    """Compare a function with its oracle, result by result, each rounded to the arrays' type."""
    dtype = arrays[0].dtype
    found = function(*map(target.array, arrays), **options)
    expected = oracle(*arrays, **options)
    if not isinstance(found, tuple):
        found, expected = (found,), (expected,)
    for array, exact in zip(found, expected, strict=True):
        with np.errstate(over="ignore"):
            rounded = exact.astype(dtype)
        assert np.isfinite(rounded).any()
        assert_close(array, rounded, rtol=RTOL[dtype.name])


@pytest.mark.parametrize("scale", SCALES)
def test_a_convolution_and_its_gradients(target, dtype, scale):
    x = runs(2, 6, 6, 64, scale=scale, axis=3).astype(dtype)
    w = np.full((5, 3, 3, 64), 0.125, dtype)
    check(target, kernels.conv2d, reference.conv2d, x, w, padding=1)
    # One image has all gradients of a sign, the other those of the other sign.
    dy = np.full((2, 6, 6, 4), scale)
    dy[1] *= -1
    dy[0, 2, 3] *= 0.5
    x, w = np.ones((2, 6, 6, 3), dtype), (runs(4, 3, 3, 3) / 32).astype(dtype)
    check(
        target,
        kernels.conv2d_backward,
        reference.conv2d_backward,
        *(dy.astype(dtype), x, w),
        padding=1,
    )


@pytest.mark.parametrize("scale", SCALES)
def test_a_dense_layer_and_its_gradients(target, dtype, scale):
    x, w = runs(300, 320, scale=scale, axis=1).astype(dtype), np.ones((10, 320), dtype)
    check(target, kernels.dense, lambda x, w: reference.dense(x, w.T), x, w)

    def gradients(dy, x, w):
        dx, dw, db = reference.dense_backward(dy, x, w.T)
        return dx, dw.T, db

    dy = (runs(300, 10, scale=scale) * np.array([1, 0, 0, 0, 0, -1, 0, 0, 0, 0])).astype(dtype)
    check(target, kernels.dense_backward, gradients, dy, np.ones((300, 320), dtype), w)


@pytest.mark.parametrize("scale", SCALES)
def test_averages(target, dtype, scale):
    x = (scale * (1 - 0.1 * abs(np.tanh(normal(0, 2, 9, 8, 3))))).astype(dtype)
    options = {"stride": 2, "padding": 1}
    check(target, kernels.avg_pool2d, reference.avg_pool2d, x, kernel=3, **options)
    check(target, kernels.global_avg_pool2d, reference.global_avg_pool2d, x)


@pytest.mark.parametrize("scale", SCALES)
def test_overlapping_windows_added_up(target, dtype, scale):
    cols = np.full((2, 4, 4, 27), scale)
    cols[:, 2:] *= -1  # of the lower two rows of windows
    cols = cols.reshape(32, 27).astype(dtype)
    options = {"x_shape": (2, 6, 6, 3), "kernel": 3}
    check(target, kernels.col2im, reference.col2im, cols, **options)


@pytest.mark.parametrize("scale", SCALES)
def test_a_batch_norm_whose_variance_no_float16_holds(target, dtype, scale):
    x, dy = (scale * np.tanh(normal(0, 300, 5))).astype(dtype), normal(1, 300, 5, dtype=dtype)
    gamma, beta = np.full(5, scale / 4, dtype), np.zeros(5, dtype)
    running = [target.array(np.zeros(5, dtype)) for _ in range(2)]
    # Without momentum, or the running variance, which is of x's type, would be infinite.
    options = {"training": True, "momentum": 0, "eps": 0}
    y, saved = kernels.batch_norm(*map(target.array, (x, gamma, beta)), *running, **options)
    expected, *_ = reference.batch_norm(x, gamma, beta, beta, beta, training=True, eps=0)
    assert_close(y, expected.astype(dtype), rtol=RTOL[dtype.name])
    assert saved.mean.dtype == saved.inv_std.dtype == ("f8" if dtype == "f8" else "f4")
    found = kernels.batch_norm_backward(*map(target.array, (dy, x, gamma)), saved)
    exact = reference.batch_norm_backward(dy, x, gamma, beta, training=True, eps=0)
    for gradient, wanted in zip(found, exact, strict=True):
        rtol = 10 * RTOL[dtype.name]  # as in test_batchnorm.py
        assert_close(gradient, wanted.astype(dtype), rtol=rtol)


@pytest.mark.parametrize("scale", SCALES)
def test_maxima_and_what_is_copied_keep_every_bit(target, dtype, scale):
    x = (scale * np.tanh(normal(0, 2, 5, 6, 3))).astype(dtype)
    x[0, 0, :2, 0] = 0.0, -0.0  # equal: the first is the maximum, where all others are below
    x[0, 1, :2, 0] = -scale
    y, argmax = kernels.max_pool2d(target.array(x), 2)
    expected, places = reference.max_pool2d(x, 2)
    np.testing.assert_array_equal(host(argmax), places)
    assert host(y).tobytes() == expected.astype(dtype).tobytes()
    for function in (kernels.relu, lambda x: kernels.im2col(x, 1)):
        copied = host(function(target.array(abs(x))))
        assert copied.tobytes() == abs(x).tobytes()


@pytest.mark.parametrize("scale", [6e4, 3e4])
def test_a_loss_of_large_logits(target, dtype, scale):
    logits = (scale * np.tanh(normal(0, 40, 10))).astype(dtype)
    labels = np.array([np.argmax(row.astype(float)) for row in logits])
    labels[0] = (labels[0] + 1) % 10  # the others cost nothing, so that the mean fits
    options = {"label_smoothing": 0.0}
    loss, gradient = kernels.softmax_cross_entropy(
        target.array(logits), target.array(labels), **options
    )
    exact, wanted = reference.softmax_cross_entropy(logits, labels, **options)
    assert_close(loss, exact, rtol=RTOL[dtype.name])
    assert_close(gradient, wanted, rtol=RTOL[dtype.name])
    y = kernels.softmax(target.array(logits))
    assert_close(y, reference.softmax(logits), rtol=RTOL[dtype.name])
