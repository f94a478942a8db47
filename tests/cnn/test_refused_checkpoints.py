"""Checkpoints that a training refuses: those of another one, and damaged ones."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from cnn import EMA, SGD, Adam, CheckpointError, Dataset, Sequential, Trainer
from cnn.formats import checkpoint as saved_files
from tests.lib.resumed import BATCH, DATA, EPOCHS, fit, interrupted, layers, make, refused

# What does not fit


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    run = interrupted(tmp_path_factory.mktemp("resume") / "run", 8, ema=EMA(0.9))
    return run.latest


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"units": 4}, "is of another architecture: layer 6 is Dense(units=3, bias=True), expecte"),
        ({"dtype": "float64"}, "is of another architecture: dtype is float32, expected float64"),
        ({"optimizer": Adam()}, "was saved by a training with optimizer SGD(lr=0.05, momentum=0."),
        ({"optimizer": SGD(0.1, momentum=0.9)}, "was saved by a training with optimizer SGD(lr=0"),
        ({"schedule": None}, "with schedule OneCycle(peak=0.25, start=0.1, final=0.0), expected C"),
        ({"augment": None}, "with augment Augment(rotate=10, shift=1, zoom=0.1), expected None"),
        ({"ema": None}, "was saved by a training with ema EMA(decay=0.9), expected None"),
        ({"seed": 4}, "was saved by a training with seed 3, expected 4"),
        ({"fresh_statistics": True}, "by a training with fresh_statistics False, expected True"),
    ],
    ids=str,
)
def test_a_training_of_other_settings_is_refused(changes, sentence, checkpoint):
    trainer = make(**({"ema": EMA(0.9)} | changes))
    refused(trainer, checkpoint, sentence)
    assert trainer.history == [] and trainer.steps == 0


def test_a_model_without_its_training(tmp_path):
    path = tmp_path / "model.safetensors"
    make().model.save(path)
    refused(make(), path, "is a model without its training: that cannot go on")


def test_a_model_of_fewer_layers_is_refused(checkpoint):
    model = Sequential(layers()[:-1], (9, 9, 1), "cpu")
    sentence = "layer 6 is Dense(units=3, bias=True), expected missing"
    refused(Trainer(model, SGD(0.05)), checkpoint, sentence)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"epochs": 5}, "epochs: got 5, expected 4 as in the training restored"),
        ({"batch_size": 8}, "batch_size: got 8, expected 16 as in the training restored"),
        ({"data": (DATA[0][:39], DATA[1][:39])}, "the number of images: got 39, expected 40 as"),
        ({"data": (DATA[0], DATA[1][::-1])}, "the digest of the labels: got '"),
        ({"data": (DATA[0].swapaxes(1, 2), DATA[1])}, "the digest of the images: got '"),
        ({"data": Dataset(*DATA, "other")}, "data: got 'other', expected 'data' as in the train"),
    ],
    ids=["epochs", "batch size", "images", "labels", "pixels", "data"],
)
def test_a_fit_of_other_arguments_is_refused(change, sentence, checkpoint):
    trainer = make(ema=EMA(0.9))
    trainer.restore(checkpoint)
    options = {"data": DATA, "epochs": EPOCHS, "batch_size": BATCH}
    with pytest.raises(ValueError) as caught:
        trainer.fit(**(options | change))
    assert sentence in str(caught.value)
    assert trainer.fit(**options)[-1]["epoch"] == EPOCHS  # what fits still goes on


# Damage


def damaged(path, content):
    path.write_bytes(content)
    return path


def test_a_truncated_checkpoint(checkpoint, tmp_path):
    content = checkpoint.read_bytes()
    for kept in (0, 7, 500, len(content) // 2, len(content) - 1):
        path = damaged(tmp_path / "cut.safetensors", content[:kept])
        refused(make(ema=EMA(0.9)), path, "is damaged or no safetensors file")


def test_a_flipped_bit_anywhere(checkpoint, tmp_path):
    content = checkpoint.read_bytes()
    for position in [*range(0, len(content), 997), len(content) - 1]:
        changed = bytearray(content)
        changed[position] ^= 0x10
        path = damaged(tmp_path / "flipped.safetensors", changed)
        refused(make(ema=EMA(0.9)), path, "is ")


@pytest.mark.parametrize("version", ["cnn-kernels model 0", "cnn-kernels model 2"])
def test_an_older_or_newer_format(version, checkpoint, tmp_path):
    with safe_open(checkpoint, framework="numpy") as file:
        metadata = file.metadata() | {"format": version}
        arrays = {name: file.get_tensor(name) for name in list(file.keys())}
    path = tmp_path / "other.safetensors"
    save_file(arrays, path, metadata)
    sentence = f"is not a model of this version: {version}, not cnn-kernels model 1"
    refused(make(ema=EMA(0.9)), path, sentence)


def test_no_part_of_the_file_is_left_out_of_the_hash(checkpoint, tmp_path):
    """The training's state, beside the model's, is hashed, too."""
    with safe_open(checkpoint, framework="numpy") as file:
        metadata = file.metadata()
        arrays = {name: file.get_tensor(name) for name in list(file.keys())}
    training = json.loads(metadata["training"]) | {"steps": 7}
    path = tmp_path / "changed.safetensors"
    save_file(arrays, path, metadata | {"training": json.dumps(training)})
    refused(make(ema=EMA(0.9)), path, "is damaged: its content is not what was saved")
    for name in arrays:
        changed = {**arrays, name: arrays[name] + 1}
        save_file(changed, path, metadata)
        refused(make(ema=EMA(0.9)), path, "is damaged: its content is not what was saved")


def test_a_file_edited_by_hand(tmp_path):
    """Its hash was computed anew, so that only the content tells."""
    trainer, path = make(ema=EMA(0.9)), tmp_path / "edited.safetensors"
    fit(trainer)
    trainer.save(path)
    whole = saved_files.read(path)
    for kind in ("architecture", "training"):
        described = getattr(whole, kind)
        for key in described:
            for wrong in ({}, {key: "?" if key != "dtype" else 32}):
                rest = {name: value for name, value in described.items() if name != key}
                saved_files.write(path, replace(whole, **{kind: rest | wrong}))
                sentence = f"is damaged: its {kind} has no {key!r} as it is saved"
                refused(make(ema=EMA(0.9)), path, sentence)
                with pytest.raises(CheckpointError, match=sentence):
                    Sequential.load(path)
    changes = [
        ({"draws": [[0, 0]]}, "its training has draws of other layers"),
        ({"course": {"epochs": 4}}, "its training has another 'course': "),
        ({"history": [{"epoch": 1}]}, "its training has no 'history' as it is saved"),
    ]
    for change, sentence in changes:
        saved_files.write(path, replace(whole, training=whole.training | change))
        refused(make(ema=EMA(0.9)), path, sentence)
    for name, array in whole.training_arrays.items():
        rest = {other: value for other, value in whole.training_arrays.items() if other != name}
        for wrong in ({}, {name: np.zeros(3, np.float32)}, {name: np.zeros(1, np.float32)}):
            saved_files.write(path, replace(whole, training_arrays=rest | wrong))
            sentence = f"is damaged: its training has no {name!r} of shape {array.shape}"
            refused(make(ema=EMA(0.9)), path, sentence)
    for text in ("", "[1]"):
        path.write_bytes(saved_files.to_bytes(whole))
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in list(file.keys())}
        described = {"architecture": text}
        digest = saved_files._digest(described, arrays)
        save_file(arrays, path, {"format": saved_files._FORMAT, **described, "sha256": digest})
        refused(make(ema=EMA(0.9)), path, "is damaged: its architecture ")
