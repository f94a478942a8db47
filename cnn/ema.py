"""An exponential moving average of weights."""

from __future__ import annotations

from dataclasses import dataclass

from kernels.runtime import Array


@dataclass
class EMA:
    """average = decay * average + (1 - decay) * weights, over the flat buffer.

    Source: Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992.

    Parameters
    ----------
    decay : float
        In [0, 1). Early on (1 + steps) / (10 + steps) is used where that is smaller, so that the
        initial weights are soon forgotten.
    """

    decay: float = 0.999

    def __post_init__(self) -> None:
        """Start without an average."""
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay: got {self.decay}, expected at least 0 and below 1")
        self.average: Array | None = None
        self.steps = 0

    def update(self, weights: Array) -> None:
        """Move the average towards the weights after a step."""
        if self.average is None:
            self.average = weights.copy()
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.average += (1 - decay) * (weights - self.average)

    def swap(self, weights: Array) -> None:
        """Exchange the average and the weights."""
        if self.average is not None:
            held = weights.copy()
            weights[...] = self.average
            self.average = held
