"""Layers: each one holds its settings and arrays, and calls `kernels`.

A layer of your own is one class: declare its parameters in `build`, write `forward` and `backward`.
The layers here check their settings when they are made.
"""

from .activations import ReLU, Softmax
from .batchnorm import BatchNorm
from .conv2d import Conv2D
from .dense import Dense
from .dropout import Dropout
from .flatten import Flatten
from .layer import Layer
from .layer_norm import LayerNorm
from .pool import AvgPool2D, GlobalAvgPool2D, MaxPool2D

__all__ = [
    "AvgPool2D",
    "BatchNorm",
    "Conv2D",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2D",
    "Layer",
    "LayerNorm",
    "MaxPool2D",
    "ReLU",
    "Softmax",
]
