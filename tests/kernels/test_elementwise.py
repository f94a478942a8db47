"""Tests of ReLU, image normalisation, SGD and Adam."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import kernels
from kernels.runtime import Source
from kernels.runtime.elementwise import Elementwise
from tests.cases.check import check
from tests.lib import comparison
from tests.lib.support import RTOL, host, normal, numbers

NAN, INF = np.nan, np.inf


def test_relu_of_special_values(target, dtype):
    x = target.array(np.array([NAN, INF, -INF, -0.0, 0.0, -1, 1], dtype))
    y = kernels.relu(x)
    np.testing.assert_array_equal(numbers(y), [NAN, INF, 0, 0, 0, 0, 1])
    dx = kernels.relu_backward(target.array(np.full(7, 5, dtype)), y)
    assert host(dx).tolist() == [5, 5, 0, 0, 0, 0, 5]
    # A NaN that comes down is stopped where the output is 0, and passed on elsewhere.
    dx = kernels.relu_backward(target.array(np.full(7, NAN, dtype)), y)
    np.testing.assert_array_equal(numbers(dx), [NAN, NAN, 0, 0, 0, 0, NAN])


def test_kernels_of_one_name_are_two(target, monkeypatch):
    monkeypatch.setattr(Source, "all", list(Source.all))  # these are not shipped
    x = target.array(np.array([1, 2, 3], np.float32))
    for factor in (2, 3):
        multiplied = Elementwise("multiplied", "T x", "T y", f"x * T({factor})", new=True)
        y = target.empty((3,), np.float32)
        multiplied(target, x.dtype, x, y)
        assert host(y).tolist() == [factor, 2 * factor, 3 * factor]


@pytest.mark.parametrize("shift", [0, 1, 3])
@pytest.mark.parametrize("size", [0, 1, 3, 4, 8, 19, 32, 1031])
def test_views_at_any_address_and_of_any_size(target, dtype, size, shift):
    flat = target.array(np.full(1100, -1, dtype))
    x = target.array(normal(0, 1100, dtype=dtype))
    kernels.sgd_step(flat[shift:][:size], x[8 - shift :][:size], lr=1)  # reads and writes
    moved = -1 - numbers(x)[8 - shift :][:size].astype(np.float64)
    expected = np.concatenate([np.full(shift, -1), moved, np.full(1100 - shift - size, -1)])
    comparison.assert_close(flat, expected, rtol=RTOL[np.dtype(dtype).name])
    y = kernels.relu(x[shift:][:size])  # writes alone
    np.testing.assert_array_equal(numbers(y), np.maximum(numbers(x)[shift:][:size], 0))


def test_normalize(target, dtype, pixel_type):
    images = (100 * abs(normal(0, 3, 31, 97))).clip(0, 255).astype(pixel_type)
    y = kernels.normalize(target.array(images), 33.3, 78.5, dtype)
    assert y.dtype == dtype
    comparison.assert_close(y, (images.astype(float) - 33.3) / 78.5, rtol=RTOL[dtype.name])


sgd_options = st.fixed_dictionaries(
    {
        "lr": st.sampled_from([0, 0.01, 0.5]),
        "momentum": st.sampled_from([0, 0.5, 0.9]),
        "nesterov": st.booleans(),
        "weight_decay": st.sampled_from([0, 0.01]),
    }
)


@hypothesis.given(options=sgd_options)
def test_sgd_equals_the_oracle(target, dtype, options):
    options["nesterov"] &= bool(options["momentum"])
    check(target, dtype, "sgd_step", count=(5, 3), **options)


def test_sgd_without_momentum_leaves_the_velocity_alone(target, dtype):
    param, grad, velocity = (target.array(normal(i, 9, dtype=dtype)) for i in range(3))
    before = host(velocity).copy()
    kernels.sgd_step(param, grad, velocity, lr=0.1)
    np.testing.assert_array_equal(host(velocity), before)


adam_options = st.fixed_dictionaries(
    {
        "lr": st.sampled_from([0, 1e-3, 0.1]),
        "betas": st.sampled_from([(0.9, 0.999), (0, 0.99), (0.5, 0)]),
        "eps": st.sampled_from([1e-8, 0.1]),
        "weight_decay": st.sampled_from([0, 0.01]),
        "decoupled": st.booleans(),
    }
)


@hypothesis.given(options=adam_options, step=st.sampled_from([1, 2, 1000, 2**31 - 8]))
def test_adam_equals_the_oracle(target, dtype, options, step):
    check(target, dtype, "adam_step", count=(5, 3), step=step, **options)


def test_adam_takes_one_minus_beta_exactly(target):
    # In float32, 1 - 0.999f is 1.3e-5 off, and v with it.
    arrays = [target.array(np.full(3, value, np.float32)) for value in (1, 1, 0, 0)]
    kernels.adam_step(*arrays, step=1, lr=0.1)
    np.testing.assert_allclose(host(arrays[3]), 0.001, rtol=1e-7)


def test_steps_update_views_where_they_are(target, dtype):
    # Parameters of a model are views of one flat buffer; neighbours must not move.
    flat = target.array(np.ones(30, dtype))
    grad = target.array(np.ones((2, 5), dtype))
    kernels.sgd_step(flat[10:20].reshape(2, 5), grad, lr=0.5)
    assert host(flat).tolist() == [1] * 10 + [0.5] * 10 + [1] * 10


@pytest.mark.parametrize("value", [NAN, INF])
def test_a_special_gradient_spoils_its_element_alone(target, dtype, value):
    param, grad, m, v = (np.zeros(20, dtype) for _ in range(4))
    grad[11] = value
    arrays = [target.array(array) for array in (param, grad, m, v)]
    kernels.adam_step(*arrays, step=1, lr=0.1)
    for array in (arrays[0], *arrays[2:]):
        assert np.flatnonzero(~np.isfinite(host(array))).tolist() == [11]
