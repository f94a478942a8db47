"""Recipes: a network with all that is needed to train it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .augment import Augment
from .ema import EMA
from .layers import BatchNorm, Conv2D, Dense, Flatten, Layer, MaxPool2D, ReLU
from .losses import Loss, SoftmaxCrossEntropy
from .optimizers import SGD, Optimizer
from .schedules import OneCycle, Schedule


@dataclass(frozen=True)
class Recipe:
    """A training, up to its data and seed.

    Attributes
    ----------
    layers : callable
        Returns the unbuilt layers.
    optimizer : callable
        Takes the learning rate, returns the optimizer.
    lr : float
        Learning rate at the schedule's peak.
    epochs, batch_size : int
        Length of the training.
    loss, schedule, augment, ema
        As `Trainer` takes them; `ema` is a decay.
    """

    layers: Callable[[], list[Layer]]
    optimizer: Callable[[float], Optimizer]
    lr: float
    epochs: int
    batch_size: int
    loss: Loss = SoftmaxCrossEntropy()
    schedule: Schedule = OneCycle()
    augment: Augment | None = None
    ema: float | None = None

    def average(self) -> EMA | None:
        """Return a new moving average of the weights, if the recipe has one."""
        return None if self.ema is None else EMA(self.ema)


def _speedrun() -> list[Layer]:
    return [
        Conv2D(24, 5),
        MaxPool2D(2),
        ReLU(),
        Conv2D(32, 3),
        MaxPool2D(2),
        ReLU(),
        Flatten(),
        Dense(256),
        ReLU(),
        Dense(10),
    ]


def _normalised(filters: tuple[int, int, int]) -> list[Layer]:
    """Return three convolutions with batch-norm, ReLU and pooling, and two dense layers."""

    def block(count: int, kernel: int) -> list[Layer]:
        # BatchNorm has a shift of its own, so the convolution needs no bias.
        conv = Conv2D(count, kernel, padding="same", bias=False)
        return [conv, BatchNorm(), ReLU(), MaxPool2D(2)]

    blocks = [*block(filters[0], 5), *block(filters[1], 3), *block(filters[2], 3)]
    return [*blocks, Flatten(), Dense(128), ReLU(), Dense(10)]


RECIPES: dict[str, Recipe] = {
    "speedrun": Recipe(
        _speedrun,
        lambda lr: SGD(lr, momentum=0.9, nesterov=True),
        lr=0.15,
        epochs=1,
        batch_size=128,
        loss=SoftmaxCrossEntropy(label_smoothing=0.1),
    ),
    "default": Recipe(
        lambda: _normalised((24, 48, 64)),
        lambda lr: SGD(lr, momentum=0.9, nesterov=True, weight_decay=5e-4),
        lr=0.1,
        epochs=10,
        batch_size=128,
        augment=Augment(rotate=10, shift=2, zoom=0.1),
    ),
    "accurate": Recipe(
        lambda: _normalised((32, 64, 96)),
        lambda lr: SGD(lr, momentum=0.9, nesterov=True, weight_decay=5e-4),
        lr=0.1,
        epochs=30,
        batch_size=128,
        loss=SoftmaxCrossEntropy(label_smoothing=0.1),
        augment=Augment(rotate=10, shift=2, zoom=0.1),
    ),
}
