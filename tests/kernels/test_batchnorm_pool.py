"""Tests of batch normalisation, max-pooling and ReLU in one, and of the layers that it replaces."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import kernels
from cnn import (
    SGD,
    BatchNorm,
    Conv2D,
    Dense,
    Flatten,
    GlobalAvgPool2D,
    MaxPool2D,
    ReLU,
    Sequential,
    Trainer,
)
from cnn.fused import ConvNorm, Norm
from cnn.fusion import fuse
from kernels.common.geometry import window
from kernels.norm import batchnorm_pool
from tests.lib import comparison, reference, reference_windows
from tests.lib.support import NARROW, RTOL, host, normal, numbers

MOMENTUM, EPS = 0.3, 1e-3


def run(target, x, kernel, relu, dy=None, training=True):
    """Return y, argmax and the running statistics, or with dy dx, dgamma and dbeta; inputs too."""
    C = x.shape[-1]
    gamma, beta, mean, var = (normal(10 + i, C, dtype=x.dtype) for i in range(4))
    inputs = gamma, beta, 1 + abs(mean), 1 + abs(var)
    on_target = [target.array(array.copy()) for array in (x, *inputs)]
    g = window(x.shape[1:3], kernel, stride=kernel, padding=0, dilation=1)[0]
    y, argmax, saved = batchnorm_pool.forward(
        *on_target, window=g, training=training, momentum=MOMENTUM, eps=EPS, relu=relu
    )
    if dy is None:
        return inputs, (y, argmax, *on_target[3:])
    dgamma, dbeta = target.empty((C,), x.dtype), target.empty((C,), x.dtype)
    arrays = (target.array(dy), on_target[0], y, argmax, on_target[1], saved, dgamma, dbeta)
    return inputs, (batchnorm_pool.backward(*arrays, g, relu), dgamma, dbeta)


def by_layers(target, x, inputs, kernel):
    """Return y before a ReLU and argmax by the kernels that do it one by one."""
    arrays = [target.array(array.copy()) for array in (x, *inputs)]
    normalised, _ = kernels.batch_norm(*arrays, training=True, momentum=MOMENTUM, eps=EPS)
    return kernels.max_pool2d(normalised, kernel)


def check(target, x, kernel, relu):
    """Compare with the oracle's layers, one after the other."""
    rtol = RTOL[x.dtype.name]
    (gamma, beta, mean, var), results = run(target, x, kernel, relu)
    options = {"training": True, "eps": EPS}
    normalised, *moved = reference.batch_norm(
        x, gamma, beta, mean, var, momentum=MOMENTUM, **options
    )
    y, argmax = reference_windows.max_pool2d(normalised, kernel)
    expected = np.maximum(y, 0) if relu else y
    if expected.any():  # a channel of one window may be clipped as a whole
        comparison.assert_close(results[0], expected, rtol=rtol)
    else:
        assert not host(results[0]).any()
    if x.dtype.name in NARROW:
        # Rounding makes values equal, of which the first is the maximum: that of the layers.
        maximum, argmax = map(host, by_layers(target, x, (gamma, beta, mean, var), kernel))
        found = numbers(results[0])
        np.testing.assert_array_equal(found, np.maximum(numbers(maximum), 0 if relu else -np.inf))
    np.testing.assert_array_equal(host(results[1]), argmax)
    for actual, wanted in zip(results[2:], moved, strict=True):
        comparison.assert_close(actual, wanted, rtol=rtol)

    dy = normal(9, *y.shape, dtype=x.dtype)
    _, gradients = run(target, x, kernel, relu, dy)
    passed = np.where((y > 0) | (not relu), dy, 0)
    full = reference_windows.max_pool2d_backward(passed, argmax, x.shape, kernel)
    wanted = reference.batch_norm_backward(full, x, gamma, beta, mean, var, **options)
    scale = abs(np.stack([array.max() for array in map(abs, (dy, *wanted))])).max()
    for gradient, exact in zip(gradients, wanted, strict=True):
        assert gradient.dtype == x.dtype and gradient.shape == exact.shape
        # Of few windows, dgamma and dbeta are sums whose terms mostly cancel.
        assert abs(host(gradient) - exact).max() <= 10 * rtol * scale


@hypothesis.given(
    images=st.integers(1, 3),
    windows=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    kernel=st.sampled_from([(2, 2), (1, 2), (3, 2), (4, 4)]),
    data=st.data(),
    C=st.sampled_from([1, 3, 16, 17]),
    relu=st.booleans(),
)
def test_equals_the_oracle(target, dtype, images, windows, kernel, data, C, relu):
    # Pixels at the bottom and right that fill no window get a gradient from the statistics alone.
    rest = [data.draw(st.integers(0, k - 1), label="pixels in no window") for k in kernel]
    H, W = (n * k + r for n, k, r in zip(windows, kernel, rest, strict=True))
    check(target, normal(0, images, H, W, C, dtype=dtype), kernel, relu)


# Around a vector of 16 float32 or 8 float64, twice that, and more channels than a block's threads.
@pytest.mark.parametrize("C", [1, 7, 8, 9, 15, 16, 17, 33, 257])
def test_channel_counts(target, dtype, C):
    check(target, normal(0, 2, 5, 4, C, dtype=dtype), (2, 2), relu=True)


# Windows around a chunk of the sums: 1024 on cpu, 128 on cuda, counted on from image to image.
@pytest.mark.parametrize("images", [7, 8, 9, 63, 64, 65])
def test_windows_around_a_chunk(target, dtype, images):
    check(target, normal(0, images, 9, 8, 3, dtype=dtype), (2, 2), relu=True)


def test_one_value_per_channel_is_nothing_to_train_on(target, dtype):
    x = normal(0, 1, 1, 1, 17, dtype=dtype)
    with pytest.raises(ValueError, match=r"^x: got shape \(1, 1, 1, 17\), expected more than one"):
        run(target, x, 1, True)
    _, (y, argmax, *_) = run(target, x, 1, True, training=False)
    assert y.shape == x.shape and not host(argmax).any()


def test_by_the_running_statistics(target, dtype):
    x = normal(0, 3, 5, 4, 17, dtype=dtype)
    (gamma, beta, mean, var), results = run(target, x, 2, True, training=False)
    options = {"training": False, "eps": EPS}
    normalised, *_ = reference.batch_norm(x, gamma, beta, mean, var, **options)
    y, argmax = reference_windows.max_pool2d(normalised, 2)
    comparison.assert_close(results[0], np.maximum(y, 0), rtol=RTOL[dtype.name])
    for actual, wanted in zip(results[1:], (argmax, mean, var), strict=True):
        np.testing.assert_array_equal(host(actual), wanted)


def test_a_large_mean_survives(target):
    x = (normal(0, 8, 15, 14, 17) + 1e4).astype(np.float32)
    (gamma, beta, mean, var), (y, argmax, *_) = run(target, x, 2, True)
    exact = reference.batch_norm(x, gamma, beta, mean, var, training=True, eps=EPS)[0]
    pooled, place = reference_windows.max_pool2d(exact, 2)
    comparison.assert_close(y, np.maximum(pooled, 0), rtol=1e-3)  # see test_batchnorm.py
    np.testing.assert_array_equal(host(argmax), place)


def test_of_equal_pixels_the_first_gets_the_gradient(target, dtype):
    x = np.zeros((1, 2, 4, 1), dtype)
    x[0, :, :, 0] = [[1, 2, 1, 1], [2, 2, 1, 1]]
    dy = np.array([1, 3], dtype).reshape(1, 1, 2, 1)
    (gamma, *_), (_, argmax, *_) = run(target, x, 2, False)
    first = 1 if gamma[0] > 0 else 0
    np.testing.assert_array_equal(host(argmax).ravel(), [first, 0])
    check(target, x, 2, relu=False)
    _, (_, _, dbeta) = run(target, x, 2, False, dy)
    assert host(dbeta).tolist() == [4]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_special_value_spoils_its_channel_alone(target, dtype, value):
    x = normal(0, 3, 5, 4, 17, dtype=dtype)
    x[1, 2, 3, 4] = value
    dy = normal(1, 3, 2, 2, 17, dtype=dtype)
    (_, (y, *_)), (_, (dx, *_)) = run(target, x, 2, True), run(target, x, 2, True, dy)
    for array in (y, dx):
        finite = np.isfinite(host(array))
        assert not finite[..., 4].any() and np.delete(finite, 4, axis=-1).all()


# --- the layers that it replaces

TAILS = {
    "ReLU": lambda: [BatchNorm(), ReLU()],
    "pool": lambda: [BatchNorm(), MaxPool2D(2)],
    "ReLU and pool": lambda: [BatchNorm(), ReLU(), MaxPool2D((3, 2))],  # as the oracle's, above
    "pool and ReLU": lambda: [BatchNorm(), MaxPool2D(2, stride=2, padding="valid"), ReLU()],
}


# With a layer between them, the normalisation takes its statistics itself.
@pytest.mark.parametrize(
    ("groups", "between", "kind"), [(1, [], ConvNorm), (2, [], ConvNorm)] + [(1, [ReLU], Norm)]
)
@pytest.mark.parametrize("tail", TAILS)
def test_planned_training_equals_that_of_the_layers(target, dtype, groups, between, kind, tail):
    random = np.random.default_rng(0)
    images = random.integers(256, size=(9, 7, 9, 2), dtype=np.uint8)
    labels = random.integers(3, size=9)
    models = []
    for plan in (True, False):
        # Without biases, whose gradient ahead of a batch-norm is but rounding.
        layers = [Conv2D(4, 3, padding="same", bias=False), *TAILS["ReLU"]()]
        layers += [Conv2D(18, 3, groups=groups, bias=False)]
        layers += [layer() for layer in between] + TAILS[tail]()
        layers += [GlobalAvgPool2D(), Flatten(), Dense(3)]
        model = Sequential(layers, images.shape[1:], target.name, dtype, seed=1)
        assert [type(layer) for layer in fuse(model) if isinstance(layer, Norm)] == [ConvNorm, kind]
        trainer = Trainer(model, SGD(0.05, momentum=0.9), seed=2, plan=plan)
        trainer.fit((images, labels), epochs=1, batch_size=4)  # the last batch is of one
        assert trainer.planned == plan
        models.append(model)
    planned, plain = models
    rtol = 100 * RTOL[dtype.name]  # after three steps
    comparison.assert_close(planned.parameter_buffer, host(plain.parameter_buffer), rtol=rtol)
    for name, array in plain.state.items():
        comparison.assert_close(planned.state[name], host(array), rtol=rtol)


class Doubled(BatchNorm):
    """Derived from a layer that is fused."""


@pytest.mark.parametrize(
    ("layers", "kept"),
    [
        (lambda: [Doubled(), ReLU()], 2),
        (lambda: [ReLU(), BatchNorm()], 2),
        (lambda: [BatchNorm(), ReLU(), ReLU()], 2),
        (lambda: [BatchNorm(), MaxPool2D(2), MaxPool2D(2), ReLU()], 3),
        (lambda: [BatchNorm(), MaxPool2D(2, stride=1)], 2),
        (lambda: [BatchNorm(), MaxPool2D(2, padding=1)], 2),
        (lambda: [BatchNorm(), MaxPool2D(2, dilation=2)], 2),
        (lambda: [BatchNorm(), MaxPool2D(2, ceil_mode=True)], 2),
        (lambda: [BatchNorm(), MaxPool2D(5)], 2),  # more pixels than are unrolled
    ],
)
def test_what_is_not_the_same_stays_as_it_is(layers, kept):
    model = Sequential(layers(), (9, 9, 2))
    assert len(fuse(model)) == kept
