"""A training to save, interrupt and resume, and the whole of its state to compare."""

import numpy as np
import pytest

from cnn import (
    SGD,
    Augment,
    BatchNorm,
    CheckpointError,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    OneCycle,
    ReLU,
    Run,
    Sequential,
    Trainer,
)
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


def refused(trainer, path, sentence):
    parameters = trainer.model.parameter_buffer.copy()
    with pytest.raises(CheckpointError) as caught:
        trainer.restore(path)
    message = str(caught.value)
    assert str(path) in message and sentence in message and "\n" not in message
    assert trainer.model.parameter_buffer.tobytes() == parameters.tobytes()
