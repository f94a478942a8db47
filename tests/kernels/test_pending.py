"""Partial sums of gradients that an optimizer's launch adds up."""

import numpy as np
import pytest

import kernels
from kernels.common.pending import PendingSums
from kernels.runtime.elementwise import SEGMENTS, Table
from kernels.step.optimizers import sgd_update
from tests.lib.support import host, normal


@pytest.fixture
def target(cuda):
    """The target whose gradients are sums of a product's parts."""
    return cuda


class Layers:
    """Convolutions whose gradients lie in one buffer, and what else an update takes."""

    def __init__(self, target, dtype, count, gap=0):
        self.target, self.count, self.gap = target, count, gap
        self.x, self.dy = (
            target.array(normal(seed, 40, 9, 9, channels, dtype=dtype))
            for seed, channels in enumerate((3, 2))
        )
        self.w = target.array(normal(2, 2, 3, 3, 3, dtype=dtype))
        self.each = self.w.size + gap + 2
        size = count * self.each
        self.gradients = target.array(np.full(size + 5, 7, dtype))
        self.parameters = target.array(np.arange(size + 5).astype(dtype))
        rates = target.array([[0.5, 0.25]], "float64" if dtype == np.float64 else "float32")
        self.table = Table(rates, target.array(np.zeros(1, np.int64)))

    def backward(self, biases=True):
        """Compute the gradients of every layer: weights, a gap, biases."""
        for layer in range(self.count):
            own = self.gradients[layer * self.each :][: self.each]
            dw, db = own[: self.w.size].reshape(self.w.shape), own[-2:]
            options = {"padding": 1, "need_dx": False, "need_db": biases, "out_dw": dw}
            kernels.conv2d_backward(self.dy, self.x, self.w, out_db=db, **options)

    def updated(self, pending=None):
        """Return the bits of parameters and gradients after an update."""
        sgd_update(self.table, self.parameters, self.gradients, None, pending=pending)
        return host(self.parameters).tobytes(), host(self.gradients).tobytes()


# Weights and biases of a layer one behind the other are one segment, apart from each other two.
@pytest.mark.parametrize("count, gap", [(1, 0), (SEGMENTS, 0), (SEGMENTS + 2, 0), (3, 1), (5, 1)])
@pytest.mark.parametrize("biases", [True, False])
def test_an_update_adds_up_what_is_pending(target, dtype, count, gap, biases):
    layers = Layers(target, dtype, count, gap)
    layers.backward(biases)
    expected = layers.updated()
    layers = Layers(target, dtype, count, gap)
    pending = PendingSums(target, layers.gradients)
    with pending.collecting():
        layers.backward(biases)
    segments = 1 + (gap > 0 and biases)
    taken = min(count, SEGMENTS // segments) * layers.each
    gradients = host(layers.gradients)
    assert (gradients[:taken] == 7).all() and (gradients[-5:] == 7).all()
    assert layers.updated(pending) == expected


def test_gradients_elsewhere_are_added_up_at_once(target):
    layers = Layers(target, np.dtype("float32"), 1)
    expected = kernels.conv2d_backward(layers.dy, layers.x, layers.w, padding=1)
    pending = PendingSums(target, layers.gradients)
    with pending.collecting():
        found = kernels.conv2d_backward(layers.dy, layers.x, layers.w, padding=1)
        apart = layers.gradients[:54].reshape(layers.w.shape)
        kernels.conv2d_backward(layers.dy, layers.x, layers.w, padding=1, out_dw=apart)
    for array, same in zip((*found, apart), (*expected, expected[1]), strict=True):
        assert host(array).tobytes() == host(same).tobytes()


def test_no_rows_have_gradients_of_zero(target):
    layers = Layers(target, np.dtype("float32"), 1)
    layers.x, layers.dy = layers.x[:0], layers.dy[:0]
    pending = PendingSums(target, layers.gradients)
    with pending.collecting():
        layers.backward()
    layers.updated(pending)
    assert (host(layers.gradients)[:-5] == 0).all()
