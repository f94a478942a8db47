"""What the demo answers to a drawing."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from kernels.lowlevel import Arena, Array, Rehearsal

from ..explanation import explain
from ..host import to_host
from ..model import Sequential
from ..picture import centre, image_size, probabilities
from .server import Classifier


def classifier(model: Sequential) -> Classifier:
    """Return a function that classifies a canvas, once the kernels for that are compiled.

    Several threads may call it at once. It returns what the page shows: the centred digit, the
    probability of each class, the gradient of the most probable one's score by the digit's pixels
    (whole numbers up to 127, the largest), and of each convolution the feature maps, their shape
    (F, H, W) and base64 of a byte per value.

    Raises
    ------
    ValueError
        If the model does not take grey images or does not tell ten digits apart.
    KernelError
        If a kernel cannot be compiled.
    """
    size = image_size(model)
    if model.output_shape != (10,):
        raise ValueError(f"model: gives outputs of shape {model.output_shape}, expected (10,)")
    rehearsal = Rehearsal(Arena(model.target))
    model.rehearse(1, np.dtype(np.uint8), rehearsal)
    with rehearsal:
        explain(model, np.zeros((1, *size), np.uint8), [0])
    rehearsal.compile()

    def classify(canvas: Any) -> dict[str, Any]:
        digit = centre(canvas.astype(np.float32) / 255, size)
        found = probabilities(model, digit[None])[0]
        feature_maps, gradient = explain(model, digit[None], [found.argmax()])
        return {
            "digit": digit.tolist(),
            "probabilities": found.tolist(),
            "gradient": _signed(gradient.reshape(size)),
            "layers": [_levels(maps[0]) for maps in feature_maps],
        }

    return classify


def _signed(gradient: Array) -> list[list[int]]:
    """Return a gradient (H, W) as whole numbers in [-127, 127]."""
    values = to_host(gradient).astype(np.float32)
    largest = np.abs(values).max() or 1
    rows: list[list[int]] = np.rint(127 * values / largest).astype(int).tolist()
    return rows


def _levels(maps: Array) -> dict[str, Any]:
    """Return feature maps (H, W, F) as bytes, all on one scale, from their least value or 0."""
    values = to_host(maps).astype(np.float32).transpose(2, 0, 1)
    least = min(0.0, values.min())
    span = (values.max() - least) or 1
    levels = np.rint(255 * (values - least) / span).astype(np.uint8)
    return {"shape": levels.shape, "maps": base64.b64encode(levels.tobytes()).decode()}
