"""Several models as one: the mean of their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import kernels
from kernels.lowlevel import Array, Target

from . import checks
from .model import Sequential


class Ensemble:
    """Models that predict together: the probability of a class is the mean of theirs.

    Parameters
    ----------
    models : sequence of Sequential
        At least one, on one device, for the same images and classes. Each normalises images by its
        own pixel statistics.

    Raises
    ------
    TypeError, ValueError
        If they do not fit together.
    """

    def __init__(self, models: Sequence[Sequential]) -> None:
        self.models: tuple[Sequential, ...] = tuple(
            checks.instance(f"models[{number}]", model, Sequential)
            for number, model in enumerate(checks.sequence("models", models, "of models"))
        )
        if not self.models:
            raise ValueError("models: got none, expected at least one")
        self.output_shape = self.models[0].output_shape
        expected = _fits(self.models[0])
        for number, model in enumerate(self.models):
            if len(model.output_shape) != 1:
                raise ValueError(
                    f"models[{number}]: gives outputs of shape {model.output_shape}, expected "
                    "(classes,)"
                )
            if _fits(model) != expected:
                raise ValueError(
                    f"models[{number}]: is {_fits(model)}, expected {expected} as models[0]"
                )

    @property
    def target(self) -> Target:
        """The device of the models, which a copy takes from its own."""
        return self.models[0].target

    def predict(self, x: Any, batch_size: int = 1024) -> Array:
        """Return the probabilities (N, classes), float64, for images x (N, ...), on the device.

        Raises
        ------
        TypeError, ValueError
            As of `Sequential.predict`.
        """
        of_each = (self._probabilities(model, x, batch_size) for model in self.models)
        return sum(of_each, start=next(of_each)) / len(self.models)

    @staticmethod
    def _probabilities(model: Sequential, x: Any, batch_size: int) -> Array:
        outputs = model.predict(x, batch_size)
        if not model.ends_with_softmax:
            outputs = kernels.softmax(outputs)
        return outputs.astype(np.float64)


def _fits(model: Sequential) -> str:
    images, classes = model.input_shape, model.output_shape
    return f"for inputs of shape {images} and outputs {classes} on {model.target}"
