"""Every layer, alone on plain arrays and in a model; layers of one's own."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

import cnn
from cnn import (
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    Layer,
    MaxPool2D,
    Sequential,
)
from tests.cases.layers import LAYERS
from tests.lib.comparison import assert_close
from tests.lib.gradient_check import check_gradients
from tests.lib.network_reference import Network
from tests.lib.support import RTOL, host, normal


@pytest.fixture(params=LAYERS)
def case(request):
    """An unbuilt layer, its input's shape and its output's."""
    case = LAYERS[request.param]
    return case.make(), case.input, case.output


@pytest.fixture(params=[name for name in LAYERS if "dropout" not in name])
def oracle_case(request):
    """A case of a layer that draws no random numbers."""
    case = LAYERS[request.param]
    return case.make(), case.input, case.output


def vary(layer):
    """Move parameters and state off their initial zeros and ones, where errors could hide."""
    for position, array in enumerate((*layer.parameters.values(), *layer.state.values())):
        array += 0.3 * position


# Every layer alone


@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_the_slopes(case, training, target):
    layer, shape, _ = case
    x = target.array(normal(0, *shape))
    layer.forward(x)
    vary(layer)
    check_gradients(layer, x, training=training)


@pytest.mark.parametrize("training", [True, False])
def test_equals_the_oracle(oracle_case, training, target, dtype):
    layer, shape, output_shape = oracle_case
    x = target.array(normal(0, *shape, dtype=dtype))
    layer.forward(x)  # builds it
    vary(layer)
    expected = Network(OneLayer(layer))

    y = layer.forward(x, training)
    assert y.dtype == dtype and y.shape == output_shape
    assert_close(y, expected.forward(host(x), training), rtol=RTOL[dtype.name])

    dy = target.array(normal(1, *output_shape, dtype=dtype))
    expected_dx, (expected_gradients,) = expected.backward(host(dy).astype(np.float64))
    assert_close(layer.backward(dy), expected_dx, rtol=5 * RTOL[dtype.name])
    for name, gradient in layer.gradients.items():
        assert_close(gradient, expected_gradients[name], rtol=5 * RTOL[dtype.name])
    for name, array in layer.state.items():
        assert_close(array, expected.state[0][name], rtol=RTOL[dtype.name])


class OneLayer:
    """As much of a model as `Network` asks for."""

    def __init__(self, layer):
        self.layers = [layer]


def test_shape_that_build_announces(case):
    layer, shape, output_shape = case
    assert layer.build(shape[1:]) == output_shape[1:]


def test_in_a_model_as_alone(case, target):
    layer, shape, output_shape = case
    # A layer before it, so that the one in question must pass dx on.
    model = Sequential([BatchNorm(), layer], shape[1:], device=target.name, dtype="float64")
    alone = type(layer)(**layer.settings())
    alone.seed = layer.seed
    # Twice the images: BatchNorm does not train on one value.
    x = target.array(normal(0, 2 * shape[0], *shape[1:]))
    dy = target.array(normal(1, 2 * shape[0], *output_shape[1:]))
    hidden = model.layers[0].forward(x, training=True)
    alone.forward(hidden)
    for name, array in alone.parameters.items():
        array[...] = layer.parameters[name]
    expected = alone.forward(hidden, training=True)

    assert model.output_shape == output_shape[1:]
    y = model.forward(x, training=True)
    assert host(y).tobytes() == host(expected).tobytes()
    model.backward(dy)
    alone.backward(dy)
    for name, gradient in alone.gradients.items():
        assert host(model.gradients[f"1.{name}"]).tobytes() == host(gradient).tobytes()


def test_settings_survive_json(case):
    layer, shape, output_shape = case
    settings = json.loads(json.dumps(layer.settings()))
    again = type(layer)(**settings)
    assert again.build(shape[1:]) == output_shape[1:]
    x = normal(0, *shape)
    again.seed = layer.seed
    assert again.forward(x, True).tobytes() == layer.forward(x, True).tobytes()
    assert json.loads(json.dumps(again.settings())) == settings


@pytest.mark.parametrize("name", ["conv", "dense"])
def test_without_need_of_dx_there_is_none(name):
    make, shape, output_shape, _ = LAYERS[name]
    x, dy = normal(0, *shape), normal(1, *output_shape)
    layer, thrifty = make(), make()
    thrifty.need_dx = False
    for each in (layer, thrifty):
        each.forward(x, training=True)
    assert layer.backward(dy).shape == shape
    assert thrifty.backward(dy) is None
    for gradient in ("weight", "bias"):
        assert_close(thrifty.gradients[gradient], layer.gradients[gradient], rtol=1e-12)


def test_a_second_backward_does_not_add_to_the_first(case):
    layer, shape, output_shape = case
    layer.forward(normal(0, *shape), training=True)
    dy = normal(1, *output_shape)
    first = layer.backward(dy).copy()
    gradients = {name: gradient.copy() for name, gradient in layer.gradients.items()}
    assert layer.backward(dy).tobytes() == first.tobytes()
    for name, gradient in gradients.items():
        assert layer.gradients[name].tobytes() == gradient.tobytes()


@pytest.mark.parametrize(
    ("layer", "shape", "sentence"),
    [
        (Conv2D(4, 3), (5,), "Conv2D: got inputs of shape (5,), expected images (H, W, C)"),
        (Conv2D(4, 3, groups=2), (8, 8, 3), "groups: got 2 for 3 channels and 4 filters"),
        (Conv2D(4, 9), (8, 8, 3), "kernel: extends over 9, larger than the padded input"),
        (MaxPool2D(2, padding=2), (8, 8, 3), "padding: got 2 for a window that extends over 2"),
        (Dense(4), (8, 8, 3), "Dense: got inputs of shape (8, 8, 3), expected (in,); Flatten"),
        (GlobalAvgPool2D(), (8,), "GlobalAvgPool2D: got inputs of shape (8,), expected images"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Layer) else "",
)
def test_an_input_that_does_not_fit(layer, shape, sentence):
    with pytest.raises(ValueError) as caught:
        layer.build(shape)
    assert str(caught.value).startswith(sentence)


# Batch-norm and dropout, which differ in training


def test_batch_norm_learns_what_inference_uses(target):
    layer = BatchNorm(momentum=1.0)  # remembers the last batch alone
    x = target.array(normal(0, 64, 3) * 5 + 2)
    y = layer.forward(x, training=True)
    assert_close(y.mean(axis=0) + 1, [1, 1, 1], rtol=1e-12)
    assert_close(y.std(axis=0), [1, 1, 1], rtol=1e-5)
    held = {name: host(array).copy() for name, array in layer.state.items()}
    # The same batch, but for the running variance being the unbiased one.
    assert_close(layer.forward(x), host(y) * np.sqrt(63 / 64), rtol=1e-6)
    for name, array in layer.state.items():
        assert host(array).tobytes() == held[name].tobytes()


def test_dropout_drops_and_scales(target):
    layer = Dropout(0.25)
    x = target.array(np.ones((100, 100)))
    y = host(layer.forward(x, training=True))
    assert set(np.unique(y)) == {0.0, 1 / 0.75}
    assert abs((y == 0).mean() - 0.25) < 0.02
    assert host(layer.backward(x)).tobytes() == y.tobytes()


def test_dropout_draws_anew_at_every_forward_and_the_same_after_a_new_start():
    x = np.ones((50, 50), np.float32)

    def three_draws(seed):
        layer = Dropout(0.5)
        layer.seed = seed
        return [layer.forward(x, training=True).tobytes() for _ in range(3)]

    assert three_draws(1) == three_draws(1)
    assert len({*three_draws(1), *three_draws(2)}) == 6


def test_dropout_passes_everything_in_inference_and_with_p_0():
    x, dy = normal(0, 9, 9), normal(1, 9, 9)
    for layer, training in ((Dropout(0.9), False), (Dropout(0.0), True)):
        assert layer.forward(x, training).tobytes() == x.tobytes()
        assert layer.backward(dy).tobytes() == dy.tobytes()


# Layers of one's own


@dataclass(eq=False)
class PReLU(Layer):
    """max(x, 0) + slope * min(x, 0), with one learned slope per channel (He et al., 2015)."""

    initial: float = 0.25

    def build(self, shape):
        self.declare("slope", shape[-1:], lambda _, shape: np.full(shape, self.initial))
        return shape

    def forward(self, x, training=False):
        self._x = self.ready(x)
        return x.clip(min=0) + self.parameters["slope"] * x.clip(max=0)

    def backward(self, dy):
        slope, axes = self.parameters["slope"], tuple(range(dy.ndim - 1))
        self.gradients["slope"][...] = (dy * self._x.clip(max=0)).sum(axis=axes)
        return dy * ((self._x > 0) + slope * (self._x <= 0))


def test_own_layer_has_right_gradients(target):
    check_gradients(PReLU(0.3), target.array(normal(0, 3, 4, 4, 2)))


def test_the_check_finds_a_wrong_gradient():
    class Wrong(PReLU):
        def backward(self, dy):
            dx = super().backward(dy)
            self.gradients["slope"][...] /= len(dy)
            return dx

    with pytest.raises(AssertionError, match="exceeds"):
        check_gradients(Wrong(0.3), normal(0, 3, 4, 4, 2))


def test_own_layer_trains_saves_and_loads(target, tmp_path):
    layers = [Conv2D(4, 3), PReLU(0.5), Flatten(), Dense(3)]
    model = Sequential(layers, (6, 6, 1), device=target.name)
    images = normal(0, 60, 6, 6, dtype=np.float32)
    labels = images.reshape(60, -1)[:, :3].argmax(axis=1)
    trainer = cnn.Trainer(model, cnn.Adam(1e-2))
    losses = [record["train_loss"] for record in trainer.fit((images, labels), 20, 20)]
    assert losses[-1] < losses[0] / 2
    slope = host(model.parameters["1.slope"])
    assert slope.shape == (4,) and (slope != 0.5).all()

    model.save(tmp_path / "model.safetensors")
    again = Sequential.load(tmp_path / "model.safetensors", device=target.name)
    assert isinstance(again.layers[1], PReLU) and again.layers[1].initial == 0.5
    assert host(again.predict(images)).tobytes() == host(model.predict(images)).tobytes()
