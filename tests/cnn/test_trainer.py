"""The trainer: what a training does to a model, and in which precision."""

import copy
import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest

from cnn import (
    EMA,
    SGD,
    Adam,
    AdamW,
    Augment,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Layer,
    OneCycle,
    ReLU,
    Run,
    Sequential,
    Softmax,
    SoftmaxCrossEntropy,
    Trainer,
)
from tests.lib import network_reference
from tests.lib.comparison import assert_close
from tests.lib.fresh_python import REPOSITORY
from tests.lib.small_training import bits, build, noise, normalised, textbook
from tests.lib.support import NARROW, host, unit_roundoff

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
        "PYTHONPATH": str(REPOSITORY),
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


@pytest.mark.parametrize(("name", "value"), [("model", None), ("precision", "bf16")])
def test_a_trainer_keeps_its_model_and_precision(name, value):
    """Its network, whose gradients the steps take, is made of them."""
    trainer = Trainer(build(), SGD(0.05))
    with pytest.raises(AttributeError, match=name):
        setattr(trainer, name, value)


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


# Precision


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
