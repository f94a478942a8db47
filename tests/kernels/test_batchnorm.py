"""Tests of batch normalisation and its gradient."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import kernels
from tests.cases.check import check
from tests.lib import comparison, reference, support
from tests.lib.support import RTOL, host, normal, numbers


def parameters(C, dtype, seed=10):
    """Return gamma, beta, running mean and running variance; no mean near 0, where it cancels."""
    gamma, beta, mean, var = (normal(seed + i, C, dtype=dtype) for i in range(4))
    return gamma, beta, 1 + abs(mean), 1 + abs(var)


@hypothesis.given(
    axes=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    C=st.sampled_from([1, 3, 8, 9]),
    training=st.booleans(),
    relu=st.booleans(),
    momentum=st.sampled_from([0, 0.1, 0.5, 1]),
    eps=st.sampled_from([1e-5, 1e-3, 0.1]),
)
def test_equals_the_oracle(target, dtype, axes, C, training, relu, momentum, eps):
    # At least three rows: with two, dx is what rounding leaves of it.
    sizes = {"N": (3, *axes), "C": C, "training": training, "relu": relu, "eps": eps}
    check(target, dtype, "batch_norm", **sizes, momentum=momentum)
    check(target, dtype, "batch_norm_backward", **sizes)


def test_a_large_mean_survives(target):
    # In float32, E[x^2] - E[x]^2 of a mean of 1e4 keeps no digit of a variance of 1.
    x = (normal(0, 64, 14, 14, 9) + 1e4).astype(np.float32)
    gamma, beta, mean, var = parameters(9, x.dtype)
    y, saved = kernels.batch_norm(*map(target.array, (x, gamma, beta, mean, var)), training=True)
    mean, deviation = (f(x, axis=(0, 1, 2), dtype=np.float64) for f in (np.mean, np.std))
    assert abs(host(saved.mean) - mean).max() < 1.1 * np.spacing(np.float32(1e4))
    comparison.assert_close(1 / host(saved.inv_std), deviation, rtol=RTOL["float32"])
    exact = reference.batch_norm(x, gamma, beta, mean, var, training=True)[0]
    # What the mean is off by, a thousandth of a deviation, the result is off by too.
    comparison.assert_close(y, exact, rtol=1e-3)


def test_running_statistics_are_any_arrays_where_they_are_only_read(target, dtype):
    x, (gamma, beta, mean, var) = normal(0, 50, 3, dtype=dtype), parameters(3, dtype)
    arrays = [target.array(array) for array in (x, gamma, beta)]
    expected, _ = kernels.batch_norm(*arrays, *map(target.array, (mean, var)), training=False)
    apart = target.array(np.stack([mean, var], axis=1))  # as views, neither is contiguous
    if target.name == "cpu":  # CuPy writes to all arrays
        apart.flags.writeable = False
    y, _ = kernels.batch_norm(*arrays, apart[:, 0], apart[:, 1], training=False)
    np.testing.assert_array_equal(host(y), host(expected))


@pytest.mark.parametrize("momentum", [0, 1])
def test_momentum_at_its_limits(target, dtype, momentum):
    x = normal(0, 50, 3, dtype=dtype)
    gamma, beta, mean, var = parameters(3, dtype)
    moved = [target.array(mean.copy()), target.array(var.copy())]
    arrays = [target.array(array) for array in (x, gamma, beta)]
    kernels.batch_norm(*arrays, *moved, training=True, momentum=momentum)
    batch = x.mean(axis=0, dtype=float), x.var(axis=0, ddof=1, dtype=float)
    for running, expected in zip(moved, batch if momentum else (mean, var), strict=True):
        comparison.assert_close(running, expected, rtol=RTOL[dtype.name] if momentum else 0)


@pytest.mark.parametrize("shape", [(0, 3), (0, 5, 5, 3), (4, 0, 5, 3)])
def test_an_empty_batch_moves_nothing(target, dtype, shape):
    gamma, beta, mean, var = parameters(3, dtype)
    arrays = [target.array(array) for array in (np.empty(shape, dtype), gamma, beta)]
    running = [target.array(mean.copy()), target.array(var.copy())]
    y, saved = kernels.batch_norm(*arrays, *running, training=True)
    assert y.shape == shape
    np.testing.assert_array_equal(host(running[0]), mean)
    np.testing.assert_array_equal(host(running[1]), var)
    dx, dgamma, dbeta = kernels.batch_norm_backward(arrays[0], *arrays[:2], saved)
    assert dx.shape == shape
    assert host(dgamma).tolist() == host(dbeta).tolist() == [0, 0, 0]


@pytest.mark.parametrize("shape", [(1, 9), (1, 1, 1, 9)])
def test_one_value_per_channel_is_nothing_to_train_on(target, dtype, shape):
    given = normal(0, *shape, dtype=dtype), *parameters(9, dtype)
    arrays = [target.array(array.copy()) for array in given]
    expected = f"x: got shape {shape}, expected more than one value per channel to train on"
    with pytest.raises(ValueError) as raised:
        kernels.batch_norm(*arrays, training=True)
    assert str(raised.value) == expected
    for array, before in zip(arrays, given, strict=True):
        np.testing.assert_array_equal(host(array), before)


def test_one_image_of_two_pixels(target, dtype):
    x = np.array([[1, 5], [4, 3]], dtype).reshape(1, 2, 1, 2)
    arrays = [np.ones(2, dtype), np.zeros(2, dtype), np.zeros(2, dtype), np.zeros(2, dtype)]
    moved = [target.array(array) for array in arrays]
    y, _ = kernels.batch_norm(target.array(x), *moved, training=True, momentum=1, eps=0)
    # Each value is one deviation off the mean; the unbiased variance is twice the biased one.
    comparison.assert_close(y, [[[[-1, 1]], [[1, -1]]]], rtol=RTOL[dtype.name])
    comparison.assert_close(moved[2], [2.5, 4], rtol=RTOL[dtype.name])
    comparison.assert_close(moved[3], [4.5, 2], rtol=RTOL[dtype.name])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_special_value_spoils_its_channel_alone(target, dtype, value):
    x = normal(0, 1500, 9, dtype=dtype)
    x[1200, 4] = value
    y, _ = kernels.batch_norm(*map(target.array, (x, *parameters(9, dtype))), training=True)
    finite = np.isfinite(host(y))
    assert not finite[:, 4].any() and np.delete(finite, 4, axis=1).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_variance_that_no_number_holds_is_infinite(target, dtype):
    # As in PyTorch: values are finite, so that none is NaN, but the squares of deviations are not;
    # nor, of the larger values, the sum of a few deviations.
    largest = float(np.finfo(dtype).max)
    for scale in (16 * largest**0.5, largest / 4):
        x = np.tanh(normal(0, 1500, 9, dtype=dtype))
        x[:, 4] *= scale
        gamma, beta, *running = map(target.array, parameters(9, dtype))
        y, saved = kernels.batch_norm(target.array(x), gamma, beta, *running, training=True)
        mean = x.mean(axis=0, dtype=np.longdouble)  # whose sum is finite
        comparison.assert_close(saved.mean, mean, rtol=RTOL[dtype])
        running_var = host(running[1])
        assert running_var[4] == np.inf and np.isfinite(np.delete(running_var, 4)).all()
        np.testing.assert_array_equal(host(y)[:, 4], host(beta)[4])


def test_relu_clips_and_its_gradient_stops(target, dtype):
    x = np.array([[-1], [1], [np.nan]], dtype)
    one, zero = np.ones(1, dtype), np.zeros(1, dtype)
    arrays = [target.array(array) for array in (x, one, zero, zero.copy(), one.copy())]
    y, saved = kernels.batch_norm(*arrays, training=False, relu=True, eps=0)
    np.testing.assert_array_equal(numbers(y), [[0], [1], [np.nan]])
    dy = target.array(np.ones((3, 1), dtype))
    dx, _, dbeta = kernels.batch_norm_backward(dy, *arrays[:2], saved, relu=True, y=y)
    assert host(dx).ravel().tolist() == [0, 1, 1] and host(dbeta).tolist() == [2]


@pytest.mark.parametrize("dtype", support.NARROW)
def test_running_statistics_may_be_float32(cuda, dtype):
    """They change by amounts that 16 bits would round away; they are used as they are."""
    x, gamma, beta = 3 * normal(0, 40, 5), normal(1, 5), normal(2, 5)
    mean, var = np.full(5, 100.0), np.full(5, 100.0)
    arrays = [cuda.array(array, dtype) for array in (x, gamma, beta)]
    running = [cuda.array(array, np.float32) for array in (mean, var)]
    kernels.batch_norm(*arrays, *running, training=True, momentum=1e-4)
    arrays64 = [host(array).astype(np.float64) for array in arrays]
    expected = reference.batch_norm(*arrays64, mean, var, training=True, momentum=1e-4)
    for found, value in zip(running, expected[1:], strict=True):
        assert (host(found) != 100).all()
        np.testing.assert_allclose(host(found), value, rtol=1e-6)
    y, _ = kernels.batch_norm(*arrays, *running, training=False)
    used = [host(array).astype(np.float64) for array in running]
    expected = reference.batch_norm(*arrays64, *used, training=False)[0]
    comparison.assert_close(y, expected, rtol=RTOL[dtype])


def test_running_statistics_of_other_types_are_refused(cuda):
    x, gamma, beta = (cuda.array(normal(0, *shape), "float16") for shape in ((4, 3), (3,), (3,)))
    narrow, wide, double = (
        cuda.array(np.ones(3), dtype) for dtype in ("float16", "float32", "float64")
    )
    for mean, var, message in (
        (double, double, "running_mean: got float64, expected float16 like x"),
        (narrow, wide, "running_var: got float32, expected float16 like x"),
        (wide, narrow, "running_var: got float16, expected float32 like running_mean"),
        (wide, np.ones(3, np.float32), "running_var: is on cpu, expected cuda:0 like running_mean"),
    ):
        with pytest.raises((TypeError, ValueError), match=f"^{message}$"):
            kernels.batch_norm(x, gamma, beta, mean, var, training=False)
