"""A training resumed from a file equals, bit for bit, one that was not interrupted."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from cnn import (
    EMA,
    SGD,
    Adam,
    AdamW,
    Augment,
    BatchNorm,
    CheckpointError,
    Conv2D,
    Cosine,
    Dataset,
    Dense,
    Dropout,
    Flatten,
    OneCycle,
    ReLU,
    Run,
    Sequential,
    Trainer,
)
from cnn.formats import checkpoint as saved_files
from tests.lib.fresh_python import output
from tests.lib.support import host

RANDOM = np.random.default_rng(0)
# Three batches an epoch, the last of them smaller.
DATA = RANDOM.integers(256, size=(40, 9, 9), dtype=np.uint8), RANDOM.integers(3, size=40)
EPOCHS, BATCH = 4, 16


def layers(units=3):
    # Running statistics and random draws, both of which a training carries on.
    conv = [Conv2D(4, 3, bias=False), BatchNorm(), ReLU()]
    return [*conv, Dropout(0.2), Flatten(), Dropout(0.4), Dense(units)]


def make(model_seed=1, run=None, units=3, dtype="float32", device="cpu", **changes):
    options = {
        "optimizer": SGD(0.05, momentum=0.9),
        "schedule": OneCycle(),
        "augment": Augment(rotate=10, shift=1, zoom=0.1),
        "seed": 3,
    }
    model = Sequential(layers(units), (9, 9, 1), device, dtype, model_seed)
    return Trainer(model, run=run, **(options | changes))


def fit(trainer, epochs=EPOCHS):
    return trainer.fit(DATA, epochs, BATCH, validation=DATA)


def held(trainer):
    """Return a training's whole state, without times."""
    model, optimizer, ema = trainer.model, trainer.optimizer, trainer.ema
    arrays = {"parameters": model.parameter_buffer, **model.state, **optimizer.state}
    if ema is not None:
        arrays["average"] = ema.average
    of_clock = ("seconds", "images_per_second")
    history = [{k: v for k, v in r.items() if k not in of_clock} for r in trainer.history]
    numbers = [trainer.steps, trainer.images_seen, optimizer.steps, trainer.course]
    numbers += [ema and ema.steps, model.pixel_mean, model.pixel_std]
    numbers += [(layer.seed, layer.draws) for layer in model.layers]
    return {name: host(array).tobytes() for name, array in arrays.items()}, history, numbers


class InterruptedRun(Run):
    """Ctrl-C in one step."""

    def __init__(self, folder, at):
        super().__init__(folder)
        self.at = at

    def step(self, trainer, learning_rate):
        super().step(trainer, learning_rate)
        if trainer.steps == self.at:
            raise KeyboardInterrupt


def interrupted(folder, at, **options):
    """Interrupt a training after a step and return the run."""
    folder.mkdir()
    run = InterruptedRun(folder, at)
    with pytest.raises(KeyboardInterrupt):
        fit(make(run=run, **options))
    return run


TRAININGS = {
    "momentum": lambda: {},
    "momentum, average": lambda: {"ema": EMA(0.9)},
    "Nesterov, decay": lambda: {
        "optimizer": SGD(0.05, momentum=0.9, nesterov=True, weight_decay=0.01)
    },
    "Adam, average": lambda: {"optimizer": Adam(1e-2), "ema": EMA(0.9)},
    "AdamW": lambda: {"optimizer": AdamW(1e-2), "schedule": Cosine(warmup=0.2)},
    "nothing random, no state": lambda: {"optimizer": SGD(0.05), "augment": None},
    "float64": lambda: {"dtype": "float64", "ema": EMA(0.9)},
}


# Bit for bit


planned_or_not = pytest.mark.parametrize("plan", [True, False], ids=["planned", "layer by layer"])


@planned_or_not
@pytest.mark.parametrize("name", TRAININGS)
def test_two_epochs_and_two_more_are_four(name, plan, tmp_path):
    whole = make(**TRAININGS[name](), plan=plan)
    fit(whole)
    assert whole.planned is plan
    # At the end of the second epoch, before its checkpoint; in the midst of the third.
    for at, epochs in ((6, 1), (8, 2)):
        run = interrupted(tmp_path / str(at), at, **TRAININGS[name](), plan=plan)
        # Nothing is to come from the new model.
        resumed = make(model_seed=99, **TRAININGS[name](), plan=plan)
        resumed.restore(run.latest)
        assert len(resumed.history) == epochs and resumed.course.done == epochs
        fit(resumed)
        assert held(resumed) == held(whole)


@pytest.mark.usefixtures("cuda")
def test_the_loss_scale_goes_on_too(tmp_path):
    options = {"device": "cuda", "precision": "fp16"}
    trainers = [make(**options) for _ in range(2)]
    for trainer in trainers:
        trainer.loss_scale[0] = 2.0**20
        fit(trainer, 1)
    trainers[0].save(tmp_path / "whole.safetensors")
    trainers[1] = make(model_seed=99, **options)
    content = saved_files.read(tmp_path / "whole.safetensors")
    del content.training_arrays["loss_scale"]
    saved_files.write(tmp_path / "none.safetensors", content)
    refused(trainers[1], tmp_path / "none.safetensors", "its training has no 'loss_scale'")
    trainers[1].restore(tmp_path / "whole.safetensors")
    assert host(trainers[1].loss_scale).tolist() == host(trainers[0].loss_scale).tolist()
    for trainer in trainers:
        fit(trainer, 1)
    assert held(trainers[1]) == held(trainers[0])


def test_resumed_twice_and_from_the_first_checkpoint(tmp_path):
    whole = make(ema=EMA(0.9))
    fit(whole)
    run = interrupted(tmp_path / "run", 1, ema=EMA(0.9))
    assert [path.name for path in run.checkpoints] == ["epoch-0000.safetensors"]
    again = make(model_seed=99, ema=EMA(0.9), run=InterruptedRun(run.folder, 10))
    again.restore(run.latest)
    with pytest.raises(KeyboardInterrupt):
        fit(again)
    last = make(model_seed=7, ema=EMA(0.9))
    last.restore(run.latest)
    assert len(last.history) == 3
    fit(last)
    assert held(last) == held(whole)


def test_a_training_goes_on_in_another_process(tmp_path):
    whole = make(ema=EMA(0.9))
    fit(whole)
    run = interrupted(tmp_path / "run", 8, ema=EMA(0.9))
    script = f"""
from tests.cnn.test_resume import *
trainer = make(model_seed=99, ema=EMA(0.9)); trainer.restore({str(run.latest)!r})
fit(trainer); print(trainer.model.parameter_buffer.tobytes().hex())
"""
    assert output(script).strip() == whole.model.parameter_buffer.tobytes().hex()


@planned_or_not
def test_restoring_a_trainer_that_has_trained_leaves_its_arrays_where_they_are(plan, tmp_path):
    """A planned step holds their addresses."""
    whole = make(ema=EMA(0.9), plan=plan)
    fit(whole)
    run = interrupted(tmp_path / "run", 8, ema=EMA(0.9), plan=plan)
    for checkpoint in run.checkpoints:  # the first is of a time when there was no velocity yet
        trainer = make(model_seed=99, ema=EMA(0.9), plan=plan)
        fit(trainer, 1)
        arrays = [trainer.model.parameter_buffer, *trainer.model.state.values()]
        arrays += [trainer.ema.average, *trainer.optimizer.state.values()]
        trainer.restore(checkpoint)
        fit(trainer)
        found = [trainer.model.parameter_buffer, *trainer.model.state.values()]
        found += [trainer.ema.average, *trainer.optimizer.state.values()]
        assert all(a is b for a, b in zip(found, arrays, strict=True))
        assert held(trainer) == held(whole)


def test_an_average_of_another_model_becomes_the_restored_one(tmp_path):
    trainers = [make(ema=EMA(0.9)) for _ in range(2)]
    fit(trainers[0], 1)
    trainers[0].save(tmp_path / "one.safetensors")
    fit(make(units=4, ema=trainers[1].ema), 1)
    trainers[1].restore(tmp_path / "one.safetensors")
    for trainer in trainers:
        fit(trainer, 1)
    assert held(trainers[1]) == held(trainers[0])


def test_a_finished_training_is_followed_by_another(tmp_path):
    first, path = make(), tmp_path / "finished.safetensors"
    fit(first, 2)
    first.save(path)
    again = make(model_seed=99)
    again.restore(path)
    assert again.course.finished
    for trainer in (first, again):
        fit(trainer, 3)
    assert len(again.history) == 5 and held(again) == held(first)


@pytest.mark.parametrize("what", ["evaluate", "update_batch_norm"])
def test_an_epoch_is_over_after_its_validation(tmp_path, monkeypatch, what):
    """One that was interrupted in it is as one interrupted in a step: it does not go on."""
    trainer = make(ema=EMA(0.9), fresh_statistics=True)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(f"cnn.trainer.{what}", interrupt)
        fit(trainer, 1)
    assert trainer.history == [] and trainer.steps == 3
    trainer.save(tmp_path / "file")
    again = make(ema=EMA(0.9), fresh_statistics=True)
    again.restore(tmp_path / "file")
    fit(again, 2)
    assert [entry["epoch"] for entry in again.history] == [1, 2]


def test_an_interrupted_epoch_does_not_go_on(tmp_path):
    (tmp_path / "run").mkdir()
    first = make(run=InterruptedRun(tmp_path / "run", 5))
    with pytest.raises(KeyboardInterrupt):
        fit(first)
    first.run = None
    first.save(tmp_path / "interrupted.safetensors")
    again = make(model_seed=99)
    again.restore(tmp_path / "interrupted.safetensors")
    assert again.course is None
    for trainer in (first, again):
        fit(trainer, 2)  # as long as one likes
    assert held(again) == held(first)


def test_a_fit_that_was_refused_leaves_the_trainer_as_it_was(tmp_path):
    """Else the next `fit` would train all epochs again, with the statistics of other images."""
    whole = make(run=Run.create(tmp_path / "run", keep=9))
    with whole.run.held(), pytest.raises(BlockingIOError):
        whole.fit((DATA[0] // 2, DATA[1]), 1)
    assert whole.course is None and not whole.model.has_pixel_statistics
    fit(whole)
    again = make(run=Run(whole.run.folder, keep=9))
    again.restore(whole.run.checkpoints[2])
    with whole.run.held(), pytest.raises(BlockingIOError):
        fit(again)
    fit(again)
    assert held(again) == held(whole)


def test_an_interruption_by_ctrl_c_in_the_first_step_is_within_the_epoch(tmp_path):
    """Weights have changed, though the step is not counted yet."""

    class Interrupted(SGD):
        def update(self, *arguments, **options):
            super().update(*arguments, **options)
            if self.steps == 4:  # the first one of the second epoch
                raise KeyboardInterrupt

    trainer = make(optimizer=Interrupted(0.05))
    with pytest.raises(KeyboardInterrupt):
        fit(trainer)
    trainer.optimizer = SGD(0.05)
    trainer.save(tmp_path / "interrupted.safetensors")
    again = make(optimizer=SGD(0.05))
    again.restore(tmp_path / "interrupted.safetensors")
    assert again.steps == 3 and again.course is None


def test_a_checkpoint_is_a_model_too(tmp_path):
    trainer, path = make(ema=EMA(0.5)), tmp_path / "checkpoint.safetensors"
    fit(trainer, 2)
    trainer.save(path)
    model = Sequential.load(path, "cpu")
    assert model.parameter_buffer.tobytes() == trainer.model.parameter_buffer.tobytes()
    assert model.predict(DATA[0]).tobytes() == trainer.model.predict(DATA[0]).tobytes()


@planned_or_not
def test_before_the_first_step(plan, tmp_path):
    path = tmp_path / "new.safetensors"
    make(ema=EMA()).save(path)
    trainer, expected = make(model_seed=99, ema=EMA(), plan=plan), make(ema=EMA(), plan=plan)
    trainer.restore(path)
    for one in (trainer, expected):
        fit(one, 1)
    assert held(trainer) == held(expected)


# What does not fit


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    run = interrupted(tmp_path_factory.mktemp("resume") / "run", 8, ema=EMA(0.9))
    return run.latest


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"units": 4}, "is of another architecture: layer 6 is Dense(units=3, bias=True), expecte"),
        ({"dtype": "float64"}, "is of another architecture: dtype is float32, expected float64"),
        ({"optimizer": Adam()}, "was saved by a training with optimizer SGD(lr=0.05, momentum=0."),
        ({"optimizer": SGD(0.1, momentum=0.9)}, "was saved by a training with optimizer SGD(lr=0"),
        ({"schedule": None}, "with schedule OneCycle(peak=0.25, start=0.1, final=0.0), expected C"),
        ({"augment": None}, "with augment Augment(rotate=10, shift=1, zoom=0.1), expected None"),
        ({"ema": None}, "was saved by a training with ema EMA(decay=0.9), expected None"),
        ({"seed": 4}, "was saved by a training with seed 3, expected 4"),
        ({"fresh_statistics": True}, "by a training with fresh_statistics False, expected True"),
    ],
    ids=str,
)
def test_a_training_of_other_settings_is_refused(changes, sentence, checkpoint):
    trainer = make(**({"ema": EMA(0.9)} | changes))
    refused(trainer, checkpoint, sentence)
    assert trainer.history == [] and trainer.steps == 0


def refused(trainer, path, sentence):
    parameters = trainer.model.parameter_buffer.copy()
    with pytest.raises(CheckpointError) as caught:
        trainer.restore(path)
    message = str(caught.value)
    assert str(path) in message and sentence in message and "\n" not in message
    assert trainer.model.parameter_buffer.tobytes() == parameters.tobytes()


def test_a_model_without_its_training(tmp_path):
    path = tmp_path / "model.safetensors"
    make().model.save(path)
    refused(make(), path, "is a model without its training: that cannot go on")


def test_a_model_of_fewer_layers_is_refused(checkpoint):
    model = Sequential(layers()[:-1], (9, 9, 1), "cpu")
    sentence = "layer 6 is Dense(units=3, bias=True), expected missing"
    refused(Trainer(model, SGD(0.05)), checkpoint, sentence)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"epochs": 5}, "epochs: got 5, expected 4 as in the training restored"),
        ({"batch_size": 8}, "batch_size: got 8, expected 16 as in the training restored"),
        ({"data": (DATA[0][:39], DATA[1][:39])}, "the number of images: got 39, expected 40 as"),
        ({"data": (DATA[0], DATA[1][::-1])}, "the digest of the labels: got '"),
        ({"data": (DATA[0].swapaxes(1, 2), DATA[1])}, "the digest of the images: got '"),
        ({"data": Dataset(*DATA, "other")}, "data: got 'other', expected 'data' as in the train"),
    ],
    ids=["epochs", "batch size", "images", "labels", "pixels", "data"],
)
def test_a_fit_of_other_arguments_is_refused(change, sentence, checkpoint):
    trainer = make(ema=EMA(0.9))
    trainer.restore(checkpoint)
    options = {"data": DATA, "epochs": EPOCHS, "batch_size": BATCH}
    with pytest.raises(ValueError) as caught:
        trainer.fit(**(options | change))
    assert sentence in str(caught.value)
    assert trainer.fit(**options)[-1]["epoch"] == EPOCHS  # what fits still goes on


# Damage


def damaged(path, content):
    path.write_bytes(content)
    return path


def test_a_truncated_checkpoint(checkpoint, tmp_path):
    content = checkpoint.read_bytes()
    for kept in (0, 7, 500, len(content) // 2, len(content) - 1):
        path = damaged(tmp_path / "cut.safetensors", content[:kept])
        refused(make(ema=EMA(0.9)), path, "is damaged or no safetensors file")


def test_a_flipped_bit_anywhere(checkpoint, tmp_path):
    content = checkpoint.read_bytes()
    for position in [*range(0, len(content), 997), len(content) - 1]:
        changed = bytearray(content)
        changed[position] ^= 0x10
        path = damaged(tmp_path / "flipped.safetensors", changed)
        refused(make(ema=EMA(0.9)), path, "is ")


@pytest.mark.parametrize("version", ["cnn-kernels model 0", "cnn-kernels model 2"])
def test_an_older_or_newer_format(version, checkpoint, tmp_path):
    with safe_open(checkpoint, framework="numpy") as file:
        metadata = file.metadata() | {"format": version}
        arrays = {name: file.get_tensor(name) for name in list(file.keys())}
    path = tmp_path / "other.safetensors"
    save_file(arrays, path, metadata)
    sentence = f"is not a model of this version: {version}, not cnn-kernels model 1"
    refused(make(ema=EMA(0.9)), path, sentence)


def test_no_part_of_the_file_is_left_out_of_the_hash(checkpoint, tmp_path):
    """The training's state, beside the model's, is hashed, too."""
    with safe_open(checkpoint, framework="numpy") as file:
        metadata = file.metadata()
        arrays = {name: file.get_tensor(name) for name in list(file.keys())}
    training = json.loads(metadata["training"]) | {"steps": 7}
    path = tmp_path / "changed.safetensors"
    save_file(arrays, path, metadata | {"training": json.dumps(training)})
    refused(make(ema=EMA(0.9)), path, "is damaged: its content is not what was saved")
    for name in arrays:
        changed = {**arrays, name: arrays[name] + 1}
        save_file(changed, path, metadata)
        refused(make(ema=EMA(0.9)), path, "is damaged: its content is not what was saved")


def test_a_file_edited_by_hand(tmp_path):
    """Its hash was computed anew, so that only the content tells."""
    trainer, path = make(ema=EMA(0.9)), tmp_path / "edited.safetensors"
    fit(trainer)
    trainer.save(path)
    whole = saved_files.read(path)
    for kind in ("architecture", "training"):
        described = getattr(whole, kind)
        for key in described:
            for wrong in ({}, {key: "?" if key != "dtype" else 32}):
                rest = {name: value for name, value in described.items() if name != key}
                saved_files.write(path, replace(whole, **{kind: rest | wrong}))
                sentence = f"is damaged: its {kind} has no {key!r} as it is saved"
                refused(make(ema=EMA(0.9)), path, sentence)
                with pytest.raises(CheckpointError, match=sentence):
                    Sequential.load(path)
    changes = [
        ({"draws": [[0, 0]]}, "its training has draws of other layers"),
        ({"course": {"epochs": 4}}, "its training has another 'course': "),
        ({"history": [{"epoch": 1}]}, "its training has no 'history' as it is saved"),
    ]
    for change, sentence in changes:
        saved_files.write(path, replace(whole, training=whole.training | change))
        refused(make(ema=EMA(0.9)), path, sentence)
    for name, array in whole.training_arrays.items():
        rest = {other: value for other, value in whole.training_arrays.items() if other != name}
        for wrong in ({}, {name: np.zeros(3, np.float32)}, {name: np.zeros(1, np.float32)}):
            saved_files.write(path, replace(whole, training_arrays=rest | wrong))
            sentence = f"is damaged: its training has no {name!r} of shape {array.shape}"
            refused(make(ema=EMA(0.9)), path, sentence)
    for text in ("", "[1]"):
        path.write_bytes(saved_files.to_bytes(whole))
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in list(file.keys())}
        described = {"architecture": text}
        digest = saved_files._digest(described, arrays)
        save_file(arrays, path, {"format": saved_files._FORMAT, **described, "sha256": digest})
        refused(make(ema=EMA(0.9)), path, "is damaged: its architecture ")
