"""What of a model and its layers stays as it was built: arrays, layers and their settings."""

import copy
import pickle
from functools import partial

import numpy as np
import pytest

from cnn import AvgPool2D, BatchNorm, Conv2D, Dense, Dropout, LayerNorm, MaxPool2D, ReLU, Sequential
from tests.lib.small_model import build
from tests.lib.support import normal


def dicts_of_arrays(model):
    return [
        arrays
        for part in (model, *model.layers)
        for arrays in (part.parameters, part.gradients, part.state)
        if arrays
    ]


def test_arrays_and_layers_keep_their_places():
    """An array put in place of a view would be saved or used, but not both, and not trained."""
    model = build(device="cpu")
    for arrays in dicts_of_arrays(model):
        for name, array in arrays.items():
            arrays[name] *= 2
            arrays |= {name: array}
            changes = (
                partial(arrays.__setitem__, name, array.copy()),
                partial(arrays.update, {name: array.copy()}),
            )
            for change in changes:
                with pytest.raises(TypeError, match=f"^{name}: got another array, expected value"):
                    change()
        with pytest.raises(TypeError, match=r"^x: got another array, expected values set"):
            arrays["x"] = None
        for change in (arrays.popitem, arrays.clear, partial(arrays.__delitem__, name)):
            with pytest.raises(TypeError, match="none can be added or removed, see `Network`"):
                change()
    with pytest.raises(TypeError, match="does not support item assignment"):
        model.layers[0] = ReLU()


@pytest.mark.parametrize("name", ["layers", "parameters", "state", "parameter_buffer"])
def test_what_layers_share_keeps_its_place(name):
    """As `model.parameters = best`, which would be saved, but not used."""
    model = build(device="cpu")
    before = getattr(model, name)
    with pytest.raises(AttributeError, match=f"^{name}: got another object, expected values set i"):
        setattr(model, name, copy.copy(before) if name != "layers" else before[:1])
    model.parameter_buffer *= 2
    model.parameters |= {}
    assert getattr(model, name) is before


@pytest.mark.parametrize("name", ["parameters", "gradients", "state"])
def test_arrays_of_a_layer_keep_their_place(name):
    """As `layer.parameters = best`, which would be used, but neither saved nor trained."""
    for layer in build(device="cpu").layers:
        before = getattr(layer, name)
        with pytest.raises(AttributeError, match=f"^{name}: got another object, expected values"):
            setattr(layer, name, dict(before))
        layer.parameters |= {}
        assert getattr(layer, name) is before
    alone = Dense(3)
    alone.forward(normal(0, 2, 5))
    setattr(alone, name, {})  # shared with no model


@pytest.mark.parametrize(
    ("layer", "name", "value", "sentence"),
    [
        (Conv2D(4, 3, padding=1), "dilation", 2, "got 2, expected 1, with which Conv2D was built"),
        (Dense(3), "bias", False, "got False, expected True, with which Dense was built"),
        (MaxPool2D(1), "kernel", (2, 1), "got .2, 1., expected 1, with which MaxPool2D was built"),
        (AvgPool2D(1), "stride", 2, "got 2, expected None, with which AvgPool2D was built"),
    ],
)
def test_settings_of_which_a_layer_is_built_stay(layer, name, value, sentence):
    """They would be saved, but not used."""
    kept = getattr(layer, name)
    setattr(layer, name, value)
    setattr(layer, name, kept)  # not built yet
    Sequential([layer], (3,) if isinstance(layer, Dense) else (5, 5, 1), "cpu")
    with pytest.raises(AttributeError, match=f"^{name}: {sentence}$"):
        setattr(layer, name, value)
    setattr(layer, name, kept)


def test_settings_are_checked_when_they_are_changed():
    layers = [BatchNorm(), Dropout(0.5), LayerNorm()]
    Sequential(layers, (5,), "cpu")
    changes = [("momentum", 5.0), ("p", 1), ("eps", -1e-5), ("eps", "1e-5")]
    for layer, (name, value) in zip([*layers, layers[0]], changes, strict=True):
        before = getattr(layer, name)
        with pytest.raises((TypeError, ValueError), match=f"^{name}: got {value!r}, expected"):
            setattr(layer, name, value)
        assert getattr(layer, name) == before
    layers[1].p = np.float32(0.25)
    assert type(layers[1].p) is float and layers[1].p == 0.25


def test_arrays_are_copied_as_those_of_any_dict():
    for arrays in dicts_of_arrays(build(device="cpu")):
        for kept in (copy.deepcopy(arrays), pickle.loads(pickle.dumps(arrays))):
            for name, array in arrays.items():
                assert kept[name] is not array and np.array_equal(kept[name], array)
            kept["x"] = kept.pop(name)  # a dict like any other
        assert copy.copy(arrays) == dict(arrays)
