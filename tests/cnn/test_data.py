"""What a data set is, and what a bad one says."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16

from cnn import data
from cnn.data.dataset import as_dataset, channels_last, pixel_statistics


@pytest.mark.parametrize("image_type", [np.uint8, np.float16, np.float32, np.float64, bfloat16])
@pytest.mark.parametrize("label_type", [np.uint8, np.int8, np.int32, np.int64, np.uint64])
def test_pair_is_taken_without_a_copy(image_type: type, label_type: type) -> None:
    images: Any = np.zeros((3, 4, 5), image_type)
    labels: Any = np.array([0, 2, 1], label_type)
    dataset = as_dataset((images, labels))
    assert dataset.images is images and dataset.labels is labels and len(dataset) == 3
    assert as_dataset(dataset) is dataset
    dataset.check_labels(3)
    with pytest.raises(
        ValueError, match=r"validation: labels: got 0 to 2, expected 0 to 1 for 2 classes$"
    ):
        dataset.check_labels(2, "validation")


def test_empty_data_set_is_valid() -> None:
    dataset = as_dataset((np.zeros((0, 4, 4, 3), np.float32), np.zeros(0, int)))
    assert len(dataset) == 0
    dataset.check_labels(10)


IMAGES, LABELS = np.zeros((3, 4, 4), np.uint8), np.zeros(3, int)


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (IMAGES, TypeError, r"got ndarray, expected a Dataset or a pair \(images, labels\)$"),
        (
            (IMAGES,),
            ValueError,
            r"got 1 elements, expected a Dataset or a pair \(images, labels\)$",
        ),
        (([[1]], LABELS), TypeError, "images: got list, expected a NumPy or CuPy array$"),
        ((IMAGES, [0, 0, 0]), TypeError, "labels: got list, expected a NumPy or CuPy array$"),
        ((IMAGES.astype(int), LABELS), TypeError, "images: got int64, expected uint8 or floating$"),
        ((IMAGES, LABELS.astype(float)), TypeError, "got float64, expected an integer dtype$"),
        ((np.ma.array(IMAGES), LABELS), TypeError, "images: got a masked array, expected .*$"),
        ((IMAGES, np.ma.array(LABELS)), TypeError, "labels: got a masked array, expected .*$"),
        ((IMAGES, LABELS > 0), TypeError, "got bool, expected an integer dtype$"),
        (
            (IMAGES[0], LABELS),
            ValueError,
            r"got shape \(4, 4\), expected \(N, H, W\) or \(N, H, W, C\) .*$",
        ),
        ((IMAGES[:, :0], LABELS), ValueError, r"got shape \(3, 0, 4\), expected .* at least 1$"),
        (
            (IMAGES, LABELS[:2]),
            ValueError,
            r"got shape \(2,\), expected \(3,\), one for each image$",
        ),
        ((IMAGES, LABELS[:, None]), ValueError, r"got shape \(3, 1\), expected \(3,\), .*$"),
    ],
)
def test_bad_pair_names_the_argument(bad: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=rf"^validation.*{message}"):
        as_dataset(bad, "validation")


def test_arrays_on_two_devices_are_refused() -> None:
    class DeviceArray:  # what is looked at in a cupy.ndarray
        shape, dtype = (3,), np.dtype(np.int64)

    with pytest.raises(TypeError, match="data: labels: got an array of .* like images"):
        as_dataset((IMAGES, DeviceArray()))


def test_channels_last_is_a_view() -> None:
    view = channels_last(IMAGES)
    assert view.shape == (3, 4, 4, 1) and view.base is IMAGES
    assert channels_last(view) is view
    with pytest.raises(ValueError, match=r"got shape \(4, 4\)"):
        channels_last(IMAGES[0])


def test_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="name: got 'cifar', expected"):
        data.load("cifar")


def test_pixel_statistics_are_exact_over_several_parts():
    images = np.random.default_rng(0).integers(0, 256, (5000, 25, 25), np.uint8)
    mean, std = pixel_statistics(images)
    assert mean == pytest.approx(images.mean(), rel=1e-12)
    assert std == pytest.approx(images.std(), rel=1e-12)
    assert pixel_statistics(np.full((3, 2, 2), 7, np.uint8)) == (7.0, 1.0)
    assert pixel_statistics(np.zeros((3, 0, 2), np.uint8)) == (0.0, 1.0)


def test_pixel_statistics_of_large_images_need_little_memory():
    images = np.full((16, 1024, 1024), 3, np.uint8)
    tracemalloc.start()
    assert pixel_statistics(images) == (3.0, 1.0)
    assert tracemalloc.get_traced_memory()[1] < 2 * images.nbytes
    tracemalloc.stop()
