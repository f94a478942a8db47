"""Gathering batches from a data set, and counting what they came to."""

import numpy as np
import pytest

import kernels
from kernels.step.batch import (
    Augmentation,
    Progress,
    count_batch,
    gather_batch,
)
from tests.lib.comparison import assert_close
from tests.lib.support import RTOL, host, normal

N = 11
MEAN, STD = 33.3, 77.7
AUGMENTATION = Augmentation(rotate=20, shift=2, zoom=0.2, seed=5, offset=2**40)
#: A tail over any vector, one pixel, and no channel axis.
SHAPES = [(7, 5, 3), (1, 1, 1), (6, 9)]
#: Of (image - mean) / std: there is no long sum.
TOLERANCE = RTOL | {"float32": 1e-6}


class Data:
    """A data set on a target, an order and counters at a place in it."""

    def __init__(self, target, shape, pixel_type):
        random = np.random.default_rng(0)
        images = random.integers(256, size=(N, *shape), dtype=np.uint8)
        if pixel_type != np.uint8:
            images = normal(1, N, *shape, dtype=pixel_type)
        self.images = target.array(images)
        self.labels = target.array(random.integers(10, size=N))
        self.order = target.array(random.permutation(N))
        self.counters = target.array(np.array([3, 4, 2]))
        self.shape = (*shape, 1) if len(shape) == 2 else shape

    def gather(self, target, rows, dtype, augmentation=None):
        arrays = (self.images, self.labels, self.order, self.counters)
        return gather_batch(target, *arrays, (rows, *self.shape), dtype, MEAN, STD, augmentation)


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_batch_is_gathered_and_normalised(target, dtype, shape, pixel_type, rows):
    data = Data(target, shape, pixel_type)
    x, labels = data.gather(target, rows, dtype)
    chosen = host(data.order)[4 : 4 + rows]
    expected = (host(data.images)[chosen].astype(np.float64) - MEAN) / STD
    assert x.dtype == dtype and np.array_equal(host(labels), host(data.labels)[chosen])
    assert_close(x, expected.reshape(rows, *data.shape), rtol=TOLERANCE[dtype.name])
    # The bits of the two steps that a training without a plan takes.
    same = kernels.normalize(data.images[data.order[4 : 4 + rows]], MEAN, STD, dtype)
    assert host(x).tobytes() == host(same).tobytes()


@pytest.mark.parametrize("shape", SHAPES)
def test_an_augmented_batch_is_that_of_augment(target, dtype, shape, pixel_type):
    data = Data(target, shape, pixel_type)
    x, labels = data.gather(target, 7, dtype, AUGMENTATION)
    chosen = data.images[data.order[4:11]]
    options = AUGMENTATION._asdict() | {"offset": AUGMENTATION.offset + 3}
    expected = kernels.normalize(kernels.augment(chosen, **options), MEAN, STD, dtype)
    assert np.array_equal(host(labels), host(data.labels)[host(data.order)[4:11]])
    assert_close(x.reshape(expected.shape), expected, rtol=1e-6)
    assert shape == (1, 1, 1) or not np.array_equal(host(x).ravel(), host(chosen).ravel())


def test_a_batch_is_counted(target, dtype):
    progress = Progress(target.array(np.array([3, 4, 2])), target.array(np.array([1.5, 2.0])))
    # More rows than threads of a block.
    outputs = np.round(3 * normal(0, 300, 5, dtype=dtype))
    labels = np.random.default_rng(0).integers(5, size=300)
    outputs[0] = 0, 2, 2, 1, 2  # of equals, the first is the largest
    labels[:2] = 2, 5  # no class of these: counts as wrong, and reads nothing
    outputs[2], labels[2] = np.nan, 0  # a NaN is never the largest, though argmax says so
    hits = (outputs.argmax(axis=1) == labels).sum() - 1
    arrays = [target.array(value) for value in (np.array(0.25, dtype), outputs, labels)]
    count_batch(target, *arrays, progress)
    assert host(progress.counters).tolist() == [4, 304, 3]
    assert host(progress.totals).tolist() == [1.5 + 300 * 0.25, 2 + hits]
