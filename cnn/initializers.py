"""Initial values of parameters: functions of a generator and a shape."""

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

    The speedrun recipe (three seeds, measured on a held-out part of the training set) ends more
    accurate with it than with a normal of variance 2 / fan-in, whose first logits are too large.
    """
    bound = 1 / math.sqrt(max(1, math.prod(shape[1:])))
    return generator.uniform(-bound, bound, shape)
