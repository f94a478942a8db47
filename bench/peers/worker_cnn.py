"""Ours: trains and runs a described network with `cnn`, as its users do."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

import cnn
from bench.networks.definitions import restore
from bench.peers.worker import serve

trainer: Any = None


def load(described: dict[str, Any]) -> None:
    """Make a trainer with the initial parameters."""
    global trainer
    kind, settings = described["optimizer"]
    augment, ema, factors = (described[name] for name in ("augment", "ema", "factors"))
    trainer = cnn.Trainer(
        restore(described, device),
        getattr(cnn, kind)(**settings),
        cnn.SoftmaxCrossEntropy(described["label_smoothing"]),
        (lambda step, _: factors[step]) if factors else None,
        cnn.Augment(**augment) if augment else None,
        seed=described["seed"],
        ema=None if ema is None else cnn.EMA(ema),
    )


def losses(batch_size: int, steps: int) -> list[float]:
    """Return the losses of steps on the first images, the same batch each time."""
    data = images[:batch_size], labels[:batch_size]
    history = trainer.fit(data, epochs=steps, batch_size=batch_size)
    return [record["train_loss"] for record in history[-steps:]]


def train(batch_size: int, count: int) -> float:
    """Train on `count` images and return the seconds of an epoch.

    It is the second of two: in the first, `fit` records the step.
    """
    history = trainer.fit((images[:count], labels[:count]), epochs=2, batch_size=batch_size)
    return history[-1]["seconds"]


def accuracy(epochs: int, batch_size: int) -> list[float]:
    """Train on all images and return the seconds of the steps and the test accuracy."""
    trainer.fit((images, labels), epochs=epochs, batch_size=batch_size)
    return [trainer.train_seconds, trainer.evaluate((test_images, test_labels))["accuracy"]]


def outputs(batch_size: int) -> list[list[float]]:
    """Return the logits of the first images."""
    return trainer.model.predict(_inputs(batch_size)).tolist()


def infer(batch_size: int, calls: int) -> float:
    """Return the mean seconds of some predictions."""
    x, model = _inputs(batch_size), trainer.model
    start = time.perf_counter()
    for _ in range(calls):
        model.predict(x, batch_size)
    return (time.perf_counter() - start) / calls


def _inputs(batch_size: int) -> Any:
    return trainer.model.target.array(images[:batch_size, ..., None] / np.float32(255))


if __name__ == "__main__":
    device, folder = sys.argv[1:]
    stored = np.load(f"{folder}/data.npz")
    images, labels, test_images, test_labels = (stored[name] for name in stored.files)
    serve(load, losses, train, accuracy, outputs, infer)
