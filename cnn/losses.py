"""Losses: functions of outputs and labels that return the mean loss and its gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import kernels
from kernels.lowlevel import Array

from . import checks


class Loss(Protocol):
    """What the trainer needs of a loss."""

    def __call__(self, outputs: Array, labels: Array, grad: bool = True) -> tuple[Array, Array]:
        """Return the loss, an array (), and its gradient by the outputs (None without `grad`)."""


@dataclass(frozen=True)
class SoftmaxCrossEntropy:
    """Softmax and cross-entropy in one pass; the model ends with logits.

    Parameters
    ----------
    label_smoothing : float
        Share of the target spread over all classes, in [0, 1].
    """

    label_smoothing: float = 0.0

    recordable = True

    def __post_init__(self) -> None:
        """Check the settings."""
        checks.settle(self, label_smoothing=checks.fraction)

    def __call__(self, outputs: Array, labels: Array, grad: bool = True) -> tuple[Array, Array]:
        """Return the mean loss of logits (N, C) with labels (N,), and its gradient."""
        return kernels.softmax_cross_entropy(
            outputs, labels, label_smoothing=self.label_smoothing, grad=grad
        )


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy of probabilities; the model ends with `Softmax`: the textbook pair."""

    recordable = True

    def __call__(self, outputs: Array, labels: Array, grad: bool = True) -> tuple[Array, Array]:
        """Return the mean loss of probabilities (N, C) with labels (N,), and its gradient."""
        loss, gradient = kernels.cross_entropy(outputs, labels)
        return loss, gradient if grad else None
