"""A step of training, layer by layer; planned steps are tested against it."""

from __future__ import annotations

from collections.abc import Callable

from kernels.lowlevel import Array, scale_gradient, update_loss_scale

from .training import Training


def take_step(
    training: Training, x: Array, labels: Array, factor: float, check: Callable[[Array], None]
) -> Array:
    """Train on a batch and return its loss, an array ().

    Parameters
    ----------
    training : Training
        Its model, optimizer and average change in place; the caller updates its counters.
    x : array (N, ...)
        What `Network.prepare` returns.
    labels : array (N,)
        Of int64.
    factor : float
        Factor of the learning rate.
    check : callable
        Called with the loss, before the weights change.
    """
    model = training.model
    loss, dy = training.loss(model.forward(x, training=True), labels)
    check(loss)
    scale_gradient(dy, training.loss_scale)
    model.backward(dy)
    unscale = update_loss_scale(model.gradient_buffer, training.loss_scale)
    scaled = () if unscale is None else (unscale,)  # users' optimizers may lack the parameter
    training.optimizer.step(model.parameter_buffer, model.gradient_buffer, factor, *scaled)
    if training.ema is not None:
        training.ema.update(model.parameter_buffer)
    return loss
