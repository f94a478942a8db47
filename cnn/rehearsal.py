"""Compiling the kernels of a training before it begins.

Only the Python code of a step knows which kernels it launches. So it runs once per batch size
without launching anything; then the kernels that it named are compiled in parallel.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from kernels.lowlevel import Arena, Array, Rehearsal, Shape, precision

from .data.dataset import Dataset
from .evaluation import BATCH_SIZE
from .layers import Layer
from .losses import Loss
from .network import Network
from .plan import Plan
from .recordable import recordable, unchanged
from .step import take_step
from .training import Training


def prepare(
    training: Training, plan: Plan | None, images: Array, sizes: list[int], held_out: Dataset | None
) -> None:
    """Compile the kernels of a training, unless they are cached.

    They are those of steps on batches (or shards) of given sizes, and of evaluating the images held
    out.

    Raises
    ------
    KernelError
        If a kernel cannot be compiled.
    """
    rehearsal = Rehearsal(Arena(training.model.target))
    with training.model.lock:
        for rows in sizes:
            if plan is not None:
                plan.rehearse(rows, rehearsal)
            else:
                _rehearse_step(training, images, rows, rehearsal)
        if held_out is not None:
            for rows in {min(len(held_out), BATCH_SIZE), len(held_out) % BATCH_SIZE} - {0}:
                _rehearse_evaluation(training, held_out, rows, rehearsal)
    rehearsal.compile()


def _rehearse_step(training: Training, images: Array, rows: int, rehearsal: Rehearsal) -> None:
    """Run a step layer by layer, without the parts that are not recordable."""
    network, augment, empty = training.network, training.augment, training.model.target.empty
    with unchanged(network.layers), precision(training.rounding), rehearsal:
        batch = empty((rows, *images.shape[1:]), images.dtype)
        if augment is not None and recordable(augment):
            augment(batch, seed=training.seed, offset=0)
        # NumPy or CuPy casts floating images; no kernel of this package does.
        is_uint8 = batch.dtype.kind == "u"
        shape = (rows, *network.input_shape)
        x = network.prepare(batch) if is_uint8 else empty(shape, network.dtype)
        take_step(_recordable_only(training), x, empty((rows,), np.int64), 1.0, lambda loss: None)


def _rehearse_evaluation(
    training: Training, held_out: Dataset, rows: int, rehearsal: Rehearsal
) -> None:
    model = training.model
    model.rehearse(rows, held_out.images.dtype, rehearsal)
    if recordable(training.loss):
        with rehearsal:
            outputs = model.target.empty((rows, *model.output_shape), model.dtype)
            training.loss(outputs, model.target.empty((rows,), np.int64), grad=False)


def _recordable_only(training: Training) -> Training:
    """Return a training of the same arrays, with stand-ins for the parts that are not recordable.

    Its counters are its own.
    """
    model, network = training.model, training.network
    shapes = [model.input_shape, *model.output_shapes]
    layers = [
        layer if recordable(layer) else _Blank(network, *shapes[position : position + 2])
        for position, layer in enumerate(network.layers)
    ]
    other = copy.copy(training)
    other.network = network.with_layers(layers)
    if not recordable(training.loss):
        other.loss = _blank_loss(model)
    idle: Any = _Idle()
    other.optimizer = copy.copy(training.optimizer) if recordable(training.optimizer) else idle
    other.ema = None
    if training.ema is not None and recordable(training.ema):
        training.ema.begin(model.parameter_buffer)
        other.ema = copy.copy(training.ema)
    return other


class _Blank(Layer):
    """Stands in for a layer: returns uninitialised arrays of its shapes."""

    def __init__(self, network: Network, inputs: Shape, outputs: Shape) -> None:
        self._network, self._inputs, self._outputs = network, inputs, outputs

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return y (N, *outputs)."""
        return self._network.target.empty((len(x), *self._outputs), self._network.dtype)

    def backward(self, dy: Array) -> Array:
        """Return dx (N, *inputs)."""
        return self._network.target.empty((len(dy), *self._inputs), self._network.dtype)


def _blank_loss(network: Network) -> Loss:
    """Return a stand-in for a loss: it returns uninitialised arrays of a loss's shapes."""
    empty = network.target.empty
    return lambda outputs, labels, grad=True: (
        empty((), outputs.dtype),
        empty(outputs.shape, outputs.dtype),
    )


class _Idle:
    """An optimizer that does nothing."""

    def step(self, *arguments: Any, **options: Any) -> None:
        """Leave the parameters as they are."""
