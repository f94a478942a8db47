"""The dense layer."""

from __future__ import annotations

from typing import Any

from ..registration import KERNELS, operator


def _fake_dense(input: Any, weight: Any, bias: Any) -> Any:
    return input.new_empty((input.shape[0], weight.shape[0]))


def _run_dense_backward(dy: Any, x: Any, w: Any, need_dx: bool) -> Any:
    """Return the gradients of x, w and the bias; that of x is None where it is not needed."""
    return KERNELS.dense_backward(dy, x, w, need_dx=need_dx)


def _fake_dense_backward(grad: Any, input: Any, weight: Any, need_dx: bool) -> tuple[Any, ...]:
    dx = input.new_empty(input.shape if need_dx else 0)
    return dx, weight.new_empty(weight.shape), weight.new_empty(weight.shape[:1])


def _save_dense(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:2])


def _dense_gradients(ctx: Any, grad: Any) -> tuple[Any, ...]:
    need_dx, _, need_db = ctx.needs_input_grad
    dx, dw, db = dense_backward(grad, *ctx.saved_tensors, need_dx)
    return dx if need_dx else None, dw, db if need_db else None


dense = operator(
    "dense",
    "(Tensor input, Tensor weight, Tensor? bias) -> Tensor",
    KERNELS.dense,
    _fake_dense,
    _dense_gradients,
    _save_dense,
)
dense_backward = operator(
    "dense_backward",
    "(Tensor grad, Tensor input, Tensor weight, bool need_dx) -> (Tensor, Tensor, Tensor)",
    _run_dense_backward,
    _fake_dense_backward,
)
