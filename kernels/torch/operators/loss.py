"""Cross-entropy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..registration import KERNELS, operator


def _run_cross_entropy(
    x: Any, labels: Any, weight: Any, ignore_index: int, reduction: str, label_smoothing: float
) -> Any:
    return KERNELS.softmax_cross_entropy(
        x,
        labels,
        weight=weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction=reduction,
    )


def _fake_cross_entropy(
    input: Any, target: Any, weight: Any, ignore_index: int, reduction: str, label_smoothing: float
) -> Any:
    loss = input.new_empty(input.shape[:1] if reduction == "none" else ())
    return loss, input.new_empty(input.shape)


def _save_cross_entropy(ctx: Any, inputs: Any, output: Any) -> None:
    # dx is differentiable to PyTorch: differentiating twice then reaches an operator that refuses.
    ctx.save_for_backward(output[1])


def _cross_entropy_gradients(ctx: Any, grad: Any, _: Any) -> tuple[Any, ...]:
    dx = softmax_cross_entropy_backward(grad, *ctx.saved_tensors)
    return dx, None, None, None, None, None


def _run_backward(grad: Any, dx: Any) -> Any:
    grad = grad.reshape(-1, 1)  # one for all rows, or one for each
    if isinstance(grad, np.ndarray) and np.isfinite(grad).all():
        return grad * dx
    # A row without a gradient, such as one that is left out, has none times infinity either.
    with np.errstate(invalid="ignore"):
        return np.where((dx != 0).any(axis=1, keepdims=True), grad, grad.dtype.type(0)) * dx


softmax_cross_entropy = operator(
    "softmax_cross_entropy",
    "(Tensor input, Tensor target, Tensor? weight, int ignore_index, str reduction,"
    " float label_smoothing) -> (Tensor, Tensor)",
    _run_cross_entropy,
    _fake_cross_entropy,
    _cross_entropy_gradients,
    _save_cross_entropy,
)
softmax_cross_entropy_backward = operator(
    "softmax_cross_entropy_backward",
    "(Tensor grad, Tensor dx) -> Tensor",
    _run_backward,
    lambda grad, dx: torch.empty_like(dx),
)
