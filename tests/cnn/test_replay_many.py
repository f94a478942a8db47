"""Many steps in one replay: the same bits as one by one, in the fewest launches."""

import json
import sys
import types
from contextlib import nullcontext

import numpy as np
import pytest

from cnn import SGD, Augment, OneCycle, Run, Trainer, TrainingDivergedError
from cnn.course import Course
from cnn.plan import replays
from kernels.runtime.cuda import CudaTarget
from tests.lib.planned import NETWORKS, OPTIMIZERS, a_plan, bits, noise, normalised, pair
from tests.lib.support import host

EVERYTHING = {
    "layers": NETWORKS["dropouts"],
    "optimizer": OPTIMIZERS["Adam"],
    "decay": 0.9,
    "augment": Augment(rotate=10, shift=1, zoom=0.1),
    "schedule": OneCycle(),
}


@pytest.fixture
def taken(monkeypatch):
    """The list whose last number is how many steps trainers take at once; one at first."""
    every = [1]
    monkeypatch.setattr(Trainer, "_steps_per_replay", lambda self, course, watched: every[-1])
    return every


def held(trainer):
    """Return a training's whole state, without times."""
    arrays = {**trainer.optimizer.state, "loss scale": trainer.loss_scale}
    if trainer.ema is not None:
        arrays["average"] = trainer.ema.average
    of_clock = ("seconds", "images_per_second")
    history = [{k: v for k, v in r.items() if k not in of_clock} for r in trainer.history]
    counts = [trainer.steps, trainer.images_seen, trainer.optimizer.steps]
    counts += [trainer.ema and trainer.ema.steps, *(layer.draws for layer in trainer.model.layers)]
    state = {k: host(array).tobytes() for k, array in arrays.items() if array is not None}
    return bits(trainer.model), state, history, counts


# --- which steps are taken at once


@pytest.mark.parametrize(
    ("images", "batch_size", "every", "lengths"),
    [
        (12, 4, 1, [1, 1, 1]),  # one by one
        (13, 4, 1, [1, 1, 1, 1]),
        (12, 4, 3, [1, 2]),  # the whole epoch, but the first
        (14, 4, 4, [1, 2, 1]),  # and a smaller last one
        (30, 2, 4, [1, 3, 4, 4, 3]),  # to the next line of the loss curve, and what is left
        (31, 2, 4, [1, 3, 4, 4, 3, 1]),
        (33, 2, 4, [1, 3, 4, 4, 4, 1]),
        (3, 4, 1, [1]),  # fewer images than a batch
        (5, 4, 2, [1, 1]),
        (2500, 1, 2500, [1, 1024, 1024, 451]),  # no graph without end
    ],
)
def test_which_steps_are_taken_at_once(images, batch_size, every, lengths):
    ranges = list(replays(Course(1, batch_size, "", images), every))
    assert [len(steps) for steps in ranges] == lengths
    assert [step for steps in ranges for step in steps] == list(range(-(-images // batch_size)))


def test_a_gpu_is_left_alone_for_as_long_as_nobody_looks():
    trainer = pair(types.SimpleNamespace(name="cpu"))[0]
    course = Course(3, 2, "", 1001)  # epochs of 501 steps
    for name, planned, done, watched, expected in (
        ("cuda", True, 0, False, 501),
        ("cuda", True, 0, True, 11),  # a fiftieth, as the loss curve has it
        ("cuda", True, 2, False, 11),  # a graph of the last epoch would serve once
        ("cuda", False, 0, False, 1),  # layer by layer
        ("cpu", True, 0, False, 1),  # the loss of every step is looked at
    ):
        trainer.model.target = types.SimpleNamespace(name=name)
        trainer.planned, course.done = planned, done
        assert trainer._steps_per_replay(course, watched) == expected


# --- the same training


@pytest.mark.parametrize("every", [3, 7])  # ends amid the epoch; the whole epoch of 7 steps
@pytest.mark.parametrize("layers", [NETWORKS["dropouts"], normalised])
def test_at_once_and_one_by_one_train_the_same(target, dtype, taken, every, layers):
    trainers = [pair(target, **{**EVERYTHING, "layers": layers}, dtype=dtype)[0] for _ in range(2)]
    for trainer, steps in zip(trainers, (1, every), strict=True):
        taken.append(steps)
        # The last batch has a single image; weights and average are exchanged for validation.
        trainer.fit(noise(25), epochs=3, batch_size=4, validation=noise(5, seed=1))
    ours, theirs = map(held, trainers)
    assert ours == theirs


def test_a_loss_scale_changes_within_a_replay(cuda, taken):
    trainers = []
    for steps in (1, 7):
        taken.append(steps)
        trainer = pair(cuda, precision="fp16")[0]
        trainer.loss_scale[...] = cuda.array([2.0**24, 2.0**-24, 0], np.float32)
        trainer.fit(noise(25), epochs=2, batch_size=4)
        trainers.append(trainer)
    assert trainers[0].loss_scale[0] < 2.0**24  # gradients overflowed, and steps were left out
    assert held(trainers[0]) == held(trainers[1])


def test_a_training_goes_on_at_once_after_one_by_one(target, taken, tmp_path):
    whole = pair(target, **EVERYTHING)[0]
    whole.fit(noise(25), epochs=3, batch_size=4)

    class Interrupted(Run):
        def epoch(self, trainer):
            super().epoch(trainer)
            raise KeyboardInterrupt

    taken.append(7)
    (tmp_path / "run").mkdir()
    run = Interrupted(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        pair(target, **EVERYTHING, run=run)[0].fit(noise(25), epochs=3, batch_size=4)
    again = pair(target, **EVERYTHING)[0]
    again.restore(run.latest)
    again.fit(noise(25), epochs=3, batch_size=4)
    ours, theirs = held(again), held(whole)
    assert ours == theirs and len(again.history) == 3


def test_the_loss_curve_is_the_same(target, taken, tmp_path):
    curves = []
    for steps in (1, 3):  # an epoch of 102 steps has a line every 3
        taken.append(steps)
        run = Run.create(tmp_path / str(steps))
        pair(target, NETWORKS["ReLU taken up"], schedule=OneCycle(), run=run)[0].fit(
            noise(203), epochs=2, batch_size=2
        )
        events = map(json.loads, run.history.read_text().splitlines())
        curves.append([event for event in events if event["event"] == "steps"])
    assert curves[0] == curves[1] and len(curves[0]) == 2 * 34


def test_a_loss_that_diverges_within_a_replay_is_seen_at_its_end(target, taken):
    taken.append(6)
    trainer = pair(target, optimizer=lambda: SGD(1e30))[0]
    with (
        pytest.raises(TrainingDivergedError) as caught,
        np.errstate(over="ignore", invalid="ignore"),
    ):
        trainer.fit(noise(24), batch_size=4)
    assert caught.value.step == trainer.steps == 6 and not trainer.history
    assert caught.value.origin == "the output of layer 0 (Conv2D)"


def test_a_plan_replays_nothing_beyond_the_order_or_the_schedule(target):
    plan = a_plan(pair(target)[0], noise(17), steps=5)
    plan.step(4)
    with pytest.raises(ValueError, match="rows: got 4, expected 1 to 3, what the epoch has left"):
        plan.replay_many(4, 4)
    plan.replay_many(4, 3)
    plan.begin_epoch(target.array(range(17)), [1.0, 1.0, 1.0])
    plan.replay_many(4, 2)
    with pytest.raises(ValueError, match="steps: got 2 after 2, expected 3 in all"):
        plan.replay_many(4, 2)


# --- launches


def test_an_epoch_is_three_replays(target, taken, monkeypatch):
    """The replays are: the first step, all whole steps after it, and the last one.

    A single step is two replays: one before the loss, one after. A recorded step is replayed at
    once as a check.
    """
    made, replays = [], []
    replayer = type(target).replayer

    def counting(self, launches):
        run = replayer(self, launches)
        made.append(len(launches))
        return lambda: replays.append(len(launches)) or run()

    monkeypatch.setattr(type(target), "replayer", counting)
    taken.append(7)
    pair(target)[0].fit(noise(25), epochs=3, batch_size=4)
    forward, backward, many = made[:3]
    step, last = [forward, backward], made[3:]
    assert many == 5 * (forward + backward)
    assert replays == [*step, many, *last] + 2 * [*step, many, *last]
    assert len(made) == 5


class PlayedStream:
    """A stand-in for CuPy's stream: a launch runs, or is captured into a graph."""

    def __init__(self, non_blocking=False):
        self.non_blocking, self.captured, self.log = non_blocking, None, []

    def __enter__(self):
        PlayedStream.current.append(self)

    def __exit__(self, *error):
        PlayedStream.current.pop()

    def begin_capture(self):
        assert self.non_blocking  # the default stream is refused
        self.captured = []

    def end_capture(self):
        captured, self.captured = self.captured, None
        return types.SimpleNamespace(launch=lambda stream: stream.log.append(captured))

    def launch(self, name):
        (self.log if self.captured is None else self.captured).append(name)


def test_many_steps_are_one_graph_on_the_current_stream(monkeypatch):
    """A stand-in for CuPy shows what is captured, and what is launched on which stream."""
    caller, other = PlayedStream(), PlayedStream()
    monkeypatch.setattr(PlayedStream, "current", [caller], raising=False)
    current = lambda: PlayedStream.current[-1]  # noqa: E731
    cupy = types.ModuleType("cupy")
    cupy.cuda = types.SimpleNamespace(
        Device=lambda index: nullcontext(), Stream=PlayedStream, get_current_stream=current
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    step = [lambda name=name: current().launch(name) for name in ("gather", "dense", "advance")]
    run = CudaTarget(0).replayer(step * 3)
    assert caller.log == []  # nothing has run
    run()
    with other:
        run()
    assert caller.log == other.log == [["gather", "dense", "advance"] * 3]
