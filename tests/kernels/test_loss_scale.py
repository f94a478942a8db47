"""Loss scaling: the state on the device against a model in Python, and the steps it leaves out."""

import ml_dtypes
import numpy as np
import pytest

import kernels
from kernels import lowlevel
from kernels.common.reduce import accumulator
from kernels.runtime.elementwise import Table
from kernels.step import loss_scale
from kernels.step.optimizers import adam_scalars, adam_update, sgd_scalars, sgd_update
from tests.lib import comparison
from tests.lib.support import NARROW, RTOL, host, normal

FLOAT = np.dtype(np.float32)
BAD = [np.nan, np.inf, -np.inf]


def oracle(state, overflow, growth, backoff, interval):
    """Return the next {scale, unscale, steps}."""
    scale, _, steps = state
    if overflow:
        return [max(scale * backoff, 1), 0, 0]
    if steps + 1 == interval:
        return [min(scale * growth, 2**24), 1 / scale, 0]
    return [scale, 1 / scale, steps + 1]


@pytest.mark.parametrize(
    ("scale", "options"),
    [
        (2.0**16, {"growth": 2.0, "backoff": 0.5, "interval": 3}),
        (1.0, {"growth": 4.0, "backoff": 0.25, "interval": 1}),  # from the least, at every step
        (2.0**23, {"growth": 2.0, "backoff": 0.5, "interval": 1}),  # to the most
        (2.0**10, {"growth": 1.0, "backoff": 1.0, "interval": 2}),  # a constant
    ],
)
def test_the_scale_follows_the_rule(target, dtype, scale, options):
    rng = np.random.default_rng(0)
    state = loss_scale.new_state(target, dtype, scale)
    expected = host(state).tolist()
    for step in range(30):
        overflow = step % 7 > 3 and rng.random() < 0.6
        grad = normal(step, 1000, dtype=dtype)
        if overflow:
            grad[rng.integers(1000)] = rng.choice(BAD)
        unscale = loss_scale.update(target.array(grad), state, **options)
        expected = oracle(expected, overflow, **options)
        assert host(state).tolist() == expected
        assert host(unscale).tolist() == expected[1:2]


# A block takes 256 elements at a time on cuda, 8192 on cpu.
@pytest.mark.parametrize("count", [1, 2, 255, 257, 1025, 8193, 20_000])
@pytest.mark.parametrize("value", BAD)
def test_an_overflow_anywhere_is_found(target, dtype, count, value):
    for place in {0, count // 2, count - 1}:
        grad = np.full(count, ml_dtypes.finfo(dtype).max, dtype)  # finite, however large
        state = loss_scale.new_state(target, dtype)
        assert host(loss_scale.update(target.array(grad), state)) == 2.0**-16
        grad[place] = value
        assert host(loss_scale.update(target.array(grad), state)) == 0


def test_no_gradient_has_no_overflow(target, dtype):
    state = loss_scale.new_state(target, dtype)
    loss_scale.update(target.empty((0,), dtype), state)
    assert host(state).tolist() == [2.0**16, 2.0**-16, 1]


def test_the_loss_gradient_is_scaled(target, dtype):
    gradient = target.array(normal(0, 37, 10, dtype=dtype))
    expected = host(gradient) * 2.0**10  # which float16 holds
    loss_scale.scale_gradient(gradient, loss_scale.new_state(target, dtype, 2.0**10))
    np.testing.assert_array_equal(host(gradient), expected)


STEPS = {
    "sgd": lambda t, p, g, m, v, u: sgd_update(
        t(sgd_scalars(0.1, weight_decay=0.01)), p, g, None, u
    ),
    "momentum": lambda t, p, g, m, v, u: sgd_update(t(sgd_scalars(0.1, 0.9, True)), p, g, m, u),
    "adam": lambda t, p, g, m, v, u: adam_update(
        t(adam_scalars(3, 0.1, weight_decay=0.1)), p, g, m, v, u
    ),
}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("planned", [False, True])  # its numbers from a table on the device
def test_a_scaled_step_is_the_step(target, dtype, name, planned):
    def numbers(scalars):
        if not planned:
            return scalars
        rows = target.array(np.array([scalars], accumulator(dtype)))
        return Table(rows, target.zeros((1,), np.int64))

    arrays = [abs(normal(i, 1000, dtype=dtype)) for i in range(4)]
    plain, scaled, kept = ([target.array(array.copy()) for array in arrays] for _ in range(3))
    STEPS[name](numbers, *plain, None)
    state = loss_scale.new_state(target, dtype, 2.0**10)  # times a gradient, float16 holds it
    loss_scale.scale_gradient(scaled[1], state)
    STEPS[name](numbers, *scaled, loss_scale.update(scaled[1], state))
    for index in (0, 2, 3):  # parameters and what the optimizer keeps
        comparison.assert_close(scaled[index], host(plain[index]), rtol=RTOL[dtype.name])
    moved = host(plain[0]) != arrays[0]
    # In a narrow type a small step of a large parameter is rounded away.
    assert moved.mean() > 0.9 if dtype.name in NARROW else moved.all()

    kept[1][-1] = np.inf
    STEPS[name](numbers, *kept, loss_scale.update(kept[1], state))
    for index in (0, 2, 3):
        np.testing.assert_array_equal(host(kept[index]), arrays[index])


def test_fp16_gradients_need_a_scale_and_an_overflow_lowers_it(cuda):
    """Through a dense layer on tensor cores."""
    x, w = normal(0, 64, 20, dtype=FLOAT), normal(1, 10, 20, dtype=FLOAT)
    dy = normal(2, 64, 10, dtype=FLOAT) * np.float32(1e-8)  # most below fp16's least number
    exact = dy.astype(np.float64).T @ x
    x, w, dy = map(cuda.array, (x, w, dy))
    with lowlevel.precision("fp16"):
        _, lost, _ = kernels.dense_backward(dy, x, w)
        with pytest.raises(AssertionError):
            comparison.assert_close(lost, exact, rtol=0.1)

        state = loss_scale.new_state(cuda, FLOAT, 2.0**24)
        dy *= 2.0**20  # with the state's scale, beyond fp16's largest number
        for halvings in range(20):
            scaled = dy.copy()
            loss_scale.scale_gradient(scaled, state)
            _, dw, _ = kernels.dense_backward(scaled, x, w)
            unscale = loss_scale.update(dw, state)
            if unscale[0]:
                break
            assert state[0] == 2.0 ** (23 - halvings)
        assert 0 < halvings < 19
        comparison.assert_close(dw * unscale, exact * 2.0**20, rtol=2e-3)
