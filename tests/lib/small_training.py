"""A small network and random images, for tests of the trainer."""

import numpy as np

from cnn import SGD, BatchNorm, Conv2D, Dense, Flatten, MaxPool2D, ReLU, Sequential, Trainer
from tests.lib.support import host


def noise(count, classes=4):
    """Random images with random labels: nothing to learn but by heart."""
    random = np.random.default_rng(0)
    images = random.integers(256, size=(count, 12, 12), dtype=np.uint8)
    return images, random.integers(classes, size=count, dtype=np.uint8)


def textbook():
    return [Conv2D(6, 3), MaxPool2D(2), ReLU(), Conv2D(8, 3), Flatten(), Dense(4)]


def normalised():
    return [Conv2D(6, 3, padding="same", bias=False), BatchNorm(), ReLU(), Flatten(), Dense(4)]


def build(layers=textbook, device="cpu", **options):
    return Sequential(layers(), (12, 12, 1), device, **options)


def bits(model):
    arrays = (model.parameter_buffer, *model.state.values())
    return b"".join(host(array).tobytes() for array in arrays)


def trained_bits(data, **options):
    model = build()
    Trainer(model, SGD(0.05, momentum=0.9), **options).fit(data, epochs=2, batch_size=8)
    return bits(model)
