"""The trainer: what a training does to a model, data it takes and refuses, interruption."""

import copy
import hashlib
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from ml_dtypes import bfloat16

from cnn import (
    EMA,
    SGD,
    Adam,
    AdamW,
    Augment,
    BatchNorm,
    Conv2D,
    Dataset,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPool2D,
    OneCycle,
    ReLU,
    Run,
    Sequential,
    Softmax,
    SoftmaxCrossEntropy,
    Trainer,
    evaluate,
)
from cnn.fusion import fuse
from tests.lib import network_reference
from tests.lib.comparison import assert_close
from tests.lib.support import NARROW, host, unit_roundoff


def noise(count, classes=4):
    """Random images with random labels: nothing to learn but by heart."""
    random = np.random.default_rng(0)
    images = random.integers(256, size=(count, 12, 12), dtype=np.uint8)
    return images, random.integers(classes, size=count, dtype=np.uint8)


def textbook():
    return [Conv2D(6, 3), MaxPool2D(2), ReLU(), Conv2D(8, 3), Flatten(), Dense(4)]


def normalised():
    return [Conv2D(6, 3, padding="same", bias=False), BatchNorm(), ReLU(), Flatten(), Dense(4)]


def build(layers=textbook, device="cpu", **options):
    return Sequential(layers(), (12, 12, 1), device, **options)


def bits(model):
    arrays = (model.parameter_buffer, *model.state.values())
    return b"".join(host(array).tobytes() for array in arrays)


def trained_bits(data, layers=textbook, optimizer=None, epochs=2, **options):
    model = build(layers)
    optimizer = optimizer or SGD(0.05, momentum=0.9)
    Trainer(model, optimizer, **options).fit(data, epochs, batch_size=8)
    return bits(model)


# What a training comes to


def test_one_batch_is_learned_by_heart():
    model = build()
    data = noise(32)
    trainer = Trainer(model, Adam(1e-2))
    first, *_, last = trainer.fit(data, epochs=100, batch_size=32)
    assert first["train_loss"] > 1 and last["train_loss"] < 1e-3
    found = trainer.evaluate(data)
    assert found["accuracy"] == 1 and found["loss"] < 1e-3


TRAININGS = {
    "momentum": (textbook, lambda: SGD(0.05, momentum=0.9)),
    "decay": (textbook, lambda: SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01)),
    "batch-norm, Adam": (normalised, lambda: Adam(1e-2)),
    "batch-norm, AdamW": (normalised, lambda: AdamW(1e-2, weight_decay=0.1)),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_ten_steps_equal_the_oracles(name, target, dtype):
    layers, optimizer = TRAININGS[name]
    data = noise(40)
    model = build(layers, device=target.name, dtype=dtype)
    network = network_reference.Network(model)
    losses, fused = [], SoftmaxCrossEntropy()

    def recording_loss(outputs, labels):
        loss, gradient = fused(outputs, labels)
        losses.append(float(loss))
        return loss, gradient

    trainer = Trainer(model, optimizer(), recording_loss, OneCycle(), seed=3)
    # Five steps an epoch, the last of four images.
    history = trainer.fit(data, epochs=2, batch_size=9)
    expected = network_reference.train(
        network,
        data,
        optimizer(),
        steps=10,
        batch_size=9,
        seed=3,
        factor=lambda step: OneCycle()(step, 10),
    )
    # A narrow type rounds anew in each of ten steps.
    rtol = {"float32": 1e-3, "float64": 1e-9}.get(dtype.name, 10 * unit_roundoff(dtype))
    assert_close(losses, expected, rtol=rtol)
    # There single parameters are off by whole steps: rounding moves the maximum of a pool, and the
    # sign of a small gradient, which is all that Adam takes of it.
    for name, values in () if dtype.name in NARROW else network.named_parameters().items():
        assert_close(model.parameters[name], values, rtol=rtol)
    for position, state in enumerate(network.state):
        for name, values in state.items():
            assert_close(model.state[f"{position}.{name}"], values, rtol=rtol)
    of_epochs = np.average(np.reshape(expected, (2, 5)), axis=1, weights=[9, 9, 9, 9, 4])
    assert_close([record["train_loss"] for record in history], of_epochs, rtol=rtol)


def test_the_textbook_pair_trains_like_the_fused_loss():
    plain, pair = build(dtype="float64"), build(lambda: [*textbook(), Softmax()], dtype="float64")
    for model in (plain, pair):
        Trainer(model, SGD(0.05, momentum=0.9)).fit(noise(40), epochs=2, batch_size=8)
    assert_close(pair.parameter_buffer, plain.parameter_buffer, rtol=1e-11)


# Repeatability


def everything_random(seed=0):
    """Train with everything that draws random numbers and return the SHA-256 of the bits."""
    layers = [*normalised()[:-1], Dropout(0.3), Dense(4)]
    model = Sequential(layers, (12, 12, 1), device="cpu", seed=seed)
    augment = Augment(rotate=10, shift=1, zoom=0.1)
    # As many images as make several blocks of every kernel, so that threads share them.
    trainer = Trainer(model, Adam(1e-2), augment=augment, seed=seed, ema=EMA(0.9))
    trainer.fit(noise(300), epochs=2, batch_size=128)
    return hashlib.sha256(bits(model)).hexdigest()


def test_same_seed_same_bits_another_seed_others():
    first = everything_random()
    assert everything_random() == first != everything_random(seed=1)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_same_bits_in_another_process_with_any_number_of_threads(threads):
    environment = os.environ | {
        "KERNELS_THREADS": str(threads),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    script = "from tests.cnn import test_trainer; print(test_trainer.everything_random())"
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == everything_random(), done.stderr


def test_two_trainings_of_one_epoch_are_one_of_two():
    for ema in (None, 0.5):
        once, twice = build(), build()
        for model, fits in ((once, [2]), (twice, [1, 1])):
            average = None if ema is None else EMA(ema)
            trainer = Trainer(model, SGD(0.05, momentum=0.9), ema=average)
            for epochs in fits:
                trainer.fit(noise(30), epochs, batch_size=8)
        assert bits(once) == bits(twice)


@pytest.mark.parametrize("plan", [True, False])
def test_an_average_of_another_model_starts_anew(plan):
    used, losses = EMA(0.9), []
    for average in (used, used, EMA(0.9)):  # the second model is of another size, then not
        for layers in (normalised, textbook):
            model = Sequential(layers(), (12, 12, 1), device="cpu", seed=len(losses) % 2)
            trainer = Trainer(model, SGD(0.05), ema=average, plan=plan)
            trainer.fit(noise(30), 1, batch_size=8)
            losses.append((trainer.history[0]["train_loss"], *bits(model)))
    assert losses[:2] == losses[2:4] == losses[4:]


def interrupted(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("plan", [True, False])
def test_weights_given_between_trainings_are_trained(plan, stopped, monkeypatch):
    """Not those that the average was taken of."""
    trainer = Trainer(build(), SGD(0.05), ema=EMA(0.9), plan=plan)
    if stopped:  # before its first step, when kernels are compiled
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr("cnn.trainer.Bar", interrupted)
            trainer.fit(noise(30), 1, batch_size=8)
    else:
        trainer.fit(noise(30), 1, batch_size=8)
    trainer.model.parameter_buffer[...] = build(seed=5).parameter_buffer
    other = Trainer(copy.deepcopy(trainer.model), SGD(0.05), ema=EMA(0.9), plan=plan)
    other.images_seen = trainer.images_seen  # for the same order
    for each in (trainer, other):
        each.fit(noise(30), 1, batch_size=8)
    assert bits(trainer.model) == bits(other.model)


def test_an_optimizer_of_another_model_is_refused_before_anything_is_written(tmp_path):
    optimizer = SGD(0.05, momentum=0.9)
    Trainer(build(), optimizer).fit(noise(8), 1, 8)
    run = Run.create(tmp_path / "run")
    for plan in (True, False):
        with pytest.raises(ValueError, match="optimizer: its state is that of another model's"):
            Trainer(build(), optimizer, plan=plan, run=run).fit(noise(8), 1, 8)
    assert list(run.folder.iterdir()) == []


@dataclass(eq=False)
class Least(Layer):
    """Has a statistic that begins at infinity."""

    def build(self, shape):
        self.declare("least", shape, lambda _, shape: np.full(shape, np.inf), trained=False)
        return shape

    def forward(self, x, training=False):
        return x

    def backward(self, dy):
        return dy


def test_a_state_may_hold_infinity():
    model = Sequential([Least(), Flatten(), Dense(4)], (12, 12, 1), "cpu")
    assert Trainer(model, SGD(0.01)).fit(noise(8), 2, 8)


# Batches, order and normalisation


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own():
    shown, offsets = [], []

    def spy(images, *, seed, offset):
        assert seed == 7
        shown.append(images[:, 0, 0].tolist())
        offsets.append(offset)
        return images

    images = np.zeros((23, 12, 12), np.uint8)
    images[:, 0, 0] = np.arange(23)
    trainer = Trainer(build(), SGD(0.01), augment=spy, seed=7)
    trainer.fit((images, np.zeros(23, int)), epochs=3, batch_size=10)
    assert list(map(len, shown)) == [10, 10, 3] * 3 and offsets == list(range(9))
    epochs = [sum(shown[start : start + 3], []) for start in (0, 3, 6)]
    assert all(sorted(order) == list(range(23)) for order in epochs)
    assert len(set(map(tuple, epochs))) == 3
    assert trainer.images_seen == 69


def test_a_batch_size_beyond_the_data_is_one_batch():
    model, same = build(), build()
    Trainer(model, SGD(0.05)).fit(noise(8), batch_size=8)
    Trainer(same, SGD(0.05)).fit(noise(8), batch_size=1000)
    assert bits(model) == bits(same)


def test_uint8_images_set_the_normalisation_once():
    images, labels = noise(30)
    model = build()
    trainer = Trainer(model, SGD(0.01))
    trainer.fit((images, labels))
    assert np.isclose(model.pixel_mean, images.mean()) and np.isclose(model.pixel_std, images.std())
    held = model.pixel_mean, model.pixel_std
    trainer.fit((images // 2, labels))
    assert (model.pixel_mean, model.pixel_std) == held
    Trainer(model, SGD(0.01)).fit((images // 3, labels))  # a model that was trained before
    assert (model.pixel_mean, model.pixel_std) == held


def test_images_of_one_grey_are_no_division_by_zero():
    model = build()
    Trainer(model, SGD(0.01)).fit((np.full((4, 12, 12), 9, np.uint8), np.arange(4)))
    assert (model.pixel_mean, model.pixel_std) == (9, 1)
    assert np.isfinite(model.parameter_buffer).all()


def test_float_images_are_taken_as_they_are():
    images, labels = noise(30)
    model = build()
    Trainer(model, SGD(0.05, momentum=0.9)).fit((images, labels), batch_size=8)
    scaled = (images - np.float32(model.pixel_mean)) / np.float32(model.pixel_std)
    same = build()
    held = same.pixel_mean, same.pixel_std
    Trainer(same, SGD(0.05, momentum=0.9)).fit((scaled, labels), batch_size=8)
    assert_close(same.parameter_buffer, model.parameter_buffer, rtol=1e-4)
    assert (same.pixel_mean, same.pixel_std) == held


@pytest.mark.parametrize("kind", ["float16", bfloat16])
def test_narrow_images_train_as_what_they_stand_for(kind):
    images, labels = noise(20)
    narrow = (images / 255).astype(kind)
    wide = narrow.astype(np.float32), labels
    assert trained_bits((narrow, labels)) == trained_bits(wide, plan=False)


def test_outputs_of_a_type_without_argmax(monkeypatch):
    """CuPy has no argmax of bfloat16, the type of such a model's outputs on a GPU."""

    class Outputs(np.ndarray):
        def argmax(self, axis):
            assert self.dtype != bfloat16
            return super().argmax(axis)

    images, labels = noise(4)
    model = build()
    rows = np.eye(4, dtype=bfloat16)[labels].view(Outputs)
    monkeypatch.setattr(model, "predict", lambda *_: rows)
    assert evaluate(model, (images, labels), lambda *_, grad: (0.5, None)) == {
        "loss": 0.5,
        "accuracy": 1.0,
    }


def test_outputs_that_are_images_have_no_accuracy():
    """One image, or as many as there are columns, would be compared, to an accuracy above 1."""
    images, labels = noise(4)
    model = Sequential([Conv2D(3, 1)], (*images.shape[1:], 1), "cpu")
    with pytest.raises(
        ValueError, match=r"^model: gives outputs of shape .*, expected \(classes,\)"
    ):
        evaluate(model, (images[:1], labels[:1]), lambda *_, grad: (0.5, None))


# Forms of data


def test_data_sets_pairs_and_channel_axes_are_the_same():
    images, labels = noise(20)
    expected = trained_bits((images, labels))
    for data in (
        [images, labels],
        Dataset(images, labels),
        (images[..., None], labels),
        (np.asfortranarray(images), labels),
    ):
        assert trained_bits(data) == expected


@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i4"])
def test_labels_of_any_integer_dtype(kind):
    images, labels = noise(20)
    assert trained_bits((images, labels.astype(kind))) == trained_bits((images, labels))


IMAGES, LABELS = noise(6)
NAN, INFINITE = IMAGES.astype(np.float32), IMAGES.astype(np.float32)
NAN[3, 4, 5], INFINITE[0, 0, 0] = np.nan, -np.inf
BAD_DATA = {
    "no pair": (
        IMAGES,
        TypeError,
        "got ndarray, expected a Dataset or a pair (images, labels)",
    ),
    "three": (
        (IMAGES, LABELS, 1),
        ValueError,
        "got 3 elements, expected a Dataset or a pair",
    ),
    "lists": (([[1]], [1]), TypeError, "images: got list, expected a NumPy or CuPy array"),
    "pixels": (
        (IMAGES.astype(int), LABELS),
        TypeError,
        "images: got int64, expected uint8 or floating",
    ),
    "floats": ((IMAGES, LABELS * 1.0), TypeError, "labels: got float64, expected an integer dtype"),
    "lengths": ((IMAGES, LABELS[:5]), ValueError, "labels: got shape (5,), expected (6,), one for"),
    "one-hot": (
        (IMAGES, np.eye(6, 4, dtype=int)),
        ValueError,
        "labels: got shape (6, 4), expected",
    ),
    "too high": (
        (IMAGES, LABELS * 0 + 4),
        ValueError,
        "labels: got 4 to 4, expected 0 to 3 for 4 classes",
    ),
    "negative": ((IMAGES, LABELS - np.int64(9)), ValueError, "to 3 for 4 classes"),
    "empty": ((IMAGES[:0], LABELS[:0]), ValueError, "got no images, expected at least one"),
    "NaN": ((NAN, LABELS), ValueError, "images hold NaN or infinity, expected finite values"),
    "NaN of bfloat16": ((NAN.astype(bfloat16), LABELS), ValueError, "images hold NaN or infinity"),
    "infinity": ((INFINITE, LABELS), ValueError, "images hold NaN or infinity, expected finite"),
    "size": ((IMAGES[:, :9], LABELS), ValueError, "got shape (1, 9, 12, 1), expected (N, 12, 1"),
}


@pytest.mark.parametrize("name", BAD_DATA)
@pytest.mark.parametrize("use", ["fit", "evaluate", "evaluate without a trainer", "validation"])
def test_bad_data_is_one_sentence_and_leaves_the_model_alone(name, use):
    data, error, sentence = BAD_DATA[name]
    model = build()
    before = bits(model)
    trainer = Trainer(model, SGD(0.1))
    with pytest.raises(error) as caught:
        if use == "fit":
            trainer.fit(data)
        elif use == "evaluate":
            trainer.evaluate(data)
        elif use == "validation":
            trainer.fit((IMAGES, LABELS), validation=data)
        else:
            evaluate(model, data)
    message = str(caught.value)
    assert sentence in message and "\n" not in message
    assert message.startswith("validation" if use == "validation" else "data")
    assert bits(model) == before and trainer.history == []


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"epochs": 0}, ValueError, "epochs: got 0, expected at least 1"),
        ({"epochs": 1.5}, TypeError, "epochs: got 1.5, expected a whole number"),
        ({"epochs": True}, TypeError, "epochs: got True, expected a whole number"),
        ({"batch_size": 0}, ValueError, "batch_size: got 0, expected at least 1"),
        ({"batch_size": "8"}, TypeError, "batch_size: got '8', expected a whole number"),
    ],
)
def test_bad_lengths(options, error, sentence):
    with pytest.raises(error) as caught:
        Trainer(build(), SGD(0.1)).fit((IMAGES, LABELS), **options)
    assert str(caught.value).startswith(sentence)


ONE_VALUE = {
    "rows": lambda: [Flatten(), Dense(5), BatchNorm(), Dense(4)],
    "images of one pixel": lambda: [Conv2D(3, 12), BatchNorm(), ReLU(), Flatten(), Dense(4)],
    "taken up with a pool": lambda: [Conv2D(3, 12), BatchNorm(), MaxPool2D(1), Flatten(), Dense(4)],
}


@pytest.mark.parametrize("name", ONE_VALUE)
@pytest.mark.parametrize(("images", "batch_size"), [(6, 5), (1, 5), (2, 1)])
@pytest.mark.parametrize("plan", [True, False], ids=["planned", "layer by layer"])
def test_a_step_of_one_value_per_channel(name, images, batch_size, plan):
    model = build(ONE_VALUE[name])
    before, trainer = bits(model), Trainer(model, SGD(0.1), plan=plan)
    position = [type(layer) for layer in model.layers].index(BatchNorm)
    sentence = (
        f"batch_size: got {batch_size} for {images} images, expected no step of one image, since "
        f"layer {position} (BatchNorm) trains on more than one value per channel"
    )
    with pytest.raises(ValueError) as caught:
        trainer.fit((IMAGES[:images], LABELS[:images]), batch_size=batch_size)
    assert str(caught.value) == sentence
    assert bits(model) == before and not model.has_pixel_statistics
    assert trainer.history == [] and trainer.course is None
    # Neither the layers nor what a planned step runs in their place would have done it.
    for layers in (model.layers, fuse(model)):
        with pytest.raises(ValueError, match="expected more than one value per channel to train"):
            run_through(layers, model.prepare(IMAGES[:1]))
    assert bits(model) == before
    assert np.isfinite(model.predict(IMAGES[:1])).all()
    trainer.fit((IMAGES[:4], LABELS[:4]), batch_size=2)  # two values are enough
    assert bits(model) != before and trainer.planned is plan


def run_through(layers, x):
    for layer in layers:
        x = layer.forward(x, training=True)


def test_images_of_several_pixels_may_come_alone():
    trainer = Trainer(build(normalised), SGD(0.1))
    assert math.isfinite(trainer.fit((IMAGES, LABELS), batch_size=5)[-1]["train_loss"])


@pytest.mark.parametrize("precision", ["tf32", "fp12"])
def test_a_cpu_trains_in_fp32_alone(precision):
    expected = f"precision: got '{precision}' for float32 arrays on cpu, expected 'fp32'"
    with pytest.raises(ValueError, match=expected):
        Trainer(build(), SGD(0.1), precision=precision)


@pytest.mark.parametrize("optimizer", [lambda: SGD(0.05, momentum=0.9), lambda: Adam(2e-3)])
def test_every_precision_trains_about_as_fp32(cuda, optimizer):
    """Equal losses would mean that the precision had no effect."""
    losses = {}
    for precision in cuda.precisions:
        trainer = Trainer(build(seed=0, device="cuda"), optimizer(), precision=precision)
        losses[precision] = trainer.fit(noise(16), 3, batch_size=8)[-1]["train_loss"]
        assert np.isfinite(host(trainer.model.parameter_buffer)).all()
    exact = losses.pop("fp32")
    for loss in losses.values():
        assert loss != exact and abs(loss - exact) < 0.02 * exact


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
def test_a_planned_step_has_the_precision_of_a_plain_one(cuda, undivided, precision):
    """The bits are equal: no fused layer here adds up in another order, no product is divided."""
    found = []
    for plan in (True, False):
        model = build(lambda: [Conv2D(6, 3), ReLU(), Flatten(), Dense(4)], "cuda", seed=0)
        trainer = Trainer(model, Adam(2e-3), precision=precision, plan=plan)
        trainer.fit(noise(20), 3, batch_size=8)
        assert trainer.planned == plan
        found.append(bits(model))
    assert found[0] == found[1]


@pytest.mark.parametrize("plan", [True, False])
@pytest.mark.usefixtures("cuda")
def test_a_step_whose_gradients_overflow_is_left_out(plan):
    model = build(lambda: [Flatten(), Dense(4)], seed=0, device="cuda")
    trainer = Trainer(model, SGD(0.05), precision="fp16", plan=plan)
    trainer.loss_scale[0] = 2.0**24  # more than any gradient here stands
    before = bits(model)
    trainer.fit(noise(8), 1, batch_size=8)
    assert bits(model) == before and trainer.loss_scale[0] == 2.0**23
    trainer.fit(noise(8), 12, batch_size=8)  # the scale falls until they are finite
    assert bits(model) != before and 1 < trainer.loss_scale[0] < 2.0**22
    assert trainer.planned == plan
