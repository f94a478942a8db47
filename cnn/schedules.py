"""Schedules: functions that give the factor of the learning rate at each step of a training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from . import checks


class Schedule(Protocol):
    """What the trainer needs of a schedule: its result depends on its arguments alone.

    A planned training asks for the factors of an epoch before its first step.
    """

    def __call__(self, step: int, steps: int) -> float:
        """Return the factor at a step, counted from 0, of the `steps` of all epochs.

        `Trainer` multiplies the optimizer's `lr` by it. The schedules here give 0 to 1, and 1 in a
        training of one step.
        """


@dataclass(frozen=True)
class Constant:
    """A factor of 1 at every step."""

    def __call__(self, step: int, steps: int) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class Step:
    """Multiply by `gamma` each time the fraction `every` of the training has passed.

    Parameters
    ----------
    every : float
        Fraction of the training between two drops, from 1e-9 to 1.
    gamma : float
        Factor of a drop, in [0, 1].
    """

    every: float = 1 / 3
    gamma: float = 0.1

    def __post_init__(self) -> None:
        """Check the settings."""
        checks.settle(self, every=checks.number(1e-9, most=1), gamma=checks.fraction)

    def __call__(self, step: int, steps: int) -> float:
        """Return gamma to the power of the drops so far."""
        return self.gamma ** math.floor(step / (self.every * steps) + 1e-9)


@dataclass(frozen=True)
class Cosine:
    """Linear warm-up, then half a cosine down to `final`.

    Source: Loshchilov and Hutter, "SGDR", 2017.

    Parameters
    ----------
    warmup : float
        Fraction of the training spent warming up, in [0, 1).
    final : float
        Factor of the last step, in [0, 1], even if the warm-up reaches that far.
    """

    warmup: float = 0.0
    final: float = 0.0

    def __post_init__(self) -> None:
        """Check the settings."""
        checks.settle(self, warmup=checks.number(0, below=1), final=checks.fraction)

    def __call__(self, step: int, steps: int) -> float:
        """Return the factor: 1 for a training of one step."""
        last, warm = steps - 1, self.warmup * steps
        if step == last:
            return self.final if last > 0 else 1.0
        if step < warm:
            return (step + 1) / (warm + 1)
        progress = (step - warm) / (last - warm)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class OneCycle:
    """Linear from `start` up to 1 at `peak`, then linear down to `final`.

    Source: Smith and Topin, "Super-convergence", 2018.

    Parameters
    ----------
    peak : float
        Fraction of the training at which the rate is highest, in [0, 1]. At 0 the first step has
        the factor 1 in place of `start`; at 1 the last step has it in place of `final`.
    start, final : float
        Factors of the first and the last step, in [0, 1].
    """

    peak: float = 0.25
    start: float = 0.1
    final: float = 0.0

    def __post_init__(self) -> None:
        """Check the settings."""
        within = checks.fraction
        checks.settle(self, peak=within, start=within, final=within)

    def __call__(self, step: int, steps: int) -> float:
        """Return the factor: 1 for a training of one step."""
        last = steps - 1
        top = self.peak * last
        if step < top:
            return self.start + (1 - self.start) * step / top
        if step == last:
            return self.final if top < last else 1.0
        return 1 - (1 - self.final) * (step - top) / (last - top)
