"""The dense layer."""

from __future__ import annotations

from typing import Any

from ..registration import KERNELS, need_options, operator, wanted_or_empty


def _fake_dense(input: Any, weight: Any, bias: Any) -> Any:
    return input.new_empty((input.shape[0], weight.shape[0]))


def _run_dense_backward(dy: Any, x: Any, w: Any, wanted: Any) -> Any:
    """Return the gradients of x, w and the bias, None for those that are not needed."""
    return KERNELS.dense_backward(dy, x, w, **need_options(wanted))


def _fake_dense_backward(grad: Any, input: Any, weight: Any, wanted: Any) -> tuple[Any, ...]:
    dx, dw = input.new_empty(input.shape), weight.new_empty(weight.shape)
    return wanted_or_empty(wanted, dx, dw, weight.new_empty(weight.shape[:1]))


def _save_dense(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:2])


def _dense_gradients(ctx: Any, grad: Any) -> tuple[Any, ...]:
    wanted = ctx.needs_input_grad
    gradients = dense_backward(grad, *ctx.saved_tensors, wanted)
    pairs = zip(wanted, gradients, strict=True)
    return tuple(gradient if is_wanted else None for is_wanted, gradient in pairs)


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
    "(Tensor grad, Tensor input, Tensor weight, bool[] wanted) -> (Tensor, Tensor, Tensor)",
    _run_dense_backward,
    _fake_dense_backward,
)
