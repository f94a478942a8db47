"""What a training leaves behind: history, averaged weights, and all of it when interrupted."""

import math
import sys
import time

import numpy as np
import pytest

from cnn import EMA, SGD, Conv2D, Dense, Flatten, OneCycle, ReLU, Sequential, Trainer, evaluate
from cnn.formats import checkpoint
from tests.lib.comparison import assert_close

RECORD = ["epoch", "train_loss", "seconds", "images_per_second", "learning_rate"]


def noise(count, seed=0):
    random = np.random.default_rng(seed)
    images = random.integers(256, size=(count, 8, 8), dtype=np.uint8)
    return images, random.integers(3, size=count)


def build():
    return Sequential([Conv2D(4, 3), ReLU(), Flatten(), Dense(3)], (8, 8, 1), "cpu")


class WatchedSGD(SGD):
    """Keeps the weights after every step."""

    def step(self, parameters, gradients, factor=1.0):
        super().step(parameters, gradients, factor)
        self.__dict__.setdefault("weights", []).append(parameters.copy())


class Interrupting:
    """An augmentation that changes nothing, until the user presses Ctrl-C in one batch."""

    def __init__(self, batch):
        self.batch = batch

    def __call__(self, images, *, seed, offset):
        if offset == self.batch:
            raise KeyboardInterrupt
        return images


# History


def test_a_record_for_every_epoch():
    schedule = OneCycle(peak=0.0, final=0.2)
    trainer = Trainer(build(), SGD(0.05), schedule=schedule)
    start = time.perf_counter()
    history = trainer.fit(noise(50), epochs=3, batch_size=20)
    wall = time.perf_counter() - start
    assert history is trainer.history and len(history) == 3
    for number, record in enumerate(history, start=1):
        assert list(record) == RECORD
        assert record["epoch"] == number and 0 < record["train_loss"] < 10
        assert math.isclose(record["images_per_second"], 50 / record["seconds"])
        assert math.isclose(record["learning_rate"], 0.05 * schedule(3 * number - 1, 9))
    assert trainer.images_seen == 150
    assert 0 < trainer.train_seconds <= sum(record["seconds"] for record in history) <= wall
    assert trainer.running_loss == history[-1]["train_loss"]


def test_history_goes_on_in_the_next_training():
    trainer = Trainer(build(), SGD(0.05))
    trainer.fit(noise(20), epochs=2)
    trainer.fit(noise(20), epochs=1)
    assert [record["epoch"] for record in trainer.history] == [1, 2, 3]


def test_validation_is_recorded_and_changes_nothing():
    data, validation = noise(40), noise(30, seed=1)
    plain, watched = build(), build()
    Trainer(plain, SGD(0.05, momentum=0.9)).fit(data, epochs=2, batch_size=16)
    trainer = Trainer(watched, SGD(0.05, momentum=0.9))
    history = trainer.fit(data, epochs=2, batch_size=16, validation=validation)
    assert watched.parameter_buffer.tobytes() == plain.parameter_buffer.tobytes()
    for record in history:
        assert list(record) == [*RECORD, "validation_loss", "validation_accuracy"]
    expected = trainer.evaluate(validation)
    assert history[-1]["validation_loss"] == expected["loss"]
    assert history[-1]["validation_accuracy"] == expected["accuracy"]
    assert history[0]["validation_loss"] != expected["loss"]


def test_evaluating_in_batches_is_evaluating_at_once():
    data, model = noise(50), build()
    at_once = evaluate(model, data, batch_size=50)
    logits = model.predict(data[0])
    assert at_once["accuracy"] == (logits.argmax(axis=1) == data[1]).mean()
    for batch_size in (7, 49, 1000):
        found = evaluate(model, data, batch_size=batch_size)
        assert found["accuracy"] == at_once["accuracy"]
        assert math.isclose(found["loss"], at_once["loss"], rel_tol=1e-5)


def test_progress_is_shown_where_asked_for(capsys, monkeypatch):
    Trainer(build(), SGD(0.05)).fit(noise(20))
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    Trainer(build(), SGD(0.05)).fit(noise(20), epochs=2, progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    for part in ("epoch 2/2", "images/s", "loss ", "100%", "\r"):
        assert part in shown.err


def test_progress_in_a_file_is_a_line_per_epoch(capsys):
    trainer = Trainer(build(), SGD(0.05))
    history = trainer.fit(noise(20), epochs=3, progress=True)
    shown = capsys.readouterr()
    lines = [
        f"epoch {epoch['epoch']}/3: {epoch['images_per_second']:,.0f} images/s, "
        f"loss {epoch['train_loss']:.4f}"
        for epoch in history
    ]
    assert (shown.out, shown.err.split("\n")) == ("", [*lines, ""])


def test_without_a_standard_error_no_progress_is_shown(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr", None)  # closed, or of a program without a console
    assert len(Trainer(build(), SGD(0.05)).fit(noise(20), epochs=2, progress=True)) == 2
    assert capsys.readouterr() == ("", "")


# The moving average of the weights


def averaged(weights, decay):
    """The formula of `EMA`, over the weights after each step."""
    average = weights[0]
    for step, current in enumerate(weights, start=1):
        share = min(decay, (1 + step) / (10 + step))
        average = share * average + (1 - share) * current
    return average


@pytest.mark.parametrize("decay", [0.0, 0.2, 0.999])
def test_the_model_ends_with_the_average(decay):
    model, optimizer = build(), WatchedSGD(0.05, momentum=0.9)
    Trainer(model, optimizer, ema=EMA(decay)).fit(noise(60), epochs=2, batch_size=8)
    assert len(optimizer.weights) == 16
    assert_close(model.parameter_buffer, averaged(optimizer.weights, decay), rtol=1e-5)
    same_as_last = np.allclose(model.parameter_buffer, optimizer.weights[-1], rtol=1e-6)
    assert same_as_last == (decay == 0)


def test_the_average_does_not_change_the_training():
    plain, averaging = WatchedSGD(0.05, momentum=0.9), WatchedSGD(0.05, momentum=0.9)
    for optimizer, ema in ((plain, None), (averaging, EMA(0.9))):
        trainer = Trainer(build(), optimizer, ema=ema)
        trainer.fit(noise(60), epochs=2, batch_size=8, validation=noise(9, seed=1))
    for weights, expected in zip(averaging.weights, plain.weights, strict=True):
        assert weights.tobytes() == expected.tobytes()


def test_the_average_is_what_is_evaluated():
    model, validation = build(), noise(30, seed=1)
    trainer = Trainer(model, SGD(0.05, momentum=0.9), ema=EMA(0.9))
    last = trainer.fit(noise(60), 2, 8, validation=validation)[-1]
    assert trainer.evaluate(validation)["loss"] == last["validation_loss"]
    assert evaluate(model, validation)["loss"] == last["validation_loss"]


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_decay_out_of_range(decay):
    with pytest.raises(ValueError, match=f"decay: got {decay}, expected at least 0 and below 1"):
        EMA(decay)


# Interruption


def test_an_interruption_leaves_what_was_reached():
    model, data = build(), noise(50)
    trainer = Trainer(model, SGD(0.05, momentum=0.9), augment=Interrupting(batch=7))
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(data, epochs=3, batch_size=10)
    assert [record["epoch"] for record in trainer.history] == [1]
    assert trainer.images_seen == 70 and trainer.train_seconds > 0
    assert math.isfinite(trainer.running_loss)

    # Seven steps of a training that nobody interrupts leave the same weights.
    reached = WatchedSGD(0.05, momentum=0.9)
    Trainer(build(), reached).fit(data, epochs=3, batch_size=10)
    assert model.parameter_buffer.tobytes() == reached.weights[6].tobytes()

    assert trainer.evaluate(data)["loss"] < 2
    trainer.augment = None
    assert [record["epoch"] for record in trainer.fit(data)] == [1, 2]


def test_an_interruption_before_the_first_step():
    trainer = Trainer(build(), SGD(0.05), augment=Interrupting(batch=0), ema=EMA())
    before = trainer.model.parameter_buffer.copy()
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(noise(50))
    assert trainer.history == [] and trainer.images_seen == 0
    assert math.isnan(trainer.running_loss)
    assert trainer.model.parameter_buffer.tobytes() == before.tobytes()


def test_an_interruption_leaves_the_average_in_the_model():
    model, optimizer = build(), WatchedSGD(0.05)
    trainer = Trainer(model, optimizer, augment=Interrupting(batch=5), ema=EMA(0.9))
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(noise(50), epochs=2, batch_size=10)
    assert_close(model.parameter_buffer, averaged(optimizer.weights, 0.9), rtol=1e-5)
    trainer.augment = None
    trainer.fit(noise(50), epochs=1, batch_size=10)
    assert_close(model.parameter_buffer, averaged(optimizer.weights, 0.9), rtol=1e-5)


def test_a_save_within_an_epoch_is_that_of_an_interruption(tmp_path):
    """The model in the file holds the average, though in training it holds the weights."""

    def saving(images, *, seed, offset):
        if offset == 7:
            trainers[0].save(tmp_path / "within")
        return images

    trainers = [
        Trainer(build(), SGD(0.05), augment=augment, ema=EMA(0.9))
        for augment in (saving, Interrupting(batch=7), Interrupting(batch=99))
    ]
    trainers[0].fit(noise(50), epochs=2, batch_size=10)
    with pytest.raises(KeyboardInterrupt):
        trainers[1].fit(noise(50), epochs=2, batch_size=10)
    trainers[1].save(tmp_path / "after")
    saved = [checkpoint.read(tmp_path / name) for name in ("within", "after")]
    for kind in ("arrays", "training_arrays"):
        within, after = (getattr(content, kind) for content in saved)
        assert within.keys() == after.keys()
        assert all(within[name].tobytes() == after[name].tobytes() for name in within)
    trainers[2].fit(noise(50), epochs=2, batch_size=10)
    ends = [trainers[place].model.parameter_buffer.tobytes() for place in (0, 2)]
    assert ends[0] == ends[1]


def test_an_interruption_by_the_schedule():
    def schedule(step, steps):
        if step == 2:
            raise KeyboardInterrupt
        return 1.0

    # A plan would ask the schedule for every step ahead of the first.
    trainer = Trainer(build(), SGD(0.05), schedule=schedule, plan=False)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(noise(50), batch_size=10)
    assert trainer.images_seen == 20 and trainer.history == []
