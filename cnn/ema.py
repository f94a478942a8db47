"""An exponential moving average of weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

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
    # What `leave` left in the model.
    _left: Array | None = field(default=None, init=False, repr=False, compare=False)

    recordable = True

    def __post_init__(self) -> None:
        """Check the settings, and start without an average."""
        checks.settle(self, decay=checks.number(0, below=1))
        self.average: Array | None = None
        self.steps = 0
        self.entered = False  # whether the model holds the weights, and not their average

    def __getstate__(self) -> dict[str, Any]:
        """Copy and pickle the average, which changes in place."""
        return {**vars(self), "average": None if self.average is None else self.average.copy()}

    def begin(self, weights: Array) -> None:
        """Allocate the average if there is none, or one of another size or type."""
        if self.average is None or not _alike(weights, self.average):
            self.average, self.steps = weights.copy(), 0

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

    def enter(self, weights: Array) -> None:
        """Exchange a model's average for its weights, to train on.

        If the model does not hold what `leave` left in it, because it is another one or has been
        given other weights, these are trained, and the average starts anew.
        """
        if self._left is not None and _bits_equal(weights, self._left):
            self.swap(weights)
            return
        self.begin(weights)
        assert self.average is not None
        self.average[...] = weights  # in place, since recorded launches hold its address
        self.steps, self.entered = 0, True

    def leave(self, weights: Array) -> None:
        """Exchange a model's weights for their average, after training."""
        self.swap(weights)
        self.left(weights)

    def left(self, average: Array) -> None:
        """Remember the average that a model holds."""
        self._left = average.copy()

    def swap(self, weights: Array) -> None:
        """Exchange the average and the weights."""
        if self.average is not None:
            held = weights.copy()
            weights[...] = self.average
            self.average[...] = held
            self.entered = not self.entered


def _alike(a: Array, b: Array) -> bool:
    return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape


def _bits_equal(a: Array, b: Array) -> bool:
    return _alike(a, b) and bool((a.view("uint8") == b.view("uint8")).all())
