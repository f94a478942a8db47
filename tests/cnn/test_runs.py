"""Run folders: the loss curve, which checkpoints are kept, and trainings that diverge."""

import json
import math

import numpy as np
import pytest

from cnn import (
    SGD,
    Augment,
    BatchNorm,
    Dense,
    Dropout,
    Flatten,
    OneCycle,
    Run,
    Sequential,
    SoftmaxCrossEntropy,
    Trainer,
    TrainingDivergedError,
)
from cnn.runs import new_run, to_json
from tests.lib import fresh_python, permissions
from tests.lib.fresh_python import output

RANDOM = np.random.default_rng(0)


def noise(count):
    return RANDOM.integers(256, size=(count, 6, 6), dtype=np.uint8), RANDOM.integers(3, size=count)


def make(run, lr=0.05, **options):
    model = Sequential([Flatten(), Dense(3)], (6, 6, 1), "cpu")
    return Trainer(model, SGD(lr, momentum=0.9), run=run, **options)


def events(run, event):
    lines = [json.loads(line) for line in run.history.read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "runs" / "one")


# The curve


# Images and batch size of an epoch of 1, 50, 51 and 469 steps; the last of a few images only.
@pytest.mark.parametrize(
    ("count", "batch_size", "lines"), [(8, 8, 1), (99, 2, 50), (102, 2, 26), (1406, 3, 47)]
)
def test_the_curve_is_the_loss_since_the_last_line(count, batch_size, lines, run):
    losses, fused = [], SoftmaxCrossEntropy()

    def recording_loss(outputs, labels, grad=True):
        loss, gradient = fused(outputs, labels, grad)
        losses.append((float(loss), len(labels)))
        return loss, gradient

    trainer = make(run, loss=recording_loss, schedule=OneCycle())
    trainer.fit(noise(count), 2, batch_size)
    steps, total = events(run, "steps"), 2 * -(-count // batch_size)
    assert len(steps) == 2 * lines
    assert list(steps[0]) == ["event", "step", "images", "loss", "learning_rate"]
    before = 0
    for line in steps:
        values, weights = np.array(losses[before : line["step"]]).T
        assert math.isclose(line["loss"], np.average(values, weights=weights), abs_tol=1e-4)
        assert line["images"] == sum(number for _, number in losses[: line["step"]])
        rate = 0.05 * OneCycle()(line["step"] - 1, total)
        assert math.isclose(line["learning_rate"], rate, abs_tol=1e-12)
        before = line["step"]
    assert before == total
    assert [line["event"] for line in map(json.loads, run.history.read_text().splitlines())] == (
        ["steps"] * lines + ["epoch"]
    ) * 2


def test_an_epoch_is_the_record_of_the_history(run):
    trainer = make(run)
    trainer.fit(noise(20), 2, validation=noise(9))
    assert events(run, "epoch") == [{"event": "epoch", **record} for record in trainer.history]


def test_recording_changes_no_bit(run):
    recorded, data = make(run), noise(30)
    plain = make(None)
    for trainer in (recorded, plain):
        trainer.fit(data, 2, 8)
    ours, theirs = recorded.model.parameter_buffer, plain.model.parameter_buffer
    assert ours.tobytes() == theirs.tobytes()


def test_going_back_forgets_what_was_later(run):
    data = noise(20)
    trainer = make(run)
    trainer.fit(data, 4, 8)
    assert [path.stem for path in run.checkpoints] == ["epoch-0002", "epoch-0003", "epoch-0004"]
    back = make(Run(run.folder))
    back.restore(run.checkpoints[0])
    with open(run.history, "ab") as file:
        file.write(b'\xff{"event": "ste')  # a process killed while writing, on a faulty disk
    back.fit(data, 4, 8)
    assert [line["epoch"] for line in events(run, "epoch")] == [1, 2, 3, 4]
    assert [line["step"] for line in events(run, "steps")] == list(range(1, 13))
    assert [path.stem for path in run.checkpoints] == ["epoch-0002", "epoch-0003", "epoch-0004"]
    ours, theirs = back.model.parameter_buffer, trainer.model.parameter_buffer
    assert ours.tobytes() == theirs.tobytes()


# Folders and checkpoints


@pytest.mark.parametrize("keep", [1, 2, 9])
def test_the_last_checkpoints_are_kept(keep, tmp_path):
    run = Run.create(tmp_path / "run", keep)
    make(run).fit(noise(8), 4)
    kept = list(range(5))[-keep:]
    assert [path.name for path in run.checkpoints] == [f"epoch-000{n}.safetensors" for n in kept]
    assert run.latest == run.checkpoints[-1]


@pytest.mark.parametrize("closed", ["run/checkpoints", "run"])
def test_checkpoints_that_may_not_be_listed(closed):
    """The message does not say that they are missing."""
    with permissions.folder() as reachable:
        run = Run.create(reachable / "run")
        make(run).fit(noise(8))
        (reachable / closed).chmod(0)
        with permissions.held_back(), pytest.raises(PermissionError) as caught:
            run.latest  # noqa: B018
        assert caught.value.filename == str(run.folder / "checkpoints")


def test_keeping_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="keep: got 0, expected at least 1"):
        Run(tmp_path, keep=0)


def test_a_folder_is_nobody_elses(run):
    with pytest.raises(FileExistsError):
        Run.create(run.folder)


def test_two_trainings_at_once_in_one_folder(run):
    """Of this process or of another: the second is refused, and changes nothing."""
    data, messages = noise(8), []
    script = "import sys; from cnn import Run\nwith Run(sys.argv[1]).held(): pass"

    class Second(Run):
        def epoch(self, training):
            super().epoch(training)
            content = self.history.read_bytes()
            with pytest.raises(BlockingIOError) as caught:
                make(Run(self.folder)).fit(data, 1, 8)
            assert self.history.read_bytes() == content
            other = fresh_python.run("-c", script, str(self.folder))
            messages.extend([str(caught.value), other.stderr.splitlines()[-1]])

    make(Second(run.folder)).fit(data, 1, 8)
    expected = f"{run.folder} is in use: another training writes to it"
    assert messages == [expected, f"BlockingIOError: {expected}"]
    with Run(run.folder).held():
        pass


def test_a_training_does_not_begin_in_the_folder_of_another(run):
    """It would delete the checkpoints of finished epochs, and the loss curve."""
    first = make(run)
    first.fit(noise(8), 2, 8)
    files = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    others = make(run), make(Run(run.folder)), make(None)
    others[2].fit(noise(8), 1, 8)
    others[2].run = Run(run.folder)
    for other in others:
        with pytest.raises(FileExistsError) as caught:
            other.fit(noise(8), 1, 8)
        assert str(caught.value) == (
            f"{run.folder} has the checkpoints of another training: restore one of them, or name "
            "another folder"
        )
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == files
    first.fit(noise(8), 1, 8)  # the same training may go on
    assert run.latest.name == "epoch-0003.safetensors"


def test_names_of_trainings_that_start_in_one_second(tmp_path, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda _: "20260102-030405")
    names = [new_run(tmp_path / "runs", "speedrun").folder.name for _ in range(3)]
    first = "speedrun-20260102-030405"
    assert names == [first, f"{first}~2", f"{first}~3"]


def test_json_has_no_nan():
    values = {"a": math.nan, "b": -math.inf, "c": 1.5, "d": "nan", "e": np.float64("nan")}
    finite = {"a": None, "b": None, "c": 1.5, "d": "nan", "e": None}
    assert json.loads(to_json(values)) == finite
    nested = {"f": values, "g": [values, [math.inf, 2]], "h": (math.nan,)}
    expected = {"f": finite, "g": [finite, [None, 2]], "h": [None]}
    assert json.loads(to_json(nested, indent=2), parse_constant=pytest.fail) == expected


# A full disk

FULL_DISK = """
import os, resource, sys
from tests.cnn.test_runs import *
run = Run.create({folder!r}); trainer = make(run); trainer.fit(noise(20), 2)
before = {{path.name: path.read_bytes() for path in run.checkpoints}}
size = len(before["epoch-0002.safetensors"])
resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))
try:
    trainer.fit(noise(20), 2)
except OSError as error:
    print(os.path.basename(error.filename), error.strerror)
assert {{path.name: path.read_bytes() for path in run.folder.glob("checkpoints/*")}} == before
make(None).restore(run.latest)
"""


def test_a_full_disk_leaves_the_previous_checkpoints(tmp_path):
    folder = str(tmp_path / "run")
    script = FULL_DISK.format(folder=folder)
    # begin() saves what is already there, epoch 2, anew.
    assert output(script) == "epoch-0002.safetensors File too large\n"


# Divergence


class Poison(Dense):
    """A dense layer whose output is infinite from some step on."""

    def forward(self, x, training=False):
        y = super().forward(x, training)
        if training:
            self.__dict__.setdefault("calls", []).append(len(x))
            if len(self.calls) >= 5:
                y[0, 0] = np.inf
        return y


def test_the_step_and_the_layer_are_named(run):
    layers = [Flatten(), Dropout(0.1), Poison(4), BatchNorm(), Dense(3)]
    trainer = Trainer(Sequential(layers, (6, 6, 1), "cpu"), SGD(0.05), run=run)
    weights = []

    class Watched(SGD):
        def step(self, parameters, *others):
            super().step(parameters, *others)
            weights.append(parameters.copy())

    trainer.optimizer = Watched(0.05)
    with pytest.raises(TrainingDivergedError) as caught, np.errstate(invalid="ignore"):
        trainer.fit(noise(24), 3, 8)
    assert caught.value.step == 5
    assert caught.value.origin == "the output of layer 2 (Poison)"
    assert caught.value.checkpoint == run.folder / "checkpoints" / "epoch-0001.safetensors"
    assert str(caught.value) == (
        "the loss is nan at step 5, first in the output of layer 2 (Poison); "
        f"last checkpoint: {caught.value.checkpoint}"
    )
    # The batch did no harm to the weights, which are those of the step before.
    assert len(weights) == 4
    assert trainer.model.parameter_buffer.tobytes() == weights[-1].tobytes()
    assert len(trainer.history) == 1


def test_a_rate_that_is_too_high(run):
    model = Sequential([Flatten(), Dense(4), Dense(3)], (6, 6, 1), "cpu")
    with pytest.raises(TrainingDivergedError) as caught:
        Trainer(model, SGD(1e30), run=run).fit(noise(24), 2, 8)
    # The first step's weights are about 1e30 times a gradient: their product is no float32.
    assert (caught.value.step, caught.value.origin) == (2, "the output of layer 2 (Dense)")
    assert caught.value.checkpoint.name == "epoch-0000.safetensors"


@pytest.mark.parametrize(
    ("lr", "validation", "message"),
    [
        (1e39, None, "parameter 1.weight is not finite after step 1; there is no checkpoint"),
        (1e30, noise(24), "the loss is nan at step 1, first in the validation; there is no"),
    ],
)
def test_the_last_step_may_diverge_as_well(lr, validation, message):
    model = Sequential([Flatten(), Dense(4), Dense(3)], (6, 6, 1), "cpu")
    trainer = Trainer(model, SGD(lr))
    with pytest.raises(TrainingDivergedError, match=f"^{message}"), np.errstate(all="ignore"):
        trainer.fit(noise(24), 1, 24, validation)
    assert trainer.steps == 1 and trainer.history == []


@pytest.mark.parametrize("augment", [None, Augment(shift=1)])
def test_a_planned_step_diverges_as_one_taken_layer_by_layer(augment):
    """The step that diverges is a replayed one, and has its own random draws."""
    data, ends = noise(24), []
    for plan in (True, False):
        model = Sequential([Flatten(), Dropout(0.5), Dense(4), Dense(3)], (6, 6, 1), "cpu")
        trainer = Trainer(model, SGD(1e7), augment=augment, plan=plan)
        with pytest.raises(TrainingDivergedError) as caught, np.errstate(invalid="ignore"):
            trainer.fit(data, 5, 8)
        assert trainer.planned is plan and caught.value.step > 3
        parameters = model.parameter_buffer.tobytes()
        draws = [layer.draws for layer in model.layers]
        ends.append((str(caught.value), parameters, draws, trainer.steps, trainer.optimizer.steps))
    assert ends[0] == ends[1]
    message, _, draws, *steps = ends[0]
    assert draws[1] == caught.value.step == steps[0] + 1 == steps[1] + 1


def test_images_that_augmentation_spoils():
    def spoil(images, *, seed, offset):
        return np.full(images.shape, np.nan, np.float32)

    with pytest.raises(TrainingDivergedError, match="at step 1, first in the images; there is no"):
        images, labels = noise(8)
        make(None, augment=spoil).fit((images.astype(np.float32), labels))


def test_a_loss_that_begins_to_be_nan_is_named_itself():
    def loss(outputs, labels, grad=True):
        return np.float32(np.nan), outputs * 0

    with pytest.raises(TrainingDivergedError, match="first in the loss itself"):
        make(None, loss=loss).fit(noise(8))


def test_dropout_draws_the_same_numbers_when_looking_for_the_layer():
    """This layer's output overflows only with that step's mask."""
    kept = []

    class Recorder(Dense):
        def forward(self, x, training=False):
            kept.append((x != 0).tobytes())
            return super().forward(x, training) * np.float32(np.nan)

    layers = [Flatten(), Dropout(0.5), Recorder(3)]
    trainer = Trainer(Sequential(layers, (6, 6, 1), "cpu"), SGD(0.05))
    with pytest.raises(TrainingDivergedError, match=r"layer 2 \(Recorder\)"):
        trainer.fit(noise(8))
    first, again = kept
    assert first == again and trainer.model.layers[1].draws == 1
