"""Convolution."""

from __future__ import annotations

from typing import Any

from ...common.geometry import output_count
from ..registration import KERNELS, empty, formatted, need_options, operator, wanted_or_empty

_WINDOW = "int[] stride, int[] sides, int[] dilation, int groups"


def conv2d_options(stride: Any, sides: Any, dilation: Any, groups: int) -> dict[str, Any]:
    """Return the operator's last arguments as `kernels.conv2d` takes them."""
    padding = tuple(sides[:2]), tuple(sides[2:])
    return {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


def _run_conv2d(x: Any, w: Any, b: Any, *window: Any) -> Any:
    return KERNELS.conv2d(x, w, b, **conv2d_options(*window))


def fake_conv2d(
    input: Any, weight: Any, bias: Any, stride: Any, sides: Any, dilation: Any, groups: int
) -> Any:
    """Return an empty tensor like the result."""
    N, _, H, W = input.shape
    F, _, KH, KW = weight.shape
    OH = output_count("height", H, sides[0], sides[1], dilation[0] * (KH - 1) + 1, stride[0], False)
    OW = output_count("width", W, sides[2], sides[3], dilation[1] * (KW - 1) + 1, stride[1], False)
    return empty(input, (N, F, OH, OW))


def _run_conv2d_backward(dy: Any, x: Any, w: Any, *rest: Any) -> Any:
    """Return the gradients of x, w and the bias, None for those that are not needed."""
    *window, wanted = rest
    return KERNELS.conv2d_backward(dy, x, w, **conv2d_options(*window), **need_options(wanted))


def fake_conv2d_backward(grad: Any, input: Any, weight: Any, *rest: Any) -> tuple[Any, ...]:
    """Return empty tensors like the gradients."""
    dx, dw = empty(input, input.shape), empty(weight, weight.shape)
    return wanted_or_empty(rest[-1], dx, dw, weight.new_empty(weight.shape[:1]))


def _save_conv2d(ctx: Any, inputs: Any, output: Any) -> None:
    input, weight, _, *ctx.window = inputs
    ctx.save_for_backward(input, weight)


def formatted_gradients(
    ctx: Any, input: Any, weight: Any, gradients: tuple[Any, ...]
) -> tuple[Any, ...]:
    """Return the gradients (dx, dw, db) in their tensors' formats, and None for what needs none."""
    need_dx, need_dw, need_db, *others = ctx.needs_input_grad
    dx, dw, db = gradients
    dx = formatted(dx, input) if need_dx else None
    dw = formatted(dw, weight) if need_dw else None
    return dx, dw, db if need_db else None, *(None for _ in others)


def _conv2d_gradients(ctx: Any, grad: Any) -> tuple[Any, ...]:
    input, weight = ctx.saved_tensors
    gradients = conv2d_backward(grad, input, weight, *ctx.window, ctx.needs_input_grad[:3])
    return formatted_gradients(ctx, input, weight, gradients)


conv2d = operator(
    "conv2d",
    f"(Tensor input, Tensor weight, Tensor? bias, {_WINDOW}) -> Tensor",
    _run_conv2d,
    fake_conv2d,
    _conv2d_gradients,
    _save_conv2d,
)
conv2d_backward = operator(
    "conv2d_backward",
    f"(Tensor grad, Tensor input, Tensor weight, {_WINDOW}, bool[] wanted)"
    " -> (Tensor, Tensor, Tensor)",
    _run_conv2d_backward,
    fake_conv2d_backward,
)
