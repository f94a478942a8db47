"""Recipes: networks, each with the settings to train it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import checks
from .augment import Augment
from .ema import EMA
from .layers import BatchNorm, Conv2D, Dense, Dropout, Flatten, Layer, MaxPool2D, ReLU
from .losses import Loss, SoftmaxCrossEntropy
from .model import Sequential
from .optimizers import SGD, Optimizer
from .schedules import OneCycle, Schedule
from .trainer import Trainer


@dataclass(frozen=True)
class Recipe:
    """All settings of a training but its data and seed.

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
    loss, schedule, augment, ema, fresh_statistics
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
    fresh_statistics: bool = False

    def __post_init__(self) -> None:
        """Check the settings."""
        function = checks.function
        checks.settle(
            self,
            lr=checks.number(0),
            epochs=checks.count,
            batch_size=checks.count,
            loss=function,
            schedule=function,
            augment=checks.optional(function),
            ema=checks.optional(checks.number(0, below=1)),
            fresh_statistics=checks.flag,
        )

    def trainer(self, model: Sequential, lr: float | None = None, **options: Any) -> Trainer:
        """Return a new trainer with these settings.

        Parameters
        ----------
        model : Sequential
            The model to train.
        lr : float, optional
            Learning rate at the schedule's peak; the recipe's by default.
        **options
            Other arguments of `Trainer`, such as its seed; `fresh_statistics` may be another.
        """
        options = {"fresh_statistics": self.fresh_statistics, **options}
        return Trainer(
            model,
            self.optimizer(self.lr if lr is None else lr),
            self.loss,
            self.schedule,
            self.augment,
            ema=None if self.ema is None else EMA(self.ema),
            **options,
        )


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


def _stage(filters: int, *kernels: int) -> list[Layer]:
    """Return convolution, batch-norm and ReLU for each size of kernel, then a pool."""
    layers: list[Layer] = []
    for kernel in kernels:
        # BatchNorm has a shift of its own, so the convolution needs no bias.
        layers += [Conv2D(filters, kernel, padding="same", bias=False), BatchNorm(), ReLU()]
    return [*layers, MaxPool2D(2)]


def _default() -> list[Layer]:
    stages = [*_stage(24, 5), *_stage(48, 3), *_stage(64, 3)]
    return [*stages, Flatten(), Dense(128), ReLU(), Dense(10)]


def _accurate() -> list[Layer]:
    stages = [*_stage(32, 5), *_stage(64, 3, 3), *_stage(96, 3, 3)]
    return [*stages, Flatten(), Dropout(0.4), Dense(128), ReLU(), Dense(10)]


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
        _default,
        lambda lr: SGD(lr, momentum=0.9, nesterov=True, weight_decay=5e-4),
        lr=0.1,
        epochs=10,
        batch_size=128,
        augment=Augment(rotate=10, shift=2, zoom=0.1),
    ),
    "accurate": Recipe(
        _accurate,
        lambda lr: SGD(lr, momentum=0.9, nesterov=True, weight_decay=5e-4),
        lr=0.1,
        epochs=20,
        batch_size=128,
        loss=SoftmaxCrossEntropy(label_smoothing=0.1),
        augment=Augment(rotate=10, shift=2, zoom=0.1),
        fresh_statistics=True,
    ),
}
