"""What parameters start as: functions of a generator and a shape."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kernels.lowlevel import Shape

Initializer = Callable[[np.random.Generator, Shape], np.ndarray[Any, Any]]


def zeros(_: np.random.Generator, shape: Shape) -> np.ndarray[Any, Any]:
    """Start at 0."""
    return np.zeros(shape)


def ones(_: np.random.Generator, shape: Shape) -> np.ndarray[Any, Any]:
    """Start at 1."""
    return np.ones(shape)


def fan_in_uniform(generator: np.random.Generator, shape: Shape) -> np.ndarray[Any, Any]:
    """Start uniform in +-1 / sqrt(fan-in), as PyTorch's linear and convolution layers do.

    Measured over three seeds of the speedrun recipe, on a part of the training set kept apart, it
    ends more accurate than normal with variance 2 / fan-in, whose first logits are too large.
    """
    bound = 1 / math.sqrt(max(1, math.prod(shape[1:])))
    return generator.uniform(-bound, bound, shape)
