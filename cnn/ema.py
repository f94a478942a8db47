"""An exponential moving average of weights."""

from __future__ import annotations

from dataclasses import dataclass

from kernels.lowlevel import Array, Scalars, average_update

from . import checks


@dataclass
class EMA:
    """average = decay * average + (1 - decay) * weights, over the flat buffer.

    Source: Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992.

    Parameters
    ----------
    decay : float
        In [0, 1). The average starts as the weights after the first step. Early steps have the
        decay (1 + steps) / (10 + steps), if that is smaller, so that it soon forgets them.
    """

    decay: float = 0.999

    recordable = True

    def __post_init__(self) -> None:
        """Check the settings, and start without an average."""
        checks.settle(self, decay=checks.number(0, below=1))
        self.average: Array | None = None
        self.steps = 0

    def begin(self, weights: Array) -> None:
        """Allocate the average if there is none."""
        if self.average is None:
            self.average = weights.copy()

    def update(self, weights: Array) -> None:
        """Move the average towards the weights after a step."""
        self.begin(weights)
        self.move(weights, self.scalars(self.steps + 1))
        self.steps += 1

    def scalars(self, step: int) -> tuple[float]:
        """Return the step's 1 - decay, which is 1 at step 1."""
        return (1.0 if step == 1 else 1 - min(self.decay, (1 + step) / (10 + step)),)

    def move(self, weights: Array, scalars: Scalars) -> None:
        """Launch the update by the scalars of one step or a table of them, after `begin`."""
        average_update(scalars, self.average, weights)

    def swap(self, weights: Array) -> None:
        """Exchange the average and the weights."""
        if self.average is not None:
            held = weights.copy()
            weights[...] = self.average
            self.average[...] = held
