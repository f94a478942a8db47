"""Rows limited by memory: functions that do little with each element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import kernels
from bench.kernels.contenders import (
    Arrays,
    Contender,
    Work,
    contenders,
    host,
    judged,
    layouts,
    read,
    size_of,
    torch,
)
from bench.peers import numpy_calls

# Elementwise, augmentation, optimizers


def normalize(arrays: Arrays, *, N: int, H: int, W: int) -> Work:
    images = arrays.pixels(N, H, W, 1)
    found = contenders(
        arrays,
        Contender(lambda: kernels.normalize(images, 33.0, 78.0), read),
        lambda: numpy_calls.normalize(images, 33.0, 78.0),
        torch("normalize", images, 33.0, 78.0),
    )
    return Work(5 * images.size, [(host(images) - 33.0) / 78.0], found)


def affine_warp(arrays: Arrays, *, N: int, H: int, W: int) -> Work:
    """What `augment` does after drawing its maps."""
    images = arrays.normal(N, H, W, 1)
    matrix = arrays.target.array(
        np.eye(2, 3, dtype=np.float32) + 0.1 * host(arrays.normal(N, 2, 3))
    )
    found = contenders(
        arrays,
        Contender(lambda: kernels.affine_warp(images, matrix), read),
        lambda: numpy_calls.affine_warp(images, matrix),
        layouts("affine_warp", images, matrix),
    )
    expected = judged(numpy_calls.affine_warp, images, matrix)
    # Three libraries compute positions of more than a hundred pixels in float32.
    return Work(2 * size_of(images) + size_of(matrix), [expected], found, rtol=2e-3)


def sgd(arrays: Arrays, *, count: int) -> Work:
    """Nesterov's momentum: reads param, grad and velocity, writes param and velocity."""
    settings = {"lr": 1e-3, "momentum": 0.9}
    param, grad, velocity = arrays.normal(count), arrays.normal(count), arrays.normal(count) * 0
    right = judged(numpy_calls.sgd_step, param, grad, velocity, **settings)
    mine, theirs = ([param.copy(), velocity.copy()] for _ in range(2))
    found = contenders(
        arrays,
        updating(
            mine,
            lambda: kernels.sgd_step(mine[0], grad, mine[1], nesterov=True, **settings),
        ),
        updating(theirs, lambda: numpy_calls.sgd_step(theirs[0], grad, theirs[1], **settings)),
        torch("optimizer", "SGD", param, grad, nesterov=True, **settings),
    )
    return Work(5 * size_of(param), [right], found)


def adam(arrays: Arrays, *, count: int) -> Work:
    """Reads param, grad and both moments, writes all except grad."""
    param, grad = arrays.normal(count), arrays.normal(count)
    right = judged(numpy_calls.adam_step, param, grad, 0 * param, 0 * param, lr=1e-3)
    mine, theirs = ([param.copy(), 0 * param, 0 * param] for _ in range(2))
    found = contenders(
        arrays,
        updating(mine, lambda: kernels.adam_step(mine[0], grad, *mine[1:], step=1, lr=1e-3)),
        updating(theirs, lambda: numpy_calls.adam_step(theirs[0], grad, *theirs[1:], lr=1e-3)),
        torch("optimizer", "Adam", param, grad, lr=1e-3),
    )
    return Work(7 * size_of(param), [right], found)


def updating(state: list[Any], step: Callable[[], Any]) -> Contender:
    """Return an update in place, whose result is the updated parameter."""
    return Contender(step, lambda _: [host(state[0]).copy()])
