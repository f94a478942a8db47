"""A training resumed from a file equals, bit for bit, one that was not interrupted."""

import pytest

from cnn import EMA, SGD, Adam, AdamW, Cosine, Run, Sequential
from cnn.formats import checkpoint as saved_files
from tests.lib.fresh_python import output
from tests.lib.resumed import DATA, InterruptedRun, fit, held, interrupted, make, refused
from tests.lib.support import host

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
from cnn import EMA
from tests.lib.resumed import fit, make
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
