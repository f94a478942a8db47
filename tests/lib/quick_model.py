"""A small network, trained on a few digits: enough to classify drawn ones."""

import functools
import os
from pathlib import Path

import numpy as np

from cnn import SGD, Conv2D, Dataset, Dense, Flatten, MaxPool2D, ReLU, Sequential, Trainer, load
from cnn.data.synthetic import synthetic_digits
from cnn.picture import centre

MNIST = Path(os.environ.get("MNIST_DIR") or Path(__file__).parents[3] / "shared" / "data" / "mnist")


@functools.cache
def digits():
    """Training and test set: MNIST where it is, else synthetic digits placed as MNIST's are."""
    if MNIST.is_dir():
        return load("mnist", MNIST)
    return tuple(
        Dataset(np.array([centre(image / np.float32(255)) for image in drawn.images]), drawn.labels)
        for drawn in synthetic_digits(8000, 1000)
    )


@functools.cache
def quick_model():
    layers = [Conv2D(16, 5), MaxPool2D(2), ReLU(), Flatten(), Dense(10)]
    model = Sequential(layers, (28, 28, 1), device="cpu")
    train = digits()[0]
    few = train.images[:8000], train.labels[:8000]
    Trainer(model, SGD(0.1, momentum=0.9)).fit(few, epochs=2, batch_size=64)
    return model
