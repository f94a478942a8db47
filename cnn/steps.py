"""Ways to take the steps of a training: layer by layer, or replayed; sharded.py has a third."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from kernels.lowlevel import Array, precision

from .course import Course
from .divergence import origin
from .plan import Plan
from .step import next_batch, take_step
from .training import Training


class Steps(Protocol):
    """Takes the steps of one `Trainer.fit`.

    The caller holds the model's lock during each step, and counts steps and images.
    """

    @property
    def plan(self) -> Plan | None:
        """What is recorded and replayed, if anything is."""

    def begin_epoch(self, order: Array, factors: Iterable[float]) -> None:
        """Start an epoch; its losses are added to the training's `loss_sum`.

        Parameters
        ----------
        order : array (N,)
            Indices of the images, in the order in which the steps take them.
        factors : iterable of float
            Factor of the learning rate, for each step of the epoch.
        """

    def take(
        self, chosen: Array, steps: int, factor: float, check: Callable[[Array], None]
    ) -> None:
        """Train on the next images of the epoch.

        Parameters
        ----------
        chosen : array (N,)
            Their indices.
        steps : int
            Number of equal batches that they are; more than 1 only where they are replayed.
        factor : float
            Factor of the learning rate at the last of them.
        check : callable
            Called with the loss of a single step, or with the epoch's sum, before the weights
            change.
        """

    def origin(self, chosen: Array, step: int) -> str:
        """Return where the first value that is not finite was in a step, counted from 0."""


class PlainSteps:
    """Steps that call every layer; see `Steps`."""

    plan: Plan | None = None

    def __init__(self, training: Training, images: Array, labels: Array) -> None:
        self._training, self._images, self._labels = training, images, labels

    def begin_epoch(self, order: Array, factors: Iterable[float]) -> None:
        """Do nothing: each step is given what it needs."""

    def take(
        self, chosen: Array, steps: int, factor: float, check: Callable[[Array], None]
    ) -> None:
        """Train on the chosen images, which are one batch."""
        training = self._training
        with precision(training.rounding):
            x = next_batch(training, self._images, chosen, training.steps)
            loss = take_step(training, x, self._labels[chosen], factor, check)
            training.loss_sum += loss.astype(training.loss_sum.dtype) * len(chosen)

    def origin(self, chosen: Array, step: int) -> str:
        """Return where the first value that is not finite was in a step, counted from 0."""
        x = next_batch(self._training, self._images, chosen, step)
        return origin(self._training.network, x)


class PlannedSteps(PlainSteps):
    """Steps that are recorded once and then replayed by a `Plan`; see `Steps`."""

    plan: Plan

    def __init__(self, training: Training, images: Array, labels: Array, course: Course) -> None:
        super().__init__(training, images, labels)
        self.plan = Plan(training, images, labels, course.steps_per_epoch)

    def begin_epoch(self, order: Array, factors: Iterable[float]) -> None:
        """Write what the steps of an epoch read."""
        self.plan.begin_epoch(order, factors)
        self._training.loss_sum = self.plan.progress.totals[0, ...]

    def take(
        self, chosen: Array, steps: int, factor: float, check: Callable[[Array], None]
    ) -> None:
        """Train on the chosen images; of several steps, no loss is checked."""
        if steps > 1:
            self.plan.replay_many(len(chosen) // steps, steps)
        else:
            self.plan.step(len(chosen), partial(check, self._training.loss_sum))
