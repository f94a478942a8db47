"""The data that a trainer takes and refuses, their order and normalisation."""

import math

import numpy as np
import pytest
from ml_dtypes import bfloat16

from cnn import (
    SGD,
    BatchNorm,
    Conv2D,
    Dataset,
    Dense,
    Flatten,
    MaxPool2D,
    ReLU,
    Sequential,
    Trainer,
    evaluate,
)
from cnn.fusion import fuse
from tests.lib.comparison import assert_close
from tests.lib.small_training import bits, build, noise, normalised, trained_bits

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


@pytest.mark.parametrize("kinds", [("uint8", "float32"), ("float32", "uint8")])
def test_an_augmentation_keeps_what_is_normalised(kinds):
    """Grey levels as floating images are not normalised; predictions would be of others."""

    def cast(images, *, seed, offset):
        return images.astype(kinds[1])

    images, labels = noise(8)
    trainer = Trainer(build(), SGD(0.01), augment=cast)
    with pytest.raises(TypeError, match=f"^augment: returned {kinds[1]}, expected {kinds[0]} as"):
        trainer.fit((images.astype(kinds[0]), labels))


@pytest.mark.parametrize("shards", [1, 2])
def test_an_augmentation_keeps_the_number_of_images(shards):
    for augment, got in (
        (lambda images, **_: images[:-1], r"\(3, 12, 12\)"),
        (lambda images, **_: np.concatenate([images, images]), r"\(8, 12, 12\)"),
        (lambda images, **_: None, r"\(\)"),
    ):
        trainer = Trainer(build(), SGD(0.01), augment=augment, shards=shards)
        with pytest.raises(ValueError, match=f"^augment: returned shape {got}, expected 4 images"):
            trainer.fit(noise(8), batch_size=4 * shards)


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
    trainer = Trainer(model, SGD(0.1), loss=lambda y, *_, grad: (np.float32(0.5), y))
    with pytest.raises(ValueError, match="^model: gives outputs of shape .*, expected"):
        trainer.fit((images, labels), validation=(images, labels))
    assert trainer.steps == 0  # refused before the first epoch, not after it


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
    "NaN": (
        (NAN, LABELS),
        ValueError,
        "images hold NaN or infinity as float32, expected finite values",
    ),
    "NaN of bfloat16": ((NAN.astype(bfloat16), LABELS), ValueError, "images hold NaN or infinity"),
    "infinity": (
        (INFINITE, LABELS),
        ValueError,
        "images hold NaN or infinity as float32, expected finite",
    ),
    "past float32": ((IMAGES * 1e38, LABELS), ValueError, "images hold NaN or infinity as float32"),
    "size": ((IMAGES[:, :9], LABELS), ValueError, "got shape (6, 9, 12, 1), expected (N, 12, 1"),
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
def test_wrong_epochs_and_batch_sizes(options, error, sentence):
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
