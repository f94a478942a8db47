"""How a planned step is recorded and replayed: once, in its own memory, without a trace."""

import sys
import tracemalloc

import numpy as np
import pytest

from cnn import (
    SGD,
    Adam,
    Augment,
    Conv2D,
    Dense,
    Flatten,
    OneCycle,
    ReLU,
    Sequential,
    Trainer,
)
from cnn.progress import Bar
from cnn.recordable import restore
from kernels.runtime.arena import Arena
from kernels.runtime.recording import Recording, Rehearsal, current
from tests.lib.planned import (
    NETWORKS,
    OPTIMIZERS,
    SHAPE,
    a_plan,
    assert_equal,
    bits,
    noise,
    normalised,
    pair,
)
from tests.lib.support import host


def test_python_runs_once_per_batch_size(target, monkeypatch):
    calls = []
    forward = Flatten.forward
    monkeypatch.setattr(
        Flatten, "forward", lambda self, x, training: calls.append(len(x)) or forward(self, x)
    )
    planned, _ = pair(target)
    planned.fit(noise(14), epochs=3, batch_size=4)
    rehearsed, recorded = calls[:2], calls[2:]
    assert planned.planned and rehearsed == recorded == [4, 2]


def test_replays_allocate_nothing(target, monkeypatch):
    planned, _ = pair(target, NETWORKS["dropouts"], decay=0.9)
    plan = a_plan(planned, noise(20))
    plan.step(4)
    arrays = plan.arena.bytes
    for name in ("empty", "fresh", "zeros", "array"):
        monkeypatch.setattr(type(target), name, None)
    for _ in range(4):
        plan.step(4)
    assert plan.arena.bytes == arrays


def test_replays_from_one_state_have_the_same_bits(target):
    """Weights and counters are set back between them, as a loaded checkpoint does."""
    trainer, _ = pair(target, normalised, OPTIMIZERS["Adam"])
    plan, model = a_plan(trainer, noise(20)), trainer.model
    plan.step(4)
    arrays = [model.parameter_buffer, *model.state.values(), *trainer.optimizer.state.values()]
    arrays += [plan.progress.counters, plan.progress.totals]
    held = [array.copy() for array in arrays]
    ends = []
    for _ in range(2):
        for array, values in zip(arrays, held, strict=True):
            array[...] = values
        plan.step(4)
        plan.step(4)
        ends.append([host(array).tobytes() for array in arrays])
    assert ends[0] == ends[1] != [host(array).tobytes() for array in held]


def test_memory_that_is_freed_is_not_needed(target, monkeypatch):
    """Freed blocks are overwritten while the step is recorded: a use of one would show."""
    give_back = Arena.give_back

    def poisoning(self, address, size):
        for first, last, memory in self._chunks:
            if first <= address < last:
                memory[address - first : address - first + size].fill(0xFF)  # NaN
        give_back(self, address, size)

    monkeypatch.setattr(Arena, "give_back", poisoning)
    trainers = pair(target, normalised, augment=Augment(shift=1))
    for trainer in trainers:
        trainer.fit(noise(13), epochs=2, batch_size=4)
    assert_equal(*trainers)


def test_backward_takes_the_memory_that_it_frees(monkeypatch):
    asked = []
    array = Arena.array

    def counting(self, shape, dtype):
        result = array(self, shape, dtype)
        asked.append(result.nbytes)
        return result

    monkeypatch.setattr(Arena, "array", counting)
    layers = [layer for _ in range(4) for layer in (Conv2D(32, 3, padding="same"), ReLU())]
    model = Sequential([*layers, Flatten(), Dense(4)], SHAPE, "cpu")
    trainer = Trainer(model, SGD(0.1))
    plan = a_plan(trainer, noise(64))
    plan.step(64)
    # Eight activations are live at once, and a gradient or two; not their eight gradients.
    assert plan.arena.bytes < 0.7 * sum(asked)
    before = plan.arena.bytes
    plan.begin_epoch(np.arange(64), [1.0])
    plan.step(63)
    assert plan.arena.bytes == before


def test_steps_beyond_the_order_or_the_schedule_are_refused(target):
    plan = a_plan(pair(target)[0], noise(9), steps=3)
    plan.step(4)
    for rows in (6, 0):
        with pytest.raises(ValueError, match=f"rows: got {rows}, expected 1 to 5, what the epoch"):
            plan.step(rows)
    plan.step(4)
    plan.step(1)
    plan.begin_epoch(target.array(np.arange(9)), [1.0, 0.5])
    plan.step(4)
    plan.step(4)
    with pytest.raises(ValueError, match="steps: got 1 after 2, expected 2 in all"):
        plan.step(1)


def test_more_epochs_take_no_more_memory(target, monkeypatch):
    """This holds before and after the first step: a step's numbers overwrite the last one's."""

    def interrupt(self, images, text, trainer):
        if trainer.steps > 9:  # in the third epoch
            raise KeyboardInterrupt

    monkeypatch.setattr(Bar, "advance", interrupt)
    peaks = []
    for epochs in (3, 3, 100_000):  # the first for what is made once
        trainer = pair(target, optimizer=OPTIMIZERS["Adam"], decay=0.9)[0]
        tracemalloc.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                trainer.fit(noise(13), epochs=epochs, batch_size=4)
        finally:
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[2] < peaks[1] + 2**16


@pytest.mark.parametrize("epochs", [1, 3])
def test_each_epoch_finds_its_factors(target, epochs):
    """Every step of every epoch gets its own numbers."""
    asked, found = [], []

    class Watched(Adam):
        recordable = True

        def scalars(self, step, factor):
            asked.append((step, factor))
            return super().scalars(step, factor)

    planned, plain = pair(target, optimizer=lambda: Watched(1e-2), schedule=OneCycle(), decay=0.5)
    for trainer, steps in ((planned, found), (plain, [])):
        asked.clear()
        trainer.fit(noise(13), epochs=epochs, batch_size=4)
        steps += asked[-4 * epochs :]  # after those of compiling ahead
    assert_equal(planned, plain)
    assert found == asked[-4 * epochs :]
    assert [step for step, _ in found] == list(range(1, 4 * epochs + 1))


def test_layers_remember_nothing_of_a_planned_step(target):
    planned, _ = pair(target, NETWORKS["dropouts"])
    before = [set(vars(layer)) for layer in planned.model.layers]
    planned.fit(noise(13), batch_size=4)
    after = [set(vars(layer)) - {"draws"} for layer in planned.model.layers]
    assert after == [names - {"draws"} for names in before]
    assert [layer.draws for layer in planned.model.layers] == [4, 0, 0, 0, 4, 0]


def test_a_check_sees_the_loss_before_it_does_harm(target):
    planned, _ = pair(target)
    plan, model = a_plan(planned, noise(20)), planned.model

    def check():
        if not np.isfinite(float(plan.progress.totals[0])):
            raise FloatingPointError

    plan.step(4, check)  # recorded
    plan.step(4, check)  # replayed
    model.parameter_buffer[...] = np.inf
    held = bits(model)
    for rows in (4, 3):
        with pytest.raises(FloatingPointError), np.errstate(invalid="ignore"):
            plan.step(rows, check)
        assert bits(model) == held


def test_ctrl_c_leaves_a_layer_all_its_attributes():
    """Every step that is recorded restores the layers'; Python looks for signals after calls."""
    layer = Dense(3)
    whole = dict(vars(layer))
    for place in range(1, 4):
        returned = []

        def interrupt(frame, event, argument, returned=returned, place=place):
            if frame.f_code is restore.__code__ and event == "c_return":
                returned.append(event)
                if len(returned) == place:
                    raise KeyboardInterrupt

        sys.setprofile(interrupt)
        try:
            restore(layer, whole)
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)
        assert vars(layer) == whole


@pytest.mark.parametrize("kind", [Rehearsal, Recording])
@pytest.mark.parametrize("use", ["fit", "predict"])
def test_ctrl_c_as_a_recording_ends_does_not_leave_it_on(target, monkeypatch, kind, use):
    """Python looks for signals as a function begins: `__exit__` may not get to do anything."""

    def interrupted(self, *error):
        raise KeyboardInterrupt

    trainer, _ = pair(target)
    x = target.array(np.ones((2, *SHAPE), np.float32))
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(kind, "__exit__", interrupted)
        trainer.fit(noise(9), batch_size=4) if use == "fit" else trainer.model.predict(x)
    assert current() is None
    trainer.fit(noise(9), batch_size=4)
    assert np.isfinite(host(trainer.model.predict(x))).all()
