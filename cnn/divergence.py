"""The error raised for a loss that is NaN or infinite, and the search for its origin."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from kernels.lowlevel import Array

from .network import Network


class TrainingDivergedError(RuntimeError):
    """The loss of a training is NaN or infinite, or its weights are.

    Attributes
    ----------
    step : int
        The step of that loss, or the last one before, counted from 1.
    origin : str
        Where the first value that is not finite is: "the output of layer 3 (Dense)", "the
        validation", or the name of a parameter.
    checkpoint : Path or None
        The last checkpoint, if the training has a `Run` that wrote one.
    """

    def __init__(self, loss: float, step: int, origin: str, checkpoint: Path | None) -> None:
        super().__init__(loss, step, origin, checkpoint)  # of which pickle makes it again
        self.step, self.origin, self.checkpoint = step, origin, checkpoint

    def __str__(self) -> str:
        """Return the sentence for the user."""
        loss, step, origin, checkpoint = self.args
        last = "there is no checkpoint" if checkpoint is None else f"last checkpoint: {checkpoint}"
        what = f"the loss is {loss} at step {step}, first in {origin}"
        if math.isfinite(loss):
            what = f"parameter {origin} is not finite after step {step}"
        return f"{what}; {last}"


#: What `origin` returns if the images and all outputs are finite.
UNKNOWN_ORIGIN = "the loss itself"


def origin(model: Network, x: Array, passes: int = 1) -> str:
    """Return where the first value that is not finite is in a forward pass on prepared inputs x.

    The pass repeats one of training, with the same random numbers: the last one, or the first of
    the last `passes`.
    """
    if not np.isfinite(x).all():
        return "the images"
    for position, layer in enumerate(model.layers):
        drawn = layer.draws
        layer.draws = max(0, drawn - passes)
        x = layer.forward(x, training=True)
        layer.draws = drawn
        if not np.isfinite(x).all():
            return f"the output of layer {position} ({type(layer).__name__})"
    return UNKNOWN_ORIGIN
