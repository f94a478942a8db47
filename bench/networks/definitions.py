"""The networks of the training and inference suites, and a description that peers can read."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import cnn
from cnn import (
    SGD,
    BatchNorm,
    Conv2D,
    Dense,
    GlobalAvgPool2D,
    MaxPool2D,
    OneCycle,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
)
from cnn.layers import Layer
from cnn.recipes import RECIPES, Recipe

INPUT_SHAPE = (28, 28, 1)


def _batch_norm_layers() -> list[Layer]:
    """3 x 3 "same" convolutions of 16 to 96 channels, batch-norm, pooling, global average pool."""

    def block(filters: int) -> list[Layer]:
        return [Conv2D(filters, 3, padding="same", bias=False), BatchNorm(), ReLU()]

    layers = [*block(16), *block(32), MaxPool2D(2), *block(48), *block(64), MaxPool2D(2)]
    return [*layers, *block(96), GlobalAvgPool2D(), Dense(10)]


NETWORKS: dict[str, Recipe] = {
    "speedrun": RECIPES["speedrun"],
    "batch-norm": Recipe(
        _batch_norm_layers,
        lambda lr: SGD(lr, momentum=0.9, nesterov=True),
        lr=0.1,
        epochs=1,
        batch_size=256,
        loss=SoftmaxCrossEntropy(label_smoothing=0.1),
        schedule=OneCycle(),
    ),
}


def restore(described: dict[str, Any], device: str) -> Sequential:
    """Return a network from its description, with its initial parameters."""
    layers = [getattr(cnn, kind)(**settings) for kind, settings in described["layers"]]
    model = Sequential(layers, INPUT_SHAPE, device=device)
    stored = np.load(described["weights"])
    for name, array in (model.parameters | model.state).items():
        array[...] = model.target.array(stored[name])
    return model


def describe(name: str, folder: Path, seed: int = 0, steps: int | None = None) -> dict[str, Any]:
    """Write a network's initial parameters and return all that a peer must know about it.

    With a number of steps, that is the whole recipe; without, the learning rate is constant, and
    there is neither augmentation nor an average of the weights.
    """
    recipe = NETWORKS[name]
    model = Sequential(recipe.layers(), INPUT_SHAPE, device="cpu", seed=seed)
    weights = folder / f"{name}-{seed}.npz"
    np.savez(weights, **{**model.parameters, **model.state})
    optimizer = recipe.optimizer(recipe.lr)
    settings = {
        key: value for key, value in vars(optimizer).items() if key not in ("state", "steps")
    }
    return {
        "network": name,
        "layers": [[type(layer).__name__, layer.settings()] for layer in model.layers],
        "weights": str(weights),
        "optimizer": [type(optimizer).__name__, settings],
        "label_smoothing": getattr(recipe.loss, "label_smoothing", 0.0),
        "factors": [recipe.schedule(step, steps) for step in range(steps)] if steps else None,
        "augment": asdict(recipe.augment) if recipe.augment and steps else None,
        "ema": recipe.ema if steps else None,
        "seed": seed,
    }
