"""Kernels over rows, on `cuda`: they are compiled for rows that are whole accesses of 16 bytes."""

import numpy as np
import pytest

import kernels
from kernels.common.rows import row_launch
from tests.lib.comparison import assert_close
from tests.lib.support import RTOL, host, normal

ROWS, COLUMNS = 3, 64
LABELS = np.array([0, 63, 7])


def layer_norm_backward(dy, x, gamma, beta):
    _, saved = kernels.layer_norm(x, gamma, beta)
    return kernels.layer_norm_backward(dy, x, gamma, saved)


def losses(target, logits, weight):
    labels = target.array(LABELS)
    return kernels.softmax_cross_entropy(logits, labels, weight=weight, label_smoothing=0.1)


#: Each function, and the dimensions of its arrays.
FUNCTIONS = {
    "softmax": (lambda _, x: [kernels.softmax(x)], [2]),
    "softmax_backward": (lambda _, dy, y: [kernels.softmax_backward(dy, y)], [2, 2]),
    "softmax_cross_entropy": (losses, [2, 1]),
    "layer_norm": (lambda _, *arrays: kernels.layer_norm(*arrays)[:1], [2, 1, 1]),
    "layer_norm_backward": (lambda _, *arrays: layer_norm_backward(*arrays), [2, 2, 1, 1]),
}
ARRAYS = [(name, i) for name, (_, arrays) in FUNCTIONS.items() for i in range(len(arrays))]


def apart(target, array):
    """Return the array at an address that is a multiple of its elements' size alone."""
    memory = target.array(np.concatenate([array[:1].ravel()[:1], array.ravel()]))
    return memory[1:].reshape(array.shape)


@pytest.mark.parametrize(("name", "moved"), ARRAYS)
def test_any_array_may_begin_anywhere(cuda, dtype, name, moved):
    function, dimensions = FUNCTIONS[name]
    arrays = [
        abs(normal(seed, *(ROWS, COLUMNS)[-count:])).astype(dtype)
        for seed, count in enumerate(dimensions)
    ]
    expected = function(cuda, *map(cuda.array, arrays))
    places = [apart if i == moved else type(cuda).array for i in range(len(arrays))]
    found = function(cuda, *[place(cuda, a) for place, a in zip(places, arrays, strict=True)])
    for one, other in zip(found, expected, strict=True):
        assert_close(host(one), host(other), rtol=RTOL[str(dtype)])


@pytest.mark.parametrize(
    ("C", "moved", "whole"), [(64, False, True), (64, True, False), (65, False, False)]
)
def test_rows_are_whole_if_each_begins_and_ends_with_16_bytes(cuda, C, moved, whole):
    x = np.zeros((2, C), np.float32)
    launch = row_launch(cuda, 2, 32, apart(cuda, x) if moved else cuda.array(x), None)
    assert launch.whole == whole
