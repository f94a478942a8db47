"""Compiling the kernels of a training before it begins.

Only a step's Python code knows which kernels it launches. So that code runs once, without its
launches, for every size of batch; then the kernels are compiled, several at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kernels import gemm, loss_scale
from kernels.runtime import Array
from kernels.runtime.memory import Arena
from kernels.runtime.recording import Rehearsal

from .data.dataset import Dataset
from .evaluation import BATCH_SIZE
from .layers import recordable, restore
from .plan import Plan

if TYPE_CHECKING:
    from .trainer import Trainer


def prepare(
    trainer: Trainer, plan: Plan | None, images: Array, batch_size: int, held_out: Dataset | None
) -> None:
    """Compile what training on images and evaluating held-out ones launches, where not cached.

    Raises
    ------
    KernelError
        If a kernel cannot be compiled.
    """
    rehearsal = Rehearsal(Arena(trainer.model.target))
    with trainer.model.lock:
        for rows in _sizes(len(images), batch_size):
            if plan is not None:
                plan.rehearse(rows, rehearsal)
            else:
                _rehearse_step(trainer, images, rows, rehearsal)
        if held_out is not None:
            for rows in _sizes(len(held_out), BATCH_SIZE):
                _rehearse_evaluation(trainer, held_out, rows, rehearsal)
    rehearsal.compile()


def _sizes(images: int, batch_size: int) -> list[int]:
    """Return the sizes of batches: of whole ones and of the last one."""
    return sorted({min(images, batch_size), images % batch_size} - {0}, reverse=True)


def _rehearse_step(trainer: Trainer, images: Array, rows: int, rehearsal: Rehearsal) -> None:
    """Take a step layer by layer, without the parts that may do more than launch kernels."""
    model, empty = trainer.model, trainer.model.target.empty
    before = [dict(vars(layer)) for layer in model.layers]
    shapes = [(rows, *shape) for shape in (model.input_shape, *model.output_shapes)]
    with gemm.precision(trainer.precision), rehearsal:
        batch = empty((rows, *images.shape[1:]), images.dtype)
        if trainer.augment is not None and recordable(trainer.augment):
            trainer.augment(batch, seed=trainer.seed, offset=0)
        x = empty(shapes[0], model.dtype)
        if batch.dtype.kind == "u":
            x = model.prepare(batch)
        for layer, shape in zip(model.layers, shapes[1:], strict=True):
            x = layer.forward(x, True) if recordable(layer) else empty(shape, model.dtype)
        dy = empty(x.shape, x.dtype)
        if recordable(trainer.loss):
            trainer.loss(x, empty((rows,), np.int64))
        loss_scale.scale_gradient(dy, trainer.loss_scale)
        trained = [index for index, layer in enumerate(model.layers) if layer.parameters]
        for index in reversed(range(min(trained, default=len(model.layers)), len(model.layers))):
            layer, shape = model.layers[index], shapes[index]
            if recordable(layer):
                layer.backward(dy)
            dy = empty(shape, model.dtype)
        unscale = loss_scale.update(model.gradient_buffer, trainer.loss_scale)
        optimizer, buffers = trainer.optimizer, (model.parameter_buffer, model.gradient_buffer)
        if recordable(optimizer):
            optimizer.begin(model.parameter_buffer)
            optimizer.update(*buffers, optimizer.scalars(1, 1.0), unscale)
        if trainer.ema is not None and recordable(trainer.ema):
            trainer.ema.begin(model.parameter_buffer)
            trainer.ema.move(model.parameter_buffer, trainer.ema.scalars(1))
    for layer, attributes in zip(model.layers, before, strict=True):
        restore(layer, attributes)


def _rehearse_evaluation(
    trainer: Trainer, held_out: Dataset, rows: int, rehearsal: Rehearsal
) -> None:
    model = trainer.model
    model.rehearse(rows, held_out.images.dtype, rehearsal)
    if recordable(trainer.loss):
        with rehearsal:
            outputs = model.target.empty((rows, *model.output_shape), model.dtype)
            trainer.loss(outputs, model.target.empty((rows,), np.int64), grad=False)
