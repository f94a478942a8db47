"""Synthetic digits: the form of MNIST, repeatable, and a task that can be learned."""

from __future__ import annotations

import numpy as np
import pytest

from cnn.data import Dataset, synthetic


@pytest.fixture(scope="module")
def digits() -> tuple[Dataset, Dataset]:
    return synthetic.synthetic_digits(2003, 500, seed=3)


def test_synthetic_digits_have_the_form_of_mnist(digits: tuple[Dataset, Dataset]) -> None:
    for dataset, count in zip(digits, (2003, 500), strict=True):
        assert dataset.name == "synthetic"
        assert dataset.images.shape == (count, 28, 28) and dataset.labels.shape == (count,)
        assert dataset.images.dtype == dataset.labels.dtype == np.uint8
        counts = np.bincount(dataset.labels, minlength=10)
        assert counts.sum() == count and np.ptp(counts) <= 1
        assert np.any(np.diff(dataset.labels.astype(int)) < 0)  # in random order
        ink = dataset.images.reshape(count, -1) / 255
        assert ink.max(axis=1).min() > 0.4  # no image is blank or faint
        assert 0.09 < ink.mean() < 0.17  # MNIST: 0.1307
        border = np.concatenate((dataset.images[:, 0], dataset.images[:, :, 0]), axis=1)
        assert np.mean(border > 0) < 0.02  # few digits reach the edge


def test_synthetic_digits_repeat_for_a_seed(digits: tuple[Dataset, Dataset]) -> None:
    again = synthetic.synthetic_digits(2003, 500, seed=3)
    other = synthetic.synthetic_digits(2003, 500, seed=4)
    for first, second, third in zip(digits, again, other, strict=True):
        np.testing.assert_array_equal(first.images, second.images)
        np.testing.assert_array_equal(first.labels, second.labels)
        assert np.any(first.images != third.images) and np.any(first.labels != third.labels)


def test_synthetic_test_set_shares_nothing_with_the_training_set(
    digits: tuple[Dataset, Dataset],
) -> None:
    train, test = ({image.tobytes() for image in dataset.images} for dataset in digits)
    assert len(train) == 2003 and len(test) == 500 and not train & test
    alike = synthetic.synthetic_digits(500, 500, seed=3)
    assert np.any(alike[0].images != alike[1].images)


def test_synthetic_classes_can_be_told_apart(digits: tuple[Dataset, Dataset]) -> None:
    """The nearest of 2003 training images has the right label far more often than by chance."""
    train, test = (
        dataset.images.reshape(len(dataset), -1).astype(np.float32) for dataset in digits
    )
    scores = test @ train.T - (train**2).sum(axis=1) / 2
    guessed = digits[0].labels[scores.argmax(axis=1)]
    assert np.mean(guessed == digits[1].labels) > 0.85


def test_synthetic_digits_may_be_none() -> None:
    train, test = synthetic.synthetic_digits(0, 1)
    assert len(train) == 0 and len(test) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"train": -1}, ValueError, "train: got -1, expected at least 0 and below 2"),
        ({"test": 5.5}, TypeError, "test: got 5.5, expected a whole number"),
        ({"train": "5"}, TypeError, "train: got '5', expected a whole number"),
        ({"seed": -1}, ValueError, "seed: got -1, expected a whole number from 0 to"),
    ],
    ids=str,
)
def test_arguments_that_are_no_numbers_of_images(arguments, error, sentence) -> None:
    with pytest.raises(error, match=f"^{sentence}"):
        synthetic.synthetic_digits(**arguments)
