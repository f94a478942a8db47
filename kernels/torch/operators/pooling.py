"""Max-pooling."""

from __future__ import annotations

from typing import Any

import torch

from ...common.geometry import output_count
from ..registration import KERNELS, contiguous, empty, operator

_POOL = "int[] kernel, int[] stride, int[] padding, int[] dilation, bool ceil_mode"


def _pool_options(stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> dict[str, Any]:
    return {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}


def _run_max_pool2d(x: Any, kernel: Any, *rest: Any) -> Any:
    return KERNELS.max_pool2d(x, kernel, **_pool_options(*rest))


def _fake_max_pool2d(
    input: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> Any:
    N, C, *size = input.shape
    axes = zip(("height", "width"), size, kernel, stride, padding, dilation, strict=True)
    outputs = (
        output_count(axis, length, p, p, d * (k - 1) + 1, s, ceil_mode)
        for axis, length, k, s, p, d in axes
    )
    shape = (N, C, *outputs)
    index = torch.uint8 if kernel[0] * kernel[1] <= 256 else torch.uint16
    return empty(input, shape), empty(input, shape, index)


def _run_max_pool2d_backward(dy: Any, argmax: Any, H: int, W: int, kernel: Any, *rest: Any) -> Any:
    N, _, _, C = dy.shape
    return KERNELS.max_pool2d_backward(dy, argmax, (N, H, W, C), kernel, **_pool_options(*rest))


def _fake_max_pool2d_backward(grad: Any, argmax: Any, H: Any, W: Any, *_: Any) -> Any:
    return empty(grad, (*grad.shape[:2], H, W))


def _run_pool_indices(argmax: Any, H: int, W: int, kernel: Any, *rest: Any) -> Any:
    N, _, _, C = argmax.shape
    return KERNELS.pool_indices(argmax, (N, H, W, C), kernel, **_pool_options(*rest))


def _fake_pool_indices(argmax: Any, *_: Any) -> Any:
    return empty(argmax, argmax.shape, torch.int64)


def _save_max_pool2d(ctx: Any, inputs: Any, output: Any) -> None:
    input, *ctx.window = inputs
    ctx.size = input.shape[2:]
    ctx.contiguous = input.is_contiguous()
    ctx.save_for_backward(output[1])


def _max_pool2d_gradients(ctx: Any, grad: Any, _: Any) -> tuple[Any, ...]:
    dx = max_pool2d_backward(grad, *ctx.saved_tensors, *ctx.size, *ctx.window)
    return contiguous(dx) if ctx.contiguous else dx, *(None for _ in ctx.window)


max_pool2d = operator(
    "max_pool2d",
    f"(Tensor input, {_POOL}) -> (Tensor, Tensor)",
    _run_max_pool2d,
    _fake_max_pool2d,
    _max_pool2d_gradients,
    _save_max_pool2d,
)
max_pool2d_backward = operator(
    "max_pool2d_backward",
    f"(Tensor grad, Tensor argmax, SymInt H, SymInt W, {_POOL}) -> Tensor",
    _run_max_pool2d_backward,
    _fake_max_pool2d_backward,
)
pool_indices = operator(
    "pool_indices",
    f"(Tensor argmax, SymInt H, SymInt W, {_POOL}) -> Tensor",
    _run_pool_indices,
    _fake_pool_indices,
)
