"""Predicting: recorded passes over fused layers equal the layers' own forward."""

import numpy as np
import pytest

from cnn import (
    SGD,
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    Layer,
    MaxPool2D,
    ReLU,
    Sequential,
    Softmax,
    Trainer,
)
from comparison import assert_close
from kernels.fold import fold_norm
from reference import batch_norm, relu
from reference_windows import conv2d
from support import RTOL, device_of, host, normal

SHAPE = (9, 8, 2)


class Doubled(Layer):
    """A layer by NumPy's or CuPy's own means, which cannot be recorded."""

    def forward(self, x, training=False):
        return x * 2


def convolution(**options):
    return Conv2D(5, 3, padding="same", **options)


NETWORKS = {
    "pooled": lambda: [convolution(), MaxPool2D(2), ReLU(), Flatten(), Dense(4)],
    "pooled after the ReLU": lambda: [convolution(), ReLU(), MaxPool2D((1, 2))],
    "normalised": lambda: [convolution(), BatchNorm()],
    "normalised and clipped": lambda: [convolution(bias=False), BatchNorm(eps=0.1), ReLU()],
    "normalised and pooled": lambda: [convolution(), BatchNorm(), ReLU(), MaxPool2D(2)],
    # What must not be fused: windows that overlap, groups, a pool or a norm on its own.
    "overlapping": lambda: [convolution(), MaxPool2D(3, stride=2), ReLU()],
    "grouped": lambda: [Conv2D(4, 3, groups=2), BatchNorm(), MaxPool2D(2), ReLU()],
    "alone": lambda: [BatchNorm(), ReLU(), MaxPool2D(2), BatchNorm(), AvgPool2D(2)],
    "dense": lambda: [Flatten(), Dropout(0.5), Dense(33), ReLU(), Dense(3), Softmax()],
    "global": lambda: [convolution(), GlobalAvgPool2D(), Dense(3, bias=False), ReLU()],
    "one's own layer": lambda: [convolution(), ReLU(), Doubled(), Flatten(), Dense(3)],
}


def trained(target, network, dtype="float32"):
    """Return a model whose parameters and statistics are none of the initial ones."""
    model = Sequential(NETWORKS[network](), SHAPE, device_of(target), dtype, seed=1)
    for index, (name, array) in enumerate([*model.parameters.items(), *model.state.items()]):
        values = normal(index, *array.shape, dtype=dtype)
        array[...] = target.array(abs(values) + 0.5 if name.endswith("var") else values)
    return model


@pytest.mark.parametrize("network", NETWORKS)
def test_predictions_equal_the_forward_pass(target, dtype, network):
    model = trained(target, network, dtype)
    # Batches of one, of fewer rows than a micro-tile, and with a tail; one of them twice.
    for count, batch_size in ((1, 4), (7, 4), (13, 13), (7, 4)):
        x = target.array(normal(count, count, *SHAPE, dtype=dtype))
        expected = host(model.forward(x)).astype(np.float64)
        assert_close(model.predict(x, batch_size), expected, rtol=RTOL[np.dtype(dtype).name])


def test_predictions_follow_the_weights_and_the_pixel_statistics(target):
    model = Sequential(
        NETWORKS["normalised and pooled"]() + [Flatten(), Dense(3)], SHAPE, device_of(target)
    )
    random = np.random.default_rng(0)
    images = random.integers(256, size=(8, *SHAPE), dtype=np.uint8)
    before = host(model.predict(images)).copy()
    Trainer(model, SGD(0.1)).fit((images, random.integers(3, size=8)), batch_size=4)
    after = host(model.predict(images))
    assert abs(after - before).max() > 1e-3
    expected = model.forward(model.prepare(images))
    assert_close(after, host(expected).astype(np.float64), rtol=RTOL["float32"])


def test_many_sizes_and_none(target):
    model = trained(target, "pooled")
    x = normal(0, 6, *SHAPE, dtype=np.float32)
    expected = host(model.forward(target.array(x))).astype(np.float64)
    for size in (1, 2, 3, 4, 5, 6, 1):  # more than are remembered
        assert_close(model.predict(x, size), expected, rtol=RTOL["float32"])
    assert model.predict(x[:0]).shape == (0, 4)
    float64 = model.predict(x.astype(np.float64))  # taken as the model's own dtype
    assert_close(float64, expected, rtol=RTOL["float32"])


def test_folded_filters_do_the_norm(target, dtype):
    x, w, b = normal(0, 2, 6, 5, 3), normal(1, 4, 3, 3, 3), normal(2, 4)
    gamma, beta, mean, variance = normal(3, 4), normal(4, 4), normal(5, 4), abs(normal(6, 4))
    for bias in (b, None):
        plain = conv2d(x, w, bias)
        expected, *_ = batch_norm(plain, gamma, beta, mean, variance, training=False, eps=1e-3)
        given = [w, bias, gamma, beta, mean, variance]
        taken = [None if a is None else target.array(a.astype(dtype)) for a in given]
        folded, shift = fold_norm(*taken, 1e-3)
        assert_close(conv2d(x, host(folded), host(shift)), expected, rtol=RTOL[dtype.name])
        assert not np.array_equal(relu(expected), expected)
