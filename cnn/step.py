"""A step of training, layer by layer; planned steps are tested against it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kernels.lowlevel import Array, cast, floating, scale_gradient, update_loss_scale

from . import checks
from .training import Training


def next_batch(training: Training, images: Array, chosen: Array, number: int) -> Array:
    """Return the chosen images, augmented and prepared for the network.

    The number of the batch, from 0, gives the augmentation its random numbers.
    """
    batch = images[chosen]
    if training.augment is not None:
        batch = training.augment(batch, seed=training.seed, offset=number)
        batch = training.model.target.array(batch)
        if batch.shape[:1] != chosen.shape:
            raise ValueError(
                f"augment: returned shape {tuple(batch.shape)}, expected {len(chosen)} images as "
                "it got"
            )
        # `prepare` normalises uint8 images, and takes floating ones as they are.
        if floating(batch.dtype) != floating(images.dtype):
            raise TypeError(f"augment: returned {batch.dtype}, expected {images.dtype} as it got")
    return training.network.prepare(batch)


def take_step(
    training: Training, x: Array, labels: Array, factor: float, check: Callable[[Array], None]
) -> Array:
    """Train on a batch and return its loss, an array ().

    Parameters
    ----------
    training : Training
        Its model, optimizer and average change in place; the caller updates its counters.
    x : array (N, ...)
        What `prepare` of the training's network returns.
    labels : array (N,)
        Of int64.
    factor : float
        Factor of the learning rate.
    check : callable
        Called with the loss, before the weights change.
    """
    loss = find_gradients(training, x, labels, check)
    update(training, factor)
    return loss


def find_gradients(
    training: Training, x: Array, labels: Array, check: Callable[[Array], None] = lambda loss: None
) -> Array:
    """Fill the gradients of a batch, and return its loss; see `take_step`."""
    model, network = training.model, training.network
    outputs = cast(network.forward(x, training=True), model.dtype)
    loss, dy = _checked(training.loss(outputs, labels), outputs)
    check(loss)
    scale_gradient(dy, training.loss_scale)
    network.backward(cast(dy, network.dtype))
    return loss


def _checked(found: Any, outputs: Array) -> tuple[Array, Array]:
    """Return what a loss returned, or raise ValueError if it is no loss with its gradient."""
    parts = found if isinstance(found, (tuple, list)) else (found,)
    shapes = [getattr(part, "shape", checks.shown(part)) for part in parts]
    if shapes != [(), outputs.shape]:
        got = ", ".join(map(str, shapes))
        raise ValueError(
            f"loss: returned {got}, expected arrays of shapes () and {outputs.shape}: the mean "
            "loss and its gradient by the outputs"
        )
    loss, dy = parts
    return loss, dy


def update(training: Training, factor: float) -> None:
    """Change the weights and their average by the gradients; see `take_step`."""
    model, network = training.model, training.network
    unscale = update_loss_scale(network.gradient_buffer, training.loss_scale)
    # A user's optimizer may lack these parameters: they are passed only if needed.
    options = {} if unscale is None else {"unscale": unscale}
    if training.narrow is not None:
        options["copy"] = network.parameter_buffer
    training.optimizer.step(model.parameter_buffer, network.gradient_buffer, factor, **options)
    if training.ema is not None:
        training.ema.update(model.parameter_buffer)
