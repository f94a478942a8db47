"""Which layers a planned step fuses, and that the fused ones give the same results and state."""

import numpy as np
import pytest

from cnn import (
    AvgPool2D,
    BatchNorm,
    Conv2D,
    CrossEntropy,
    Dense,
    Flatten,
    MaxPool2D,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
)
from cnn.fused import ConvNorm, ConvPool, DenseLoss, WithReLU
from cnn.fusion import PATTERNS, fuse
from tests.lib.comparison import assert_close
from tests.lib.support import RTOL, host, normal

SHAPE = (8, 9, 2)


class Doubled(Conv2D):
    """A class derived from a layer that is fused."""

    recordable = True

    def forward(self, x, training=False, relu=False):
        return 2 * super().forward(x, training, relu)


class Cubed(ReLU):
    """Another one."""

    recordable = True

    def forward(self, x, training=False):
        return super().forward(x, training) ** 3


class Norm(BatchNorm):
    """Another one."""

    recordable = True


class Least(MaxPool2D):
    """Another one."""

    recordable = True

    def forward(self, x, training=False):
        return -super().forward(-x, training)


FUSED = {
    "conv, pool, ReLU": lambda: [Conv2D(3, 3), MaxPool2D(2), ReLU()],
    "conv, ReLU, pool": lambda: [Conv2D(3, 3), ReLU(), MaxPool2D(2)],
    "no bias": lambda: [Conv2D(3, 3, bias=False), MaxPool2D(2), ReLU()],
    "stride of the pool": lambda: [Conv2D(3, 3), MaxPool2D((1, 4), (1, 4)), ReLU()],
    "stride of the convolution": lambda: [Conv2D(3, 3, stride=2, padding=1), MaxPool2D(2), ReLU()],
    "dilated rows": lambda: [Conv2D(3, 3, dilation=(2, 1)), MaxPool2D((2, 1)), ReLU()],
}
# What a pool of ConvPool does not do, or its convolution: only the ReLU next to it is taken up.
APART = {
    "overlapping pool": lambda: [Conv2D(3, 3), MaxPool2D(2, 1), ReLU()],
    "pool with gaps": lambda: [Conv2D(3, 3), MaxPool2D(2, 3), ReLU()],
    "padded pool": lambda: [Conv2D(3, 3), MaxPool2D(2, padding=1), ReLU()],
    "dilated pool": lambda: [Conv2D(3, 3), MaxPool2D(2, dilation=2), ReLU()],
    "hanging pool": lambda: [Conv2D(3, 3), MaxPool2D(2, ceil_mode=True), ReLU()],
    "pool of nine": lambda: [Conv2D(3, 3), MaxPool2D(3), ReLU()],
    "groups": lambda: [Conv2D(4, 3, groups=2), MaxPool2D(2), ReLU()],
    "dilated columns": lambda: [Conv2D(3, 3, dilation=(1, 2)), MaxPool2D(2), ReLU()],
    "another pool": lambda: [Conv2D(3, 3), AvgPool2D(2), ReLU()],
    "a third layer that is no ReLU": lambda: [Conv2D(3, 3), MaxPool2D(2), Flatten()],
    "no third layer": lambda: [Conv2D(3, 3), MaxPool2D(2)],
    "derived convolution": lambda: [Doubled(3, 3), MaxPool2D(2), ReLU()],
    "derived pool": lambda: [Conv2D(3, 3), Least(2), ReLU()],
    "derived ReLU": lambda: [Conv2D(3, 3), Cubed(), MaxPool2D(2)],
    "derived batch-norm": lambda: [Conv2D(3, 3), Norm()],
    "derived convolution ahead of batch-norm": lambda: [Doubled(3, 3), BatchNorm()],
}


def model_of(target, layers, dtype="float32"):
    return Sequential(layers, SHAPE, target.name, dtype, seed=1)


def run(layers, model, x, dy):
    """Return y, dx and the gradients of the parameters, which are poisoned before."""
    model.gradient_buffer[...] = np.nan
    for layer in layers:
        x = layer.forward(x, training=True)
    for layer in reversed(layers):
        dy = layer.backward(dy)
    return x, dy, *(host(gradient).copy() for gradient in model.gradients.values())


def assert_same(target, model, layers, rtol):
    x = target.array(normal(0, 3, *SHAPE, dtype=model.dtype))
    dy = target.array(normal(1, 3, *model.output_shape, dtype=model.dtype))
    for layer in model.layers:
        layer.need_dx = True  # also of the first one
    expected = run(model.layers, model, x, dy)
    for found, by_layers in zip(run(layers, model, x, dy), expected, strict=True):
        assert_close(found, by_layers, rtol=rtol)


@pytest.mark.parametrize("name", FUSED)
def test_convolution_pool_and_relu_become_one(target, dtype, name):
    # Layers on both sides stay as they are.
    model = model_of(target, [MaxPool2D(1), *FUSED[name](), Flatten()], dtype)
    layers = fuse(model)
    assert [type(layer) for layer in layers] == [MaxPool2D, ConvPool, Flatten]
    assert_same(target, model, layers, RTOL[dtype.name])


NORMALISED = {
    "nothing after it": lambda: [],
    "ReLU": lambda: [ReLU()],
    "pool and ReLU": lambda: [MaxPool2D(2), ReLU()],
}
CONVOLUTIONS = {
    "GEMM": lambda: Conv2D(3, 3, bias=False),
    "stride, groups": lambda: Conv2D(4, (3, 2), stride=2, padding=1, groups=2, bias=False),
    "one output": lambda: Conv2D(3, (7, 8), bias=False),
}


@pytest.mark.parametrize("after", NORMALISED)
@pytest.mark.parametrize("conv", CONVOLUTIONS)
def test_convolution_and_batch_norm_become_one(target, dtype, conv, after):
    # Layers on both sides stay as they are.
    layers = [MaxPool2D(1), CONVOLUTIONS[conv](), BatchNorm(), *NORMALISED[after](), Flatten()]
    model = model_of(target, layers, dtype)
    layers = fuse(model)
    assert [type(layer) for layer in layers] == [MaxPool2D, ConvNorm, Flatten]
    assert_same(target, model, layers, 10 * RTOL[dtype.name])


def test_a_bias_ahead_of_batch_norm_gets_its_gradient(target, dtype):
    model = model_of(target, [Conv2D(3, 3), BatchNorm()], dtype)
    model.gradient_buffer[...] = np.nan
    [layer] = fuse(model)
    y = layer.forward(target.array(normal(0, 3, *SHAPE, dtype=dtype)), training=True)
    layer.backward(target.array(normal(1, *y.shape, dtype=dtype)))
    # The normalisation takes its effect away again: what is left is rounding.
    db, dw = (abs(host(model.layers[0].gradients[name])).max() for name in ("bias", "weight"))
    assert db < 100 * RTOL[dtype.name] * dw


@pytest.mark.parametrize("layer", [lambda: Conv2D(3, 3), lambda: Dense(5)])
def test_convolutions_and_dense_layers_take_up_a_relu(target, dtype, layer):
    layers = [layer(), ReLU()]
    model = model_of(target, layers if isinstance(layers[0], Conv2D) else [Flatten(), *layers])
    fused = fuse(model)
    assert type(fused[-1]) is WithReLU and len(fused) == len(model.layers) - 1
    assert_same(target, model, fused, 1e-30)  # to the bit


@pytest.mark.parametrize("name", APART)
def test_what_a_fused_layer_does_not_do_stays_apart(target, name):
    model = model_of(target, APART[name]())
    assert fuse(model) == list(model.layers)


@pytest.mark.parametrize("column", ["training", "prediction"])
def test_every_pattern_is_reached(column):
    """The first that fits is taken: none may come after a pattern that is its beginning."""
    kinds = [pattern.kinds for pattern in PATTERNS if getattr(pattern, column) is not None]
    for index, later in enumerate(kinds):
        assert not any(later[: len(earlier)] == earlier for earlier in kinds[:index]), later


def test_what_is_left_of_a_pattern_is_fused(target):
    layers = [Conv2D(3, 3), ReLU(), MaxPool2D(2, 1), ReLU(), Conv2D(3, 2), MaxPool2D(2), ReLU()]
    fused = fuse(model_of(target, [*layers, ReLU()]))
    assert [type(layer) for layer in fused] == [WithReLU, MaxPool2D, ReLU, ConvPool, ReLU]


def test_an_image_too_large_for_a_cache_stays_apart_on_cpu():
    layers = [Conv2D(2, 3), MaxPool2D(2), ReLU()]
    model = Sequential(layers, (400, 400, 1), "cpu", seed=1)
    assert fuse(model) == list(model.layers)


def test_fused_layers_train_the_models_own_parameters(target):
    model = model_of(target, [*FUSED["conv, pool, ReLU"](), Flatten(), Dense(4), ReLU()])
    (conv, _, dense) = fuse(model)
    assert conv.parameters is model.layers[0].parameters
    assert dense.parameters is model.layers[4].parameters


class Halved(Dense):
    """A class derived from a layer that is fused with a loss."""


class Steeper(SoftmaxCrossEntropy):
    """A class derived from a loss that is fused."""


@pytest.mark.parametrize(
    ("layers", "loss", "taken"),
    [
        (lambda: [Dense(4)], SoftmaxCrossEntropy(0.1), True),
        (lambda: [Dense(5), ReLU(), Dense(4, bias=False)], SoftmaxCrossEntropy(), True),
        (lambda: [Dense(4), ReLU()], SoftmaxCrossEntropy(), False),  # not the last
        (lambda: [Dense(4)], CrossEntropy(), False),
        (lambda: [Dense(4)], None, False),
        (lambda: [Halved(4)], SoftmaxCrossEntropy(), False),
        (lambda: [Dense(4)], Steeper(), False),
        (
            lambda: [Dense(97)],
            SoftmaxCrossEntropy(),
            False,
        ),  # more classes than a block takes anywhere
    ],
)
def test_the_last_dense_layer_takes_up_the_loss(target, layers, loss, taken):
    model = model_of(target, [Flatten(), *layers()])
    last = fuse(model, loss)[-1]
    assert (type(last) is DenseLoss) == taken
    assert last.parameters is model.layers[-2 if type(last) is WithReLU else -1].parameters
