"""The model: flat buffers, names, inputs it takes and refuses, and seeds."""

import ml_dtypes
import numpy as np
import pytest

from cnn import SGD, Conv2D, Dense, Dropout, Flatten, Layer, ReLU, Sequential, Softmax, Trainer
from cnn.recipes import RECIPES
from tests.lib.comparison import assert_close
from tests.lib.network_reference import Network
from tests.lib.reference import finite_difference
from tests.lib.small_model import build, layers
from tests.lib.support import RTOL, host, normal, unit_roundoff

IMAGES = normal(0, 11, 9, 8, 2, dtype=np.float32)

# Forward and backward


def test_forward_and_backward_equal_the_oracle(target, dtype):
    built = [layer for layer in layers() if not isinstance(layer, Dropout)]
    model = Sequential(built, (9, 8, 2), device=target.name, dtype=dtype)
    network = Network(model)
    x = target.array(IMAGES.astype(dtype))
    y = model.forward(x, training=True)
    assert_close(y, network.forward(host(x).astype(np.float64), True), rtol=RTOL[dtype.name])
    dy = normal(1, 11, 3, dtype=dtype)
    assert model.backward(target.array(dy)) is None
    _, gradients = network.backward(dy.astype(np.float64))
    assert set(model.gradients) == set(model.parameters) == set(network.named_parameters())
    for name, gradient in model.gradients.items():
        position, _, key = name.partition(".")
        assert_close(gradient, gradients[int(position)][key], rtol=20 * RTOL[dtype.name])


def test_gradients_are_the_slopes():
    chain = [Conv2D(2, 3), ReLU(), Flatten(), Dense(3), Softmax()]
    model = Sequential(chain, (4, 4, 1), device="cpu", dtype="float64")
    x, dy = normal(0, 2, 4, 4, 1), normal(1, 2, 3)
    model.forward(x, training=True)
    model.backward(dy)

    def loss(values):
        model.parameter_buffer[...] = values
        return (model.forward(x) * dy).sum()

    slopes = finite_difference(loss, model.parameter_buffer.copy())
    assert_close(model.gradient_buffer, slopes, rtol=1e-7)


def test_layers_before_the_first_trained_one_see_no_gradient():
    class Deaf(ReLU):
        def backward(self, dy):
            raise AssertionError("nobody needs this gradient")

    model = Sequential([Deaf(), Flatten(), Dense(3)], (2, 2, 1), "cpu")
    model.forward(np.ones((1, 2, 2, 1), np.float32), training=True)
    model.backward(np.ones((1, 3), np.float32))
    assert not model.layers[2].need_dx


def test_a_model_without_parameters():
    model = Sequential([Flatten(), Softmax()], (2, 3, 1), "cpu")
    assert model.parameter_count == 0 and model.parameter_buffer.shape == (0,)
    assert_close(model.predict(np.zeros((4, 2, 3), np.float32)), np.full((4, 6), 1 / 6), rtol=1e-6)
    model.backward(np.ones((4, 6), np.float32))


# Flat buffers


def test_views_share_the_buffers_memory_in_order(dtype):
    model = build(dtype=dtype)
    for views, buffer in (
        (model.parameters, model.parameter_buffer),
        (model.gradients, model.gradient_buffer),
    ):
        assert buffer.ndim == 1 and buffer.dtype == dtype
        buffer[...] = np.arange(buffer.size)
        end = 0
        for view in views.values():
            start = view.reshape(-1)[0]
            assert np.array_equal(view.reshape(-1), start + np.arange(view.size))
            assert np.shares_memory(view, buffer)
            assert start >= end and (start * dtype.itemsize) % 64 == 0
            end = start + view.size
    for layer, name in ((0, "weight"), (1, "beta"), (7, "bias")):
        view = model.layers[layer].parameters[name]
        assert view is model.parameters[f"{layer}.{name}"]


def test_gaps_between_views_stay_zero_in_training():
    model = build()
    gaps = np.ones(model.parameter_buffer.size, bool)
    for view in model.parameters.values():
        start = (view.ctypes.data - model.parameter_buffer.ctypes.data) // view.itemsize
        gaps[start : start + view.size] = False
    assert gaps.any()
    labels = np.arange(11) % 3
    optimizer = SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.1)
    Trainer(model, optimizer).fit((IMAGES, labels), epochs=3, batch_size=4)
    for buffer in (model.parameter_buffer, model.gradient_buffer, optimizer.state["velocity"]):
        assert not buffer[gaps].any() and buffer[~gaps].any()


def test_names_say_place_and_meaning():
    model = build()
    shapes = {name: array.shape for name, array in model.parameters.items()}
    assert shapes == {
        "0.weight": (5, 3, 3, 2),
        "1.gamma": (5,),
        "1.beta": (5,),
        "5.weight": (7, 45),
        "7.weight": (3, 7),
        "7.bias": (3,),
    }
    assert {name: a.shape for name, a in model.gradients.items()} == shapes
    assert {name: a.shape for name, a in model.state.items()} == {
        "1.running_mean": (5,),
        "1.running_var": (5,),
    }


def test_summary():
    assert build().summary(100) == "\n".join(
        [
            "layer        output     parameters   FLOP  bytes",
            "input        (9, 8, 2)                       576",
            "0 Conv2D     (7, 6, 5)          90  7,560    840",
            "1 BatchNorm  (7, 6, 5)          10      0    840",
            "2 MaxPool2D  (3, 3, 5)           0      0    180",
            "3 ReLU       (3, 3, 5)           0      0    180",
            "4 Flatten    (45,)               0      0      0",
            "5 Dense      (7,)              315    630     28",
            "6 Dropout    (7,)                0      0     28",
            "7 Dense      (3,)               24     42     12",
            "total                          439  8,232  2,684",
            "FLOP: forward, per image; a multiply-add of Conv2D or Dense is 2, all else is 0",
            "bytes: activations, float32, per image; the parameters take 1,756",
            "training in batches of 100: 271,912 bytes of activations, parameters, gradients",
        ]
    )


def test_summary_of_the_speedrun():
    lines = Sequential(RECIPES["speedrun"].layers(), (28, 28, 1), "cpu").summary().splitlines()
    rows = {" ".join(line.split()[:2]): line for line in lines}
    # 5 x 5 x 24 filters at 24 x 24 places, 3 x 3 x 24 x 32 at 10 x 10, 800 x 256 and 256 x 10.
    expected = {
        "0 Conv2D": ["624", "691,200", "55,296"],
        "3 Conv2D": ["6,944", "1,382,400", "12,800"],
        "7 Dense": ["205,056", "409,600", "1,024"],
        "9 Dense": ["2,570", "5,120", "40"],
    }
    for name, counts in expected.items():
        assert rows[name].split()[-3:] == counts
    assert rows["total 215,194"].split()[1:] == ["215,194", "2,488,320", "107,368"]
    assert "take 860,776" in lines[-2] and "of 256: 29,207,760 bytes" in lines[-1]


def test_summary_counts_every_filter_of_a_group_once():
    model = Sequential([Conv2D(6, 3, groups=3, padding="same")], (5, 4, 3), "cpu", "float64")
    row = model.summary().splitlines()[2]
    # 6 filters of 3 x 3 weights and a bias each, at 20 places; outputs of 8 bytes.
    assert row.split()[-3:] == ["60", "2,160", "960"]


# Inputs


@pytest.mark.parametrize("batch_size", [1, 4, 11, 1000])
def test_predicting_in_batches_is_predicting_at_once(batch_size, target):
    model = build(device=target.name)
    found = model.predict(IMAGES, batch_size)
    assert found.shape == (11, 3) and found.dtype == np.float32
    assert_close(found, model.forward(target.array(IMAGES)), rtol=1e-6)


def test_predicting_nothing_gives_nothing():
    assert build().predict(IMAGES[:0]).shape == (0, 3)


def test_predicting_changes_nothing():
    model = build()
    held = [array.copy() for array in (model.parameter_buffer, *model.state.values())]
    assert model.predict(IMAGES).tobytes() == model.predict(IMAGES).tobytes()
    for array, before in zip((model.parameter_buffer, *model.state.values()), held, strict=True):
        assert array.tobytes() == before.tobytes()


def test_uint8_images_are_normalised(target, dtype):
    model = Sequential([Flatten()], (4, 5, 2), device=target.name, dtype=dtype)
    images = np.random.default_rng(0).integers(256, size=(3, 4, 5, 2), dtype=np.uint8)
    model.pixel_mean, model.pixel_std = 33.25, 71.5
    prepared = model.prepare(images)
    assert prepared.dtype == dtype
    rtol = 1e-6 + unit_roundoff(dtype)
    assert_close(prepared, (images.astype(float) - 33.25) / 71.5, rtol=rtol)
    assert_close(model.predict(images), host(prepared).reshape(3, 40), rtol=1e-7)


@pytest.mark.parametrize("name", ["pixel_mean", "pixel_std"])
@pytest.mark.parametrize("value", [np.zeros(3), np.array(3.0), "3", None, True, np.nan, np.inf])
def test_pixel_statistics_are_numbers(name, value):
    """One for all channels: a mean per channel would be refused by every prediction."""
    model = build()
    with pytest.raises((TypeError, ValueError), match=f"^{name}: got .*, expected a"):
        setattr(model, name, value)
    with pytest.raises(ValueError, match=r"^pixel_std: got 0, expected at least 1e-09$"):
        model.pixel_std = 0
    assert not model.has_pixel_statistics


@pytest.mark.parametrize("given", ["float16", "float32", "float64", ml_dtypes.bfloat16])
def test_float_images_are_taken_as_they_are(given):
    model = Sequential([Flatten()], (9, 8, 2), "cpu")
    model.pixel_mean, model.pixel_std = 33.25, 71.5
    images = IMAGES.astype(given)
    assert model.prepare(images).tobytes() == images.astype(np.float32).tobytes()


def test_images_with_and_without_a_channel_axis():
    model = Sequential([Conv2D(2, 3), Flatten()], (6, 5, 1), "cpu")
    images = np.random.default_rng(0).integers(256, size=(4, 6, 5), dtype=np.uint8)
    assert model.predict(images).tobytes() == model.predict(images[..., None]).tobytes()
    # A view that is not contiguous.
    turned = np.ascontiguousarray(images.transpose(2, 0, 1)).transpose(1, 2, 0)
    assert model.predict(turned).tobytes() == model.predict(images).tobytes()


def test_inputs_that_are_no_images():
    model = Sequential([Dense(3)], (4,), "cpu")
    assert model.predict(normal(0, 5, 4)).shape == (5, 3)


@pytest.mark.parametrize(
    ("images", "error", "sentence"),
    [
        (
            np.zeros((2, 8, 9, 2), np.float32),
            ValueError,
            "images: got shape (2, 8, 9, 2), expected (N, 9, 8, 2)",
        ),
        (
            np.zeros((2, 9, 8), np.uint8),
            ValueError,
            "images: got shape (2, 9, 8, 1), expected (N, 9, 8, 2)",
        ),
        (
            np.zeros((9, 8), np.uint8),
            ValueError,
            "images: got shape (9, 8), expected (N, H, W) or (N, H, W, C)",
        ),
        (np.zeros((2, 9, 8, 2), np.int64), TypeError, "images: got int64 on cpu, expected uint8"),
        (np.zeros((2, 9, 8, 2), bool), TypeError, "images: got bool on cpu, expected uint8"),
        (
            np.zeros((2, 9, 8, 2), complex),
            TypeError,
            "images: got complex128 on cpu, expected uint8",
        ),
        (
            np.zeros((2, 9, 8, 2), object),
            TypeError,
            "images: got object on cpu, expected uint8 or floating",
        ),
        (np.zeros((0, 9, 8, 2), int), TypeError, "images: got int64 on cpu, expected uint8"),
        (np.ma.zeros((2, 9, 8, 2)), TypeError, "images: got a masked array, expected one without"),
    ],
)
def test_images_that_do_not_fit(images, error, sentence):
    with pytest.raises(error) as caught:
        build(device="cpu").predict(images)
    assert str(caught.value).startswith(sentence)


# What a model is made of


def test_a_layer_has_one_place():
    relu = ReLU()
    with pytest.raises(ValueError, match="layers: ReLU at position 2 is in use already"):
        Sequential([relu, Dense(4), relu], (4,))
    Sequential([relu, Dense(4)], (4,))
    for other in ([relu], [Dense(4), ReLU(), relu]):
        with pytest.raises(ValueError, match="ReLU at position . is in use already, expected a"):
            Sequential(other, (4,))
    dense = Dense(4)
    dense.forward(np.zeros((1, 4), np.float32))
    with pytest.raises(ValueError, match="Dense at position 0 is in use already"):
        Sequential([dense], (4,))


def test_layers_of_a_model_that_failed_can_be_used_again():
    made = layers()
    with pytest.raises(ValueError, match="kernel: extends over 3, larger than"):
        Sequential(made, (2, 2, 1))
    assert Sequential(made, (9, 8, 2)).parameter_count == build().parameter_count


class Returning(Layer):
    def __init__(self, shape):
        self.shape = shape

    def build(self, shape):
        return self.shape


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        (([ReLU], (4,)), TypeError, "layers: got the class ReLU at position 0, expected a Layer"),
        (([Dense(3)], (4, 4, 1)), ValueError, "Dense: got inputs of shape (4, 4, 1), expected"),
        (([ReLU()], ()), ValueError, "input_shape: got no axis, expected at least one"),
        (
            ([Returning(None)], (4,)),
            TypeError,
            "layers: build of Returning at position 0 returned None, expected the shape of its",
        ),
        (([Dense(3)], (4,), "gpu"), ValueError, "device: got 'gpu', expected 'auto', 'cpu' or"),
        (([Dense(3)], (4,), "cpu", "float16"), TypeError, "dtype: got float16 on cpu, expected"),
        (([Dense(3)], (4,), "cpu", "int32"), TypeError, "dtype: got int32 on cpu, expected one"),
    ],
)
def test_models_that_cannot_be(arguments, error, sentence):
    with pytest.raises(error) as caught:
        Sequential(*arguments)
    assert str(caught.value).startswith(sentence)


class Starting(Layer):
    """A layer whose initializer returns what it was given."""

    def __init__(self, values):
        self.values = values

    def build(self, shape):
        self.declare("gain", (2,), lambda *_: self.values)
        return shape


@pytest.mark.parametrize(
    ("values", "got"),
    [
        (np.zeros(1), "an array of shape (1,)"),
        (0.5, "0.5"),
        ([0.5, 1], "list"),
        (None, "None"),
    ],
    ids=["shape", "number", "list", "nothing"],
)
def test_initial_values_of_another_shape_than_declared(values, got):
    before = Dense(4)
    for make in (
        lambda: Sequential([before, Starting(values)], (4,), "cpu"),
        lambda: Starting(values).ready(np.zeros((1, 4), np.float32)),
    ):
        with pytest.raises(ValueError) as caught:
            make()
        sentence = f"gain: got {got} of its initializer, expected one of shape (2,)"
        assert str(caught.value).removeprefix("1.") == sentence
    Sequential([before], (4,))  # it is in no model


# Seeds


def test_same_seed_same_bits_another_seed_others():
    def outputs(seed):
        model = build(seed=seed)
        return model.parameter_buffer.tobytes(), model.forward(IMAGES, training=True).tobytes()

    first, again, other = outputs(5), outputs(5), outputs(6)
    assert first == again
    assert first[0] != other[0] and first[1] != other[1]


def test_dropout_layers_of_one_model_and_of_neighbouring_seeds_differ():
    x = np.ones((40, 40), np.float32)
    draws = set()
    for seed in range(3):
        model = Sequential([Dropout(0.5), Dropout(0.5)], (40,), "cpu", seed=seed)
        draws |= {layer.forward(x, training=True).tobytes() for layer in model.layers}
    assert len(draws) == 6


def test_initial_weights_shrink_with_the_inputs_and_biases_start_at_zero():
    spread = []
    for inputs in (25, 400):
        model = Sequential([Dense(400)], (inputs,), "cpu")
        weight = model.parameters["0.weight"]
        spread.append(weight.std() * np.sqrt(inputs))
        assert abs(weight.mean()) < weight.std() / 20
        assert not model.parameters["0.bias"].any()
    assert_close(spread[0], spread[1], rtol=0.05)
    assert 0.4 < spread[0] < 1.6
