"""Predicting: forward passes recorded once per batch size, over fused layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kernels
from kernels import conv2d_pool, winograd
from kernels.fold import fold_norm
from kernels.runtime import Array
from kernels.runtime.checks import floating
from kernels.runtime.memory import Arena
from kernels.runtime.recording import Proof, Recording, Rehearsal

from .fused import pooling_of
from .layers import BatchNorm, Conv2D, Dense, Dropout, Layer, ReLU, arrays_of, recordable, unchanged
from .network import Network

_MOST_RECORDINGS = 4  # batch sizes remembered

Step = Callable[[Array], Array]


class Inference:
    """The forward passes of a model.

    A convolution takes up the batch-norm, ReLU and max-pool after it, a dense layer its ReLU. The
    launches of a pass are recorded and replayed for every batch of the same size; they read the
    model's own parameters, whatever these have become. What is made of the weights alone stays
    from pass to pass: each compares them with what it was made of.

    Parameters
    ----------
    model : Network
        Built.
    """

    def __init__(self, model: Network) -> None:
        self._model = model
        self._steps = _steps(model)
        self._recordable = all(map(recordable, model.layers))
        self._recordings: dict[Any, tuple[Recording, Array, Array]] = {}

    def __call__(self, images: Array, outputs: Array) -> None:
        """Write the outputs (N, ...) for images (N, ...), which `Sequential.prepare` takes."""
        # The lock is for the recordings' arrays, and what layers keep of a pass.
        with self._model.lock, self._model.target.on():
            if not self._recordable:
                outputs[...] = self._forward(images)
                return
            dtype = self._dtype(images.dtype)
            # The statistics are part of a launch, and so of its key.
            statistics = self._model.pixel_mean, self._model.pixel_std
            key = (images.shape, dtype, *statistics)
            new = key not in self._recordings
            if new:
                while len(self._recordings) >= _MOST_RECORDINGS:
                    del self._recordings[next(iter(self._recordings))]
                self._recordings[key] = self._record(images, dtype)
            recording, source, result = self._recordings[key]
            with self._model.target.on(recording.arena.stream):
                if not new:  # else the pass has been taken
                    source[...] = images
                    recording.replay()
                outputs[...] = result

    def rehearse(self, rows: int, dtype: Any, rehearsal: Rehearsal) -> None:
        """Pass images (rows, ...) of a dtype forward without launches, if passes are recorded."""
        model = self._model
        if not self._recordable:
            return
        with unchanged(model.layers), rehearsal:
            images = model.target.empty((rows, *model.input_shape), self._dtype(dtype))
            self._forward(images)

    def _dtype(self, dtype: Any) -> Any:
        """Return the dtype of images in a recording: a cast of floating ones is no launch."""
        return self._model.dtype if floating(dtype) else dtype

    def _record(self, images: Array, dtype: Any) -> tuple[Recording, Array, Array]:
        target, layers = self._model.target, self._model.layers
        source = target.fresh(images.shape, dtype)
        source[...] = images
        arena = Arena(target)
        rehearsal = Rehearsal(arena)
        self.rehearse(len(images), dtype, rehearsal)
        rehearsal.compile()
        held = arrays_of([self._model, *layers], type(source))
        proof, recording = Proof(held), Recording(arena, [source, *held])
        with recording:
            result = self._forward(source)
        proof.check([recording], [result])
        return recording, source, result

    def _forward(self, images: Array) -> Array:
        x = self._model.prepare(images)
        for step in self._steps:
            x = step(x)
        return x


def _steps(model: Network) -> list[Step]:
    """Return functions that together do what a model's layers do."""
    steps: list[Step] = []
    left = [layer for layer in model.layers if type(layer) is not Dropout]
    while left:
        layer = left.pop(0)
        if type(layer) is Conv2D:
            steps.append(_convolution(model, layer, left))
        elif type(layer) is Dense and left and type(left[0]) is ReLU:
            left.pop(0)
            steps.append(_dense(layer))
        else:
            steps.append(layer.forward)
    return steps


def _dense(layer: Dense) -> Step:
    parameters = layer.parameters
    return lambda x: kernels.dense(x, parameters["weight"], parameters.get("bias"), relu=True)


def _convolution(model: Network, conv: Conv2D, left: list[Layer]) -> Step:
    """Return a convolution with what it takes up, which it removes from the layers left."""
    following = left[0] if left else None
    norm = following if type(following) is BatchNorm else None
    del left[: int(norm is not None)]
    pool = pooling_of(model, conv, left[:2])
    relu = pool is None and bool(left) and type(left[0]) is ReLU
    del left[: 2 if pool is not None else int(relu)]

    def convolve(x: Array, weight: Array, bias: Array | None) -> Array:
        if pool is not None:
            return conv2d_pool.forward(x, weight, bias, conv.window, pool)[0]
        return kernels.conv2d(x, weight, bias, relu=relu, **conv.options)

    def step(x: Array) -> Array:
        weight, bias = conv.parameters["weight"], conv.parameters.get("bias")
        if norm is not None:
            gamma, beta = norm.parameters["gamma"], norm.parameters["beta"]
            mean, variance = norm.state["running_mean"], norm.state["running_var"]
            folded = fold_norm(weight, bias, gamma, beta, mean, variance, norm.eps)
        elif _transforms(model, conv):
            folded = fold_norm(weight, bias)
        else:
            return convolve(x, weight, bias)
        *arrays, changed = folded
        with winograd.keeping(changed):
            return convolve(x, *arrays)

    return step


def _transforms(model: Network, conv: Conv2D) -> bool:
    """Whether a convolution transforms its filters, at least for many images."""
    F, _, _, C = conv.parameters["weight"].shape
    sizes = (2**20, conv.window, C * conv.groups, F, conv.groups)
    return winograd.suits(model.target, model.dtype, *sizes)
