"""A training as a value: what is trained, by what settings, and how far it has come."""

from __future__ import annotations

import math
from typing import Any

from kernels.lowlevel import Array, check_precision, new_loss_scale

from . import checks
from .augment import Augment
from .course import Course
from .ema import EMA
from .evaluation import loss_of
from .losses import Loss
from .model import Sequential
from .narrow import NarrowNetwork, network_of_steps
from .optimizers import Optimizer
from .schedules import Constant, Schedule


class Training:
    """A model, the settings of its training, and how far that has come.

    A checkpoint holds all of it. `Trainer` adds `fit`; its docstring describes the parameters.

    Attributes
    ----------
    history : list of dict
        A record per finished epoch: epoch, train_loss, seconds, images_per_second, learning_rate
        of its last step and, with validation data, validation_loss and validation_accuracy.
    train_seconds : float
        Time spent in training steps: no compiling, loading or evaluation.
    images_seen, steps : int
        Numbers of images and batches trained on so far.
    course : Course or None
        The last `fit`.
    network : Network
        The network that steps run: the model, or its copy in the type of `precision`, see
        narrow.py.
    loss_scale : array (3,) or None
        With "fp16", the state of the loss scale, on the device; see `lowlevel.new_loss_scale`.
    loss_sum : array ()
        Sum of the losses of the current epoch's images, on the device; not saved.
    loss_count : int
        Number of images in `loss_sum`; not saved.
    """

    def __init__(
        self,
        model: Sequential,
        optimizer: Optimizer,
        loss: Loss | None = None,
        schedule: Schedule | None = None,
        augment: Augment | None = None,
        precision: str = "fp32",
        seed: int = 0,
        ema: EMA | None = None,
        fresh_statistics: bool = False,
    ) -> None:
        self._model: Sequential = checks.instance("model", model, Sequential)
        check_precision(precision, model.target, model.dtype)
        self.optimizer: Optimizer = checks.instance("optimizer", optimizer, Optimizer)
        self.loss: Loss = loss_of(model, loss)
        schedule = Constant() if schedule is None else schedule
        self.schedule: Schedule = checks.function("schedule", schedule)
        self.augment = None if augment is None else checks.function("augment", augment)
        self._precision = precision
        self.network = network_of_steps(self.model, precision, self.loss, self.optimizer)
        self.seed = checks.word("seed", seed)
        self.ema: EMA | None = None if ema is None else checks.instance("ema", ema, EMA)
        self.fresh_statistics = checks.flag("fresh_statistics", fresh_statistics)
        self.history: list[dict[str, Any]] = []
        self.train_seconds = 0.0
        self.images_seen = 0
        self.steps = 0
        self.course: Course | None = None
        scaled = precision == "fp16"
        self.loss_scale = new_loss_scale(model.target, model.dtype) if scaled else None
        self.loss_sum: Array = None
        self.loss_count = 0

    @property
    def model(self) -> Sequential:
        """The model; no other one can take its place, since `network` belongs to it."""
        return self._model

    @property
    def precision(self) -> str:
        """The precision, of which `network` and `loss_scale` are made: no other can replace it."""
        return self._precision

    @property
    def rounding(self) -> str:
        """The precision of products of float32 arrays: "fp32" if the network is a narrow one."""
        return self.precision if self.narrow is None else "fp32"

    @property
    def narrow(self) -> NarrowNetwork | None:
        """The network that steps run if it is a narrow one, else None."""
        return self.network if isinstance(self.network, NarrowNetwork) else None

    @property
    def running_loss(self) -> float:
        """Mean training loss of the current epoch, or of the last one before its first step.

        NaN before the first step of a training. Reading it waits for a GPU.
        """
        if self.loss_count:
            return float(self.loss_sum) / self.loss_count
        return float(self.history[-1]["train_loss"]) if self.history else math.nan
