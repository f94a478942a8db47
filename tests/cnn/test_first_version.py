"""A checkpoint that the first version wrote loads, goes on, and has the keys of today's.

first_version.safetensors is epoch-0001 of the training below, written by the first commit that
could save a training (7666fce, on x86-64).
"""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from cnn import (
    EMA,
    SGD,
    Augment,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    MaxPool2D,
    OneCycle,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
    Trainer,
)

FILE = Path(__file__).with_name("first_version.safetensors")
ADDED = {"reached", "shards", "labels", "pixels"}  # to the course, since


def contents(path):
    """Return a file's arrays by name, and its metadata as JSON."""
    with safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    return arrays, {name: json.loads(metadata[name]) for name in ("architecture", "training")}


def data():
    random = np.random.default_rng(0)
    images = random.integers(256, size=(10, 6, 6, 1), dtype=np.uint8)
    return images, random.integers(3, size=10)


def training():
    """The training of the file: four steps of four images at most, over two epochs."""
    layers = [Conv2D(2, 3, bias=False), BatchNorm(), ReLU(), MaxPool2D(2), Dropout(0.25)]
    return Trainer(
        Sequential([*layers, Flatten(), Dense(3)], (6, 6, 1), device="cpu", seed=5),
        SGD(0.1, momentum=0.9),
        SoftmaxCrossEntropy(label_smoothing=0.1),
        OneCycle(),
        Augment(rotate=10, shift=1, zoom=0.1),
        seed=3,
        ema=EMA(0.9),
    )


def test_its_model_loads():
    arrays, described = contents(FILE)
    model = Sequential.load(FILE, "cpu")
    found = {**model.parameters, **model.state}
    assert found.keys() == {name for name in arrays if not name.startswith("training.")}
    for name, array in found.items():
        np.testing.assert_array_equal(array, arrays[name])
    settings = [[type(layer).__name__, layer.settings()] for layer in model.layers]
    assert json.loads(json.dumps(settings)) == described["architecture"]["layers"]
    assert model.has_pixel_statistics and model.predict(data()[0]).shape == (10, 3)


def test_its_training_goes_on():
    trainer = training()
    trainer.restore(FILE)
    arrays, described = contents(FILE)
    np.testing.assert_array_equal(trainer.ema.average, arrays["training.weights"])
    velocity = trainer.optimizer.state["velocity"]
    np.testing.assert_array_equal(velocity, arrays["training.optimizer.velocity"])
    first = described["training"]["history"]
    assert trainer.history == first and len(first) == 1 and trainer.steps == 3
    trainer.fit(data(), epochs=2, batch_size=4)
    assert trainer.steps == 6 and trainer.course.finished
    # What the first version came to; sums have been taken in other orders since.
    assert trainer.history[1]["train_loss"] == pytest.approx(1.15295, rel=1e-4)


def test_today_it_would_have_the_same_keys(tmp_path):
    trainer = training()
    trainer.restore(FILE)
    trainer.save(tmp_path / "again.safetensors")
    arrays, described = contents(FILE)
    arrays_now, described_now = contents(tmp_path / "again.safetensors")
    assert arrays_now.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(arrays_now[name], array, err_msg=name)
    assert described_now["architecture"] == described["architecture"]
    then, now = described["training"], described_now["training"]
    assert now.keys() == then.keys()
    assert now["settings"].pop("fresh_statistics") == "False"  # added since
    assert {name for name in then if now[name] != then[name]} <= {"course"}
    trainer.fit(data(), epochs=2, batch_size=4)
    trainer.save(tmp_path / "finished.safetensors")
    course = contents(tmp_path / "finished.safetensors")[1]["training"]["course"]
    assert course.keys() - ADDED == then["course"].keys()
