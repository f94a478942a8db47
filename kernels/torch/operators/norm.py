"""Batch normalisation, and layer normalisation of rows (N, C)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ...common.reduce import accumulator
from ..registration import KERNELS, empty, formatted, operator

# --- batch normalisation


def _run_batch_norm(
    x: Any, gamma: Any, beta: Any, running_mean: Any, running_var: Any, *options: Any
) -> Any:
    """Return y, the statistics that it was made with, and the running ones afterwards.

    They are returned, not moved in place: PyTorch takes no gradients of operators that mutate.
    """
    training, momentum, eps = options
    running = [
        statistic.copy() if isinstance(statistic, np.ndarray) else statistic.clone()
        for statistic in (running_mean, running_var)
    ]
    settings = {"training": training, "momentum": momentum, "eps": eps}
    y, saved = KERNELS.batch_norm(x, gamma, beta, *running, **settings)
    return y, saved.mean, saved.inv_std, *running


def _fake_batch_norm(
    input: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, *_: Any
) -> Any:
    saved = (weight.new_empty(weight.shape, dtype=_wide(input)) for _ in range(2))
    running = (torch.empty_like(statistic) for statistic in (running_mean, running_var))
    return empty(input, input.shape), *saved, *running


def _run_batch_norm_backward(
    dy: Any, x: Any, gamma: Any, mean: Any, inv_std: Any, training: bool
) -> Any:
    saved = KERNELS.BatchNormSaved(mean, inv_std, training)
    return KERNELS.batch_norm_backward(dy, x, gamma, saved)


def _fake_batch_norm_backward(grad: Any, input: Any, weight: Any, *_: Any) -> Any:
    return empty(input, input.shape), torch.empty_like(weight), torch.empty_like(weight)


def _save_batch_norm(ctx: Any, inputs: Any, output: Any) -> None:
    input, weight, *_, ctx.training, _, _ = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(input, weight, *output[1:3])


def _batch_norm_gradients(ctx: Any, grad: Any, *_: Any) -> tuple[Any, ...]:
    input, *saved = ctx.saved_tensors  # once: a checkpoint makes them anew at each look
    dx, *others = batch_norm_backward(grad, input, *saved, ctx.training)
    return formatted(dx, input), *others, None, None, None, None, None


batch_norm = operator(
    "batch_norm",
    "(Tensor input, Tensor weight, Tensor bias, Tensor running_mean, Tensor running_var,"
    " bool training, float momentum, float eps) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _run_batch_norm,
    _fake_batch_norm,
    _batch_norm_gradients,
    _save_batch_norm,
)
batch_norm_backward = operator(
    "batch_norm_backward",
    "(Tensor grad, Tensor input, Tensor weight, Tensor mean, Tensor inv_std, bool training)"
    " -> (Tensor, Tensor, Tensor)",
    _run_batch_norm_backward,
    _fake_batch_norm_backward,
)


# --- layer normalisation


def _run_layer_norm(x: Any, gamma: Any, beta: Any, eps: float) -> Any:
    """Return y and the statistics that it was made with."""
    y, saved = KERNELS.layer_norm(x, gamma, beta, eps=eps)
    return y, *saved


def _fake_layer_norm(input: Any, *_: Any) -> Any:
    saved = (input.new_empty(input.shape[:1], dtype=_wide(input)) for _ in range(2))
    return input.new_empty(input.shape), *saved


def _run_layer_norm_backward(dy: Any, x: Any, gamma: Any, mean: Any, inv_std: Any) -> Any:
    return KERNELS.layer_norm_backward(dy, x, gamma, KERNELS.LayerNormSaved(mean, inv_std))


def _fake_layer_norm_backward(grad: Any, input: Any, weight: Any, *_: Any) -> Any:
    return input.new_empty(input.shape), torch.empty_like(weight), torch.empty_like(weight)


def _save_layer_norm(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*inputs[:2], *output[1:])


def _layer_norm_gradients(ctx: Any, grad: Any, *_: Any) -> tuple[Any, ...]:
    return *layer_norm_backward(grad, *ctx.saved_tensors), None


layer_norm = operator(
    "layer_norm",
    "(Tensor input, Tensor weight, Tensor bias, float eps) -> (Tensor, Tensor, Tensor)",
    _run_layer_norm,
    _fake_layer_norm,
    _layer_norm_gradients,
    _save_layer_norm,
)
layer_norm_backward = operator(
    "layer_norm_backward",
    "(Tensor grad, Tensor input, Tensor weight, Tensor mean, Tensor inv_std)"
    " -> (Tensor, Tensor, Tensor)",
    _run_layer_norm_backward,
    _fake_layer_norm_backward,
)


def _wide(tensor: Any) -> Any:
    """Return the type that sums of a tensor's values are taken in."""
    return getattr(torch, accumulator(str(tensor.dtype).removeprefix("torch.")))
