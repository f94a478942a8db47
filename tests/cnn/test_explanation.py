"""Explanations: feature maps are what the layers compute, gradients are those of the score."""

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
    LayerNorm,
    MaxPool2D,
    ReLU,
    Sequential,
    Softmax,
    Trainer,
)
from cnn.explanation import explain
from tests.lib.comparison import assert_close
from tests.lib.reference import finite_difference
from tests.lib.support import host, normal, numbers

SHAPE = (7, 6, 2)
# The layers, and the positions of those whose outputs are the feature maps.
NETWORKS = {
    "pooled before the ReLU": (
        lambda: [Conv2D(3, 3), MaxPool2D(2), ReLU(), Flatten(), Dense(4)],
        [2],
    ),
    "normalised": (
        lambda: [
            *(Conv2D(3, 3, padding=1, bias=False), BatchNorm(), ReLU(), MaxPool2D(2)),
            *(Conv2D(4, 2), LayerNorm(), Dropout(0.5), ReLU(), GlobalAvgPool2D(), Dense(4)),
        ],
        [2, 7],
    ),
    "without a ReLU": (lambda: [Conv2D(3, 3), AvgPool2D(2), Flatten(), Dense(4), ReLU()], [0]),
    "one convolution after the other": (
        lambda: [Conv2D(3, 3), Conv2D(4, 3), ReLU(), GlobalAvgPool2D()],
        [0, 2],
    ),
    "nothing learned before it": (
        lambda: [AvgPool2D(2), ReLU(), Conv2D(3, 2), Flatten(), Dense(4), Softmax()],
        [2],
    ),
    "no convolution": (lambda: [Flatten(), Dense(5), ReLU(), Dense(4)], []),
}


def built(target, network, dtype="float64"):
    """Return a model whose parameters and statistics differ from the initial ones."""
    model = Sequential(NETWORKS[network][0](), SHAPE, target.name, dtype, seed=1)
    for index, (name, array) in enumerate([*model.parameters.items(), *model.state.items()]):
        values = normal(index, *array.shape, dtype=dtype)
        array[...] = target.array(abs(values) + 0.5 if name.endswith("var") else values)
    return model


@pytest.mark.parametrize("network", NETWORKS)
def test_the_gradient_is_that_of_the_score(target, network):
    model, classes = built(target, network), np.array([2, 0, 2])
    images = normal(1, 3, *SHAPE)

    def scores(x):
        y = target.array(x)
        for layer in model.layers:
            y = y if isinstance(layer, Softmax) else layer.forward(y)
        return host(y)[np.arange(3), classes].sum()

    gradient = explain(model, target.array(images), target.array(classes)).gradient
    assert gradient.any()
    assert_close(gradient, finite_difference(scores, images), rtol=1e-7)


@pytest.mark.parametrize("network", NETWORKS)
def test_feature_maps_are_what_the_layers_return(target, network):
    model, positions = built(target, network), NETWORKS[network][1]
    x, expected = target.array(normal(1, 2, *SHAPE)), []
    maps = explain(model, x, [0, 1]).feature_maps
    for position, layer in enumerate(model.layers):
        x = layer.forward(x)
        if position in positions:
            expected.append(host(x))
    assert len(maps) == len(expected)
    for found, reference in zip(maps, expected, strict=True):
        assert np.array_equal(host(found), reference) and reference.any()


def test_the_model_stays_as_it_is(target):
    model = built(target, "normalised", "float32")
    images, labels = normal(1, 8, *SHAPE, dtype=np.float32), np.arange(8) % 4
    Trainer(model, SGD(0.01)).fit((images, labels), epochs=1, batch_size=4)
    arrays = model.parameter_buffer, model.state_buffer, model.gradient_buffer
    explain(model, images, labels)  # makes the layers' dicts, which they make at first use
    before, attributes = [numbers(array) for array in arrays], [dict(vars(x)) for x in model.layers]
    explain(model, images[:3], labels[:3])
    assert all(map(np.array_equal, before, map(numbers, arrays)))
    for layer, values in zip(model.layers, attributes, strict=True):
        assert vars(layer).keys() == values.keys()
        assert all(vars(layer)[name] is value for name, value in values.items())


def test_grey_levels_are_normalised_first(target):
    model = Sequential([Conv2D(2, 3), Flatten(), Dense(3)], (5, 5, 1), target.name)
    model.pixel_mean, model.pixel_std = 30.0, 70.0
    levels = np.random.default_rng(0).integers(256, size=(1, 5, 5), dtype=np.uint8)
    (found,), _ = explain(model, levels, [1])
    (expected,), _ = explain(model, ((levels - 30.0) / 70.0).astype(np.float32), [1])
    assert_close(found, numbers(expected), rtol=1e-5)


def test_what_does_not_fit_is_refused():
    model = Sequential([Conv2D(2, 3)], (5, 5, 1), device="cpu")
    with pytest.raises(ValueError, match=r"outputs of shape \(3, 3, 2\), expected \(classes,\)"):
        explain(model, np.zeros((1, 5, 5), np.float32), [0])
    model = Sequential([Flatten(), Dense(3)], (5, 5, 1), device="cpu")
    with pytest.raises(ValueError, match=r"images: got shape \(1, 4, 5, 1\)"):
        explain(model, np.zeros((1, 4, 5), np.float32), [0])
    for classes in ([-1], [3], [0, 1], 0, [0.0], "0", None):
        with pytest.raises(
            ValueError, match="^classes: got .* expected a whole number from 0 to 2"
        ):
            explain(model, np.zeros((1, 5, 5), np.float32), classes)
    with pytest.raises(
        TypeError, match="^classes: got a masked array, expected one without a mask"
    ):
        explain(model, np.zeros((1, 5, 5), np.float32), np.ma.array([0], mask=[True]))
    with pytest.raises(ValueError, match=r"^images: got shape \(\), expected"):
        explain(model, None, [0])
    assert explain(model, np.zeros((0, 5, 5), np.float32), []).gradient.shape == (0, 5, 5, 1)
