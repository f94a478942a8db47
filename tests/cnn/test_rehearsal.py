"""What a training launches is compiled before its first step, and nothing else is."""

import numpy as np
import pytest

from cnn import EMA, Augment, Dense, Flatten, Sequential, SoftmaxCrossEntropy, Trainer
from cnn.evaluation import BATCH_SIZE
from cnn.layers import Layer
from kernels import runtime
from kernels.runtime import targets
from kernels.runtime.arena import Arena
from kernels.runtime.cpu import CpuTarget
from kernels.runtime.recording import Rehearsal
from tests.lib.planned import NETWORKS, OPTIMIZERS, SHAPE, a_plan, bits, noise


@pytest.fixture
def compiled(target, monkeypatch):
    """The entry points that a new target was asked for, in order."""
    asked, binder = [], type(target).binder

    def noted(self, program, entry, constants):
        asked.append(entry)
        return binder(self, program, entry, constants)

    monkeypatch.setattr(type(target), "binder", noted)
    monkeypatch.setattr(targets, "_CPU", CpuTarget())
    monkeypatch.setattr(targets, "_CUDA", {})
    return asked


@pytest.fixture
def launched(monkeypatch):
    """The entry points that were launched."""
    entries, call = set(), runtime.Kernel.__call__

    def noted(self, grid, threads, *arguments, shared=0):
        if 0 not in grid and not isinstance(runtime.recording.current(), Rehearsal):
            entries.add(self.name)
        return call(self, grid, threads, *arguments, shared=shared)

    monkeypatch.setattr(runtime.Kernel, "__call__", noted)
    return entries


@pytest.fixture
def ahead(compiled, monkeypatch):
    """How many kernels had been compiled when each epoch began."""
    counts, order = [], Trainer._order
    monkeypatch.setattr(
        Trainer, "_order", lambda *args: counts.append(len(compiled)) or order(*args)
    )
    return counts


def fit(target, network, kind="uint8", optimizer="SGD", held_out=5, **options):
    """Train, with a last batch that is smaller, and evaluate."""
    model = Sequential(NETWORKS[network](), SHAPE, target.name)
    trainer = Trainer(model, OPTIMIZERS[optimizer](), **options)
    (images, labels), classes = noise(max(held_out, 14), kind), model.output_shape[0]
    labels %= classes
    trainer.fit((images[:14], labels[:14]), 2, 4, (images[:held_out], labels[:held_out]))
    return trainer


def assert_compiled_ahead(compiled, launched, ahead):
    """Check that what was launched had been compiled before, and nothing else."""
    assert ahead == [len(compiled)] * 2
    assert set(compiled) == launched


@pytest.mark.parametrize("kind", ["uint8", "float32"])
@pytest.mark.parametrize("plan", [True, False])
@pytest.mark.parametrize("network", NETWORKS)
def test_no_step_and_no_evaluation_compiles(target, network, plan, kind, compiled, launched, ahead):
    trainer = fit(target, network, kind, plan=plan, augment=Augment(shift=1))
    assert trainer.planned == plan
    assert_compiled_ahead(compiled, launched, ahead)


def test_nor_does_the_last_batch_of_an_evaluation(target, compiled, launched, ahead):
    fit(target, "ReLU taken up", held_out=BATCH_SIZE + 6)
    assert_compiled_ahead(compiled, launched, ahead)


@pytest.mark.parametrize("plan", [True, False])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_nor_does_any_optimizer_or_average(target, optimizer, plan, compiled, launched, ahead):
    fit(target, "small", optimizer=optimizer, plan=plan, ema=EMA(0.9))
    assert_compiled_ahead(compiled, launched, ahead)


@pytest.mark.parametrize("plan", [True, False])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("target", ["cuda"], indirect=True)
def test_nor_does_any_precision(target, precision, plan, compiled, ahead):
    fit(target, "small", plan=plan, precision=precision)
    assert ahead == [len(compiled)] * 2


class Doubling(Layer):
    """Not recordable: NumPy computes with the arrays' contents."""

    def build(self, shape):
        return shape

    def forward(self, x, training=False):
        assert np.isfinite(x).all()
        return x * 2

    def backward(self, dy):
        assert np.isfinite(dy).all()
        return dy * 2


@pytest.mark.parametrize("target", ["cpu"], indirect=True)  # whose arrays NumPy may work on
def test_parts_that_are_not_recordable_are_not_rehearsed(target, compiled, ahead):
    """They would read arrays that are not written yet; the other parts are compiled ahead."""
    model = Sequential([Flatten(), Dense(5), Doubling(), Dense(4)], SHAPE)
    losses = []

    def loss(outputs, labels, grad=True):
        losses.append(len(labels))
        assert np.isfinite(outputs).all()
        return SoftmaxCrossEntropy()(outputs, labels, grad)

    trainer = Trainer(model, OPTIMIZERS["Adam"](), loss)
    trainer.fit(noise(14), batch_size=4)
    assert losses == [4, 4, 4, 2]
    assert {"dense_forward", "dense_gradients", "adam"} <= set(compiled[: ahead[0]])


def test_a_rehearsal_changes_nothing(target):
    model = Sequential(NETWORKS["dropouts"](), SHAPE, target.name)
    trainer = Trainer(model, OPTIMIZERS["Adam"](), ema=EMA(0.9))
    plan = a_plan(trainer, noise(20))
    plan.step(4)
    before = bits(model), [dict(vars(layer)) for layer in model.layers], plan.arena.bytes
    rehearsal = Rehearsal(Arena(target))
    plan.rehearse(4, rehearsal)
    model.rehearse(4, np.dtype(np.uint8), rehearsal)
    assert rehearsal.kernels and len(rehearsal) == 0
    assert before == (bits(model), [vars(layer) for layer in model.layers], plan.arena.bytes)


def test_second_evaluation_compiles_nothing(target, compiled):
    """A pass of another batch size is recorded, but has the same kernels."""
    model = Sequential(NETWORKS["ReLU taken up"](), SHAPE, target.name)
    model.predict(noise(9)[0])
    before = list(compiled)
    model.predict(noise(8)[0])
    assert compiled == before
