"""Saved models: bits come back, damage is noticed, and a failed save harms nothing."""

import copy
import enum
import json
import os
import re
import stat
from dataclasses import dataclass, field, make_dataclass, replace

import numpy as np
import pytest
from ml_dtypes import bfloat16
from safetensors import safe_open
from safetensors.numpy import save_file

from cnn import (
    SGD,
    AvgPool2D,
    BatchNorm,
    CheckpointError,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    Layer,
    MaxPool2D,
    ReLU,
    Run,
    Sequential,
    Softmax,
    Trainer,
)
from cnn.formats import checkpoint
from tests.lib.support import host, normal

IMAGES = np.random.default_rng(0).integers(256, size=(20, 9, 8), dtype=np.uint8)
LABELS = np.arange(20) % 3


def build(device="cpu", **options):
    """A model with every layer there is, away from its initial values."""
    layers = [
        Conv2D(4, (3, 2), stride=(1, 2), padding=((1, 0), (0, 1)), dilation=1, bias=False),
        BatchNorm(momentum=0.3),
        MaxPool2D(2, stride=1, ceil_mode=True),
        ReLU(),
        Conv2D(6, 3, padding="same", groups=2),
        AvgPool2D(2, padding=1, count_include_pad=False),
        Dropout(0.25),
        Flatten(),
        Dense(3),
        Softmax(),
    ]
    model = Sequential(layers, (9, 8, 1), device, **options)
    Trainer(model, SGD(0.05)).fit((IMAGES, LABELS), batch_size=8)
    return model


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture
def saved(path):
    build().save(path)
    return path


def refusal(path):
    """Return the one sentence that loading says."""
    with pytest.raises(CheckpointError) as caught:
        Sequential.load(path, device="cpu")
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


def files_in(path):
    return sorted(file.name for file in path.parent.iterdir())


# Round trips


def test_everything_comes_back(path, target, dtype):
    model = build(device=target.name, dtype=dtype)
    model.save(path)
    again = Sequential.load(path, device=target.name)
    assert again.target is model.target and again.dtype == dtype
    assert again.input_shape == model.input_shape and again.output_shape == model.output_shape
    assert (again.pixel_mean, again.pixel_std) == (model.pixel_mean, model.pixel_std)
    assert again.summary() == model.summary()
    assert again.parameters.keys() == model.parameters.keys()
    assert again.state.keys() == model.state.keys()
    for buffers in ("parameter_buffer", "gradient_buffer"):
        assert getattr(again, buffers).shape == getattr(model, buffers).shape
    assert host(again.parameter_buffer).tobytes() == host(model.parameter_buffer).tobytes()
    for name, array in model.state.items():
        assert host(again.state[name]).tobytes() == host(array).tobytes()
    assert host(again.predict(IMAGES)).tobytes() == host(model.predict(IMAGES)).tobytes()


def test_saving_over_a_file_replaces_it(saved):
    model = build(seed=1)
    model.save(saved)
    again = Sequential.load(saved, "cpu")
    assert host(again.parameter_buffer).tobytes() == host(model.parameter_buffer).tobytes()
    assert files_in(saved) == ["model.safetensors"]


def test_the_same_model_is_the_same_bytes(path):
    files = set()
    for _ in range(5):
        build().save(path)
        files.add(path.read_bytes())
    assert len(files) == 1


def test_a_loaded_model_trains_on(saved):
    model = Sequential.load(saved, "cpu")
    before = model.parameter_buffer.copy()
    Trainer(model, SGD(0.05)).fit((IMAGES, LABELS), epochs=2)
    assert (model.parameter_buffer != before).any()


def test_a_model_without_arrays(path):
    Sequential([GlobalAvgPool2D()], (4, 4, 2)).save(path)
    assert Sequential.load(path).output_shape == (2,)


@dataclass(eq=False)
class Gain(Layer):
    """A layer of the user's own, with one number to learn."""

    def build(self, shape):
        self.declare("gain", (), lambda _, shape: np.full(shape, -0.0))
        return shape


def test_a_number_to_learn_comes_back(path, target):
    model = Sequential([Gain()], (3,), target.name)
    model.save(path)
    again = Sequential.load(path, target.name).parameters["0.gain"]
    assert again.shape == () and host(again).tobytes() == np.float32(-0.0).tobytes()


def test_the_file_is_plain_safetensors(saved):
    with safe_open(saved, framework="numpy") as file:
        assert file.get_tensor("0.weight").shape == (4, 3, 2, 1)
        architecture = json.loads(file.metadata()["architecture"])
    assert architecture["layers"][2] == [
        "MaxPool2D",
        {"kernel": 2, "stride": 1, "padding": 0, "dilation": 1, "ceil_mode": True},
    ]


def test_the_file_has_the_permissions_of_any_new_file(saved, tmp_path):
    (tmp_path / "other").touch()
    assert stat.S_IMODE(saved.stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


# Damage


def test_a_flipped_bit_anywhere_in_the_header_is_noticed(saved):
    content = saved.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    for position in range(0, header, 3):
        damaged = bytearray(content)
        damaged[position] ^= 0x01
        saved.write_bytes(damaged)
        refusal(saved)


def test_a_flipped_bit_of_a_weight_is_noticed(saved):
    content = bytearray(saved.read_bytes())
    content[-5] ^= 0x10
    saved.write_bytes(content)
    assert refusal(saved) == f"{saved} is damaged: its content is not what was saved"


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.3, 0.999])
def test_a_truncated_file(saved, kept):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(kept * len(content))])
    assert "is damaged or no safetensors file" in refusal(saved)


@pytest.mark.parametrize("content", [b"GIF89a, or so", b"\x80\x04pickle" * 99, b"\0" * 1000])
def test_another_kind_of_file(path, content):
    path.write_bytes(content)
    assert "is damaged or no safetensors file" in refusal(path)


def test_safetensors_of_somebody_else(path):
    save_file({"weight": normal(0, 3)}, path)
    assert "is not a model of this version: no format, not cnn-kernels model" in refusal(path)
    save_file({"weight": normal(0, 3)}, path, {"format": "pt"})
    assert "is not a model of this version: pt, not" in refusal(path)
    save_file({"weight": normal(0, 3).astype(bfloat16)}, path)
    assert "is not a model of this version: no format, not" in refusal(path)


@pytest.mark.parametrize("kind", ["bool", "int8", "uint64", "float16", "complex64", bfloat16])
def test_arrays_of_every_type_come_back(path, kind):
    """A model on a GPU may be bfloat16, and an optimizer's arrays may have any type."""
    arrays = {"weight": normal(0, 3, 2).astype(kind), "number": np.zeros((), kind)}
    Trainer(Sequential([], (2,)), SGD(0.1)).save(path)
    content = replace(checkpoint.read(path), arrays=arrays, training_arrays=arrays)
    checkpoint.write(path, content)
    content = checkpoint.read(path)
    for found in (content.arrays, content.training_arrays):
        for name, expected in arrays.items():
            assert found[name].dtype == kind and found[name].shape == expected.shape
            assert found[name].tobytes() == expected.tobytes()


def test_a_model_of_bfloat16_where_there_is_none(saved, monkeypatch):
    content = checkpoint.read(saved)
    narrow = {name: array.astype(bfloat16) for name, array in content.arrays.items()}
    described = content.architecture | {"dtype": "bfloat16"}
    checkpoint.write(saved, checkpoint.Content(described, narrow, None, {}))
    assert "dtype: got bfloat16 on cpu, expected one of float32, float64" in refusal(saved)
    # Without ml_dtypes, NumPy does not know the name.
    monkeypatch.setitem(checkpoint._DTYPES, "BF16", "bfloat16 of ml_dtypes")
    assert "holds arrays of a type unknown here: data type 'bfloat16" in refusal(saved)


def test_arrays_of_another_model(saved):
    with safe_open(saved, framework="numpy") as file:
        metadata, names = file.metadata(), list(file.keys())
        arrays = {name: file.get_tensor(name) for name in names}
    save_file(arrays | {"8.bias": np.zeros(4, np.float32)}, saved, metadata)
    assert "is damaged: its content is not what was saved" in refusal(saved)
    del arrays["8.bias"]
    save_file(arrays, saved, metadata)
    assert "is damaged: its content is not what was saved" in refusal(saved)


def test_a_missing_file_is_named(path):
    with pytest.raises(FileNotFoundError, match="model.safetensors"):
        Sequential.load(path)


# Layers that are not what they were


KINDS = []  # a class that nothing refers to is gone, sooner or later


def own_layer(name, shape=(1,), **settings):
    """Define a layer class now, as if a module that has it were imported."""

    def build(self, inputs):
        self.declare("weight", shape, lambda _, shape: np.ones(shape))
        return inputs

    fields = [(setting, int, default) for setting, default in settings.items()]
    namespace = {"build": build}
    kind = make_dataclass(name, fields, bases=(Layer,), namespace=namespace, eq=False)
    KINDS.append(kind)
    return kind


def test_a_layer_that_is_not_defined_here(path):
    kind = own_layer("Elsewhere")
    Sequential([kind()], (2,)).save(path)
    kind.__name__ = "Renamed"
    sentence = "has a layer Elsewhere, which is not defined here; import the module that has it"
    assert refusal(path) == f"{path} {sentence}"


def test_a_layer_that_has_other_settings_now(path):
    Sequential([own_layer("Resized", size=3)(size=4)], (2,)).save(path)
    own_layer("Resized", width=3)
    assert f"{path} has a layer Resized of other settings: " in refusal(path)


def test_a_layer_that_has_other_arrays_now(path):
    Sequential([own_layer("Reshaped")()], (2,)).save(path)
    own_layer("Reshaped", shape=(2,))
    assert refusal(path) == f"{path} holds other arrays than its architecture has"


def test_a_layer_that_cannot_be_built_any_more(path):
    kind = own_layer("Choosy")
    Sequential([kind()], (2,)).save(path)

    def build(self, shape):
        raise ValueError("shape: got (2,), expected more")

    kind.build = build
    assert refusal(path).endswith("cannot be built here: shape: got (2,), expected more")


def test_a_layer_named_as_one_of_the_package(path, tmp_path):
    """Each comes back as what it was; a command, which knows the package alone, says so."""
    kind, other = own_layer("ReLU"), tmp_path / "other"
    kind.__module__ = "mine"
    Sequential([ReLU()], (2,)).save(path)
    Sequential([kind()], (2,)).save(other)
    assert type(Sequential.load(path).layers[0]) is ReLU
    assert type(Sequential.load(other).layers[0]) is kind
    kind.__module__ = "elsewhere"
    expected = r"other has a layer mine\.ReLU, which is not defined here; import the module that"
    with pytest.raises(CheckpointError, match=expected):
        Sequential.load(other)


class Plain(Layer):
    """Without @dataclass: its settings are not known."""

    def __init__(self, size):
        self.size = size


class Size(enum.IntEnum):
    LARGE = 3


class Described(Plain):
    """It says its settings itself."""

    def settings(self):
        return {"size": self.size}


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        (
            lambda: Plain(3),
            "Plain: is no dataclass, expected one whose fields are its settings, or a method "
            "`settings` of its own that returns them; see `Layer.settings`",
        ),
        (lambda: own_layer("Sized", size=0)(np.zeros(2)), "Sized: size: got ndarray"),
        (lambda: own_layer("Sized", size=0)({"a": (np.zeros(2),)}), "Sized: size: got dict"),
        (lambda: Described(np.zeros(2)), "Described: size: got ndarray"),
        # JSON would hold "3" and 3 in place of them.
        (lambda: Described([{3: 0.5}]), "Described: size: got list"),
        (lambda: own_layer("Sized", size=0)(Size.LARGE), "Sized: size: got <Size.LARGE: 3>"),
    ],
)
@pytest.mark.parametrize("what", ["model", "training", "copy", "run"])
def test_a_layer_that_no_file_can_hold(layer, sentence, what, path):
    if "got" in sentence:
        sentence += ", expected what JSON holds: numbers, strings, lists of them, dicts from "
        sentence += "strings to them, True, False or None; see `Layer.settings`"
    model = Sequential([layer(), Flatten(), Dense(2)], (2, 1, 1), "cpu")
    trainer = Trainer(model, SGD(0.1), run=Run(path.parent) if what == "run" else None)
    data = np.zeros((4, 2, 1, 1), np.float32), np.zeros(4, np.int64)
    save = {
        "model": lambda: model.save(path),
        "training": lambda: trainer.save(path),
        "copy": lambda: copy.deepcopy(model),
        "run": lambda: trainer.fit(data),
    }[what]
    with pytest.raises(TypeError, match=f"^{re.escape(sentence)}$"):
        save()
    assert trainer.steps == 0 and not path.exists()


@dataclass(eq=False)
class Counted(Layer):
    """It has a field that its constructor does not take."""

    size: int
    count: int = field(default=0, init=False)


def test_a_field_that_is_no_argument_is_no_setting(path):
    Sequential([Counted(3)], (2,), "cpu").save(path)
    assert Sequential.load(path, "cpu").layers[0].size == 3


def test_a_layer_that_says_its_settings_itself_comes_back(path):
    Sequential([Described(3)], (2,), "cpu").save(path)
    assert Sequential.load(path, "cpu").layers[0].size == 3


# Saves that fail


def test_a_save_that_fails_leaves_the_previous_file(saved, monkeypatch):
    before = saved.read_bytes()

    def full_disk(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left on device"):
        build(seed=1).save(saved)
    assert saved.read_bytes() == before
    assert files_in(saved) == ["model.safetensors"]


def test_an_interrupted_save_leaves_nothing_behind(path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build().save(path)
    assert files_in(path) == []


def test_a_folder_that_is_not_there(tmp_path):
    model = build()
    with pytest.raises(FileNotFoundError):
        model.save(tmp_path / "nowhere" / "model.safetensors")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        model.save(tmp_path / "file" / "model.safetensors")
