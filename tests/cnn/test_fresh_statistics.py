"""Running statistics of batch normalisation, taken anew after a training."""

from contextlib import suppress

import numpy as np
import pytest

from cnn import (
    EMA,
    SGD,
    Augment,
    BatchNorm,
    Conv2D,
    Dataset,
    Dense,
    Dropout,
    Flatten,
    ReLU,
    Run,
    Sequential,
    Trainer,
    update_batch_norm,
)
from cnn.layers import Layer
from kernels.runtime import cpu_target
from tests.lib import comparison, reference
from tests.lib.support import host, normal

LABELS = np.arange(23) % 3
PIXELS = np.random.default_rng(0).integers(256, size=(23, 6, 5, 1), dtype=np.uint8)
IMAGES = normal(1, 23, 6, 5, 1)


def network(target, dtype="float64"):
    layers = [Conv2D(4, 3), BatchNorm(momentum=0.3), ReLU(), Flatten()]
    layers += [Dense(5), BatchNorm(), ReLU(), Dropout(0.5), Dense(3)]
    return Sequential(layers, (6, 5, 1), target.name, dtype)


def moments(x):
    """Return mean and unbiased variance of each channel, and x normalised."""
    axes = tuple(range(x.ndim - 1))
    mean, var = x.mean(axes), x.var(axes)
    return mean, x.var(axes, ddof=1), (x - mean) / np.sqrt(var + 1e-5)


def expected_statistics(model, images, batch_size):
    """Return the means over whole batches of the moments before both layers; gamma is 1, beta 0."""
    p = {name: host(array) for name, array in model.parameters.items()}
    images = images[np.random.default_rng(0).permutation(len(images))]
    found = []
    for start in range(0, len(images) - batch_size + 1, batch_size):
        x = images[start : start + batch_size]
        *first, x = moments(reference.conv2d(x, p["0.weight"], p["0.bias"]))
        x = np.maximum(x, 0).reshape(len(x), -1)
        *second, _ = moments(reference.dense(x, p["4.weight"].T, p["4.bias"]))
        found.append([*first, *second])
    return [np.mean(of_one, axis=0) for of_one in zip(*found, strict=True)]


@pytest.mark.parametrize("batch_size", [7, 23, 100])
def test_they_are_the_means_of_whole_batches(target, batch_size):
    model = network(target)
    before = host(model.parameter_buffer)
    update_batch_norm(model, target.array(IMAGES), batch_size)
    expected = expected_statistics(model, IMAGES, min(batch_size, len(IMAGES)))
    for array, values in zip(model.state.values(), expected, strict=True):
        comparison.assert_close(array, values, rtol=1e-12)
    np.testing.assert_array_equal(host(model.parameter_buffer), before)
    assert [layer.momentum for layer in model.layers if isinstance(layer, BatchNorm)] == [0.3, 0.1]
    again = host(model.state_buffer)
    update_batch_norm(model, target.array(IMAGES), batch_size)  # does not depend on what they were
    np.testing.assert_array_equal(host(model.state_buffer), again)


def test_images_may_be_sorted_by_class(target):
    """Each batch in the order given would have images of one class, whose variance is small."""
    model = Sequential([BatchNorm(), Flatten(), Dense(3)], (6, 5, 1), target.name)
    means = np.repeat(np.float32([0, 10, 20]), 20)
    images = normal(1, 60, 6, 5, 1, dtype=np.float32) + means[:, None, None, None]
    update_batch_norm(model, images, 10)
    (variance,) = host(model.state["0.running_var"])
    assert abs(variance / images.var() - 1) < 0.1


def test_a_prediction_takes_them(target):
    model = network(target)
    images = target.array(IMAGES)
    before = host(model.predict(images))
    update_batch_norm(model, images, 23)
    after = host(model.predict(images))
    assert abs(after - before).max() > 1e-3
    comparison.assert_close(after, host(model.forward(images)), rtol=1e-12)


def trained(target, epochs=2, path=None, **settings):
    model = network(target, "float32")
    augment = Augment(rotate=40, shift=1, zoom=0.3)
    trainer = Trainer(model, SGD(0.1, momentum=0.9), augment=augment, **settings)
    if path is not None:
        trainer.restore(path)
    trainer.fit((PIXELS, LABELS), epochs, 8, validation=(PIXELS, LABELS))
    return trainer


@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_training_ends_with_them(target, ema):
    def average():
        return None if ema is None else EMA(ema)

    plain, fresh = (
        trained(target, ema=average()),
        trained(target, ema=average(), fresh_statistics=True),
    )
    ours, theirs = fresh.model, plain.model
    np.testing.assert_array_equal(host(ours.parameter_buffer), host(theirs.parameter_buffer))
    assert abs(host(ours.state_buffer) - host(theirs.state_buffer)).max() > 1e-3
    update_batch_norm(theirs, PIXELS, 8)
    np.testing.assert_array_equal(host(ours.state_buffer), host(theirs.state_buffer))
    assert fresh.history[0]["validation_loss"] == plain.history[0]["validation_loss"]
    assert fresh.history[1]["validation_loss"] == fresh.evaluate((PIXELS, LABELS))["loss"]


def test_a_resumed_training_ends_with_the_same(target, tmp_path):
    whole = trained(target, 2, fresh_statistics=True)

    class OfOneEpoch(Run):
        def epoch(self, training):
            super().epoch(training)
            raise KeyboardInterrupt

    (tmp_path / "run").mkdir()
    half = Trainer(
        network(target, "float32"),
        SGD(0.1, momentum=0.9),
        augment=Augment(rotate=40, shift=1, zoom=0.3),
        fresh_statistics=True,
        run=OfOneEpoch(tmp_path / "run"),
    )
    with pytest.raises(KeyboardInterrupt):
        half.fit((PIXELS, LABELS), 2, 8)
    resumed = trained(target, 2, half.run.latest, fresh_statistics=True)
    for name, array in whole.model.arrays.items():
        np.testing.assert_array_equal(host(resumed.model.arrays[name]), host(array), err_msg=name)


def test_no_more_images_at_a_time_than_in_a_shard(monkeypatch):
    """Memory need not suffice for more."""
    taken = []
    monkeypatch.setattr("cnn.trainer.update_batch_norm", lambda *arguments: taken.append(arguments))
    trainer = trained(cpu_target(), shards=2, fresh_statistics=True)
    ((model, images, batch_size),) = taken
    assert model is trainer.model and len(images) == 23 and batch_size == 4


def test_without_batch_norm_nothing_changes():
    model = Sequential([Flatten(), Dropout(0.5), Dense(3)], (6, 5, 1), "cpu")
    before = model.predict(IMAGES).tobytes()
    update_batch_norm(model, IMAGES)
    assert model.predict(IMAGES).tobytes() == before and model.layers[1].draws == 0


def test_ctrl_c_at_the_end_leaves_the_momentum(monkeypatch):
    """Setting a layer's attribute runs Python code that checks it; Ctrl-C may come there."""
    model = network(cpu_target())
    setting = Layer.__setattr__

    def interrupted(layer, name, value):
        if name == "momentum" and value == 0.3:  # what it was before
            raise KeyboardInterrupt
        setting(layer, name, value)

    monkeypatch.setattr(Layer, "__setattr__", interrupted)
    with suppress(KeyboardInterrupt):
        update_batch_norm(model, IMAGES, 5)
    assert model.layers[1].momentum == 0.3


def test_images_may_be_a_list():
    found = []
    for images in (IMAGES, IMAGES.tolist()):
        model = network(cpu_target())
        update_batch_norm(model, images, 5)
        found.append(model.state_buffer.tobytes())
    assert found[0] == found[1]


def test_bad_arguments_change_nothing():
    model = Sequential([Flatten(), Dense(3), BatchNorm(momentum=0.4)], (6, 5, 1), "cpu")
    before = model.state_buffer.tobytes()
    for images in (None, (IMAGES, IMAGES), Dataset(IMAGES, np.zeros(len(IMAGES), int))):
        with pytest.raises(ValueError, match="images: got shape .*, expected"):
            update_batch_norm(model, images)
    with pytest.raises(ValueError, match="images: got none, expected at least one"):
        update_batch_norm(model, IMAGES[:0])
    with pytest.raises(ValueError, match=r"batch_size: got 0, expected at least 1"):
        update_batch_norm(model, IMAGES, 0)
    with pytest.raises(
        ValueError, match=r"x: got shape .*, expected more than one value per channel"
    ):
        update_batch_norm(model, IMAGES, 1)
    with pytest.raises(ValueError, match=r"images: got shape \(23, 5, 6, 1\)"):
        update_batch_norm(model, IMAGES.reshape(23, 5, 6, 1))
    with pytest.raises(ValueError, match=r"images: got shape \(23, 0, 5, 1\)"):
        update_batch_norm(model, IMAGES[:, :0, :, 0])
    assert model.state_buffer.tobytes() == before and model.layers[2].momentum == 0.4
    with pytest.raises(TypeError, match="model: got None, expected an object of class Network"):
        update_batch_norm(None, IMAGES)
    with pytest.raises(TypeError, match="fresh_statistics: got 'yes', expected True or False"):
        Trainer(model, SGD(0.1), fresh_statistics="yes")


def test_an_error_after_the_first_layer_or_batch_changes_nothing(target):
    rows = [Flatten(), Dense(3), BatchNorm()]
    model = Sequential([BatchNorm(), *rows], (6, 5, 1), target.name, "float64")
    before = host(model.state_buffer).copy()
    with pytest.raises(ValueError, match="expected more than one value per channel to train on"):
        update_batch_norm(model, target.array(IMAGES), 1)  # the first layer has 30
    np.testing.assert_array_equal(host(model.state_buffer), before)
    images = IMAGES.copy()
    images[-1, 0, 0] = np.nan
    with pytest.raises(ValueError, match="^images: hold NaN or infinity as float64, expected fini"):
        update_batch_norm(model, target.array(images[1:]), 11)
    np.testing.assert_array_equal(host(model.state_buffer), before)
