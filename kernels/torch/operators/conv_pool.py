"""Convolution, max-pooling and ReLU in one."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch

from ...common.geometry import window
from ...conv import conv2d_pool as conv_pool
from ...runtime import as_array, checks, cpu_target
from ..registration import KERNELS, empty, need_options, operator
from .conv import conv2d_options, fake_conv2d, fake_conv2d_backward, formatted_gradients

_CONV_POOL = "int[] stride, int[] sides, int[] dilation, int[] kernel"


def _pooled(target: Any, dtype: Any, size: Any, filters: Any, *geometry: Any) -> Any:
    """Return the convolution's window and the pool; None for one that no kernel fuses with it."""
    stride, sides, dilation, kernel = map(tuple, geometry)
    padding = sides[:2], sides[2:]
    g, _ = window(size, filters[1:3], stride=stride, padding=padding, dilation=dilation)
    return g, conv_pool.windows(target, dtype, filters, g, kernel)


@lru_cache(1024)
def is_conv2d_pool_fused(size: Any, filters: Any, *geometry: Any) -> bool:
    """Return whether one kernel computes `conv2d_pool` of float32 on a CPU.

    It takes the sizes (H, W) and (F, KH, KW, C), and the operator's last arguments as tuples.
    """
    return _pooled(cpu_target(), np.float32, size, filters, *geometry)[1] is not None


def _run_conv2d_pool(x: Any, w: Any, b: Any, *geometry: Any) -> Any:
    """Return y and argmax."""
    target, (x, w, b) = checks.arrays(x=x, w=w, b=b, optional=("b",))
    g, pool = _pooled(target, x.dtype, x.shape[1:3], w.shape, *geometry)
    if pool is None:
        stride, sides, dilation, kernel = geometry
        y = KERNELS.conv2d(x, w, b, relu=True, **conv2d_options(stride, sides, dilation, 1))
        return KERNELS.max_pool2d(y, kernel)
    return conv_pool.forward(x, w, b, g, pool)


def _fake_conv2d_pool(
    input: Any, weight: Any, bias: Any, stride: Any, sides: Any, dilation: Any, kernel: Any
) -> Any:
    convolved = fake_conv2d(input, weight, bias, stride, sides, dilation, 1)
    N, F, OH, OW = convolved.shape
    shape = (N, F, OH // kernel[0], OW // kernel[1])
    return empty(input, shape), empty(input, shape, torch.uint8)


def _run_conv2d_pool_backward(
    dy: Any, y: Any, argmax: Any, x: Any, w: Any, *rest: Any
) -> tuple[Any, ...]:
    """Return the gradients of x, w and the bias, None for those that are not needed."""
    *geometry, wanted = rest
    target, (dy, y, x, w) = checks.arrays(dy=dy, y=y, x=x, w=w)
    _, argmax = as_array("argmax", argmax)
    g, pool = _pooled(target, x.dtype, x.shape[1:3], w.shape, *geometry)
    if pool is None:
        stride, sides, dilation, kernel = geometry
        shape = (len(x), g.OH, g.OW, len(w))
        dz = KERNELS.max_pool2d_backward(KERNELS.relu_backward(dy, y), argmax, shape, kernel)
        options = conv2d_options(stride, sides, dilation, 1)
        return tuple(KERNELS.conv2d_backward(dz, x, w, **options, **need_options(wanted)))
    need_dx, need_dw, need_db = wanted
    dw = target.empty(w.shape, y.dtype) if need_dw or need_db else None  # one kernel writes both
    db = target.empty(w.shape[:1], y.dtype) if need_db else None
    dx = conv_pool.backward(dy, y, argmax, x, w, dw, db, g, pool, need_dx=need_dx)
    return dx, dw if need_dw else None, db


def _fake_conv2d_pool_backward(
    grad: Any, y: Any, argmax: Any, input: Any, weight: Any, *rest: Any
) -> tuple[Any, ...]:
    return fake_conv2d_backward(grad, input, weight, *rest)


def _save_conv2d_pool(ctx: Any, inputs: Any, output: Any) -> None:
    input, weight, _, *ctx.geometry = inputs
    y, argmax = output
    # A copy: as after a pool of PyTorch's, what follows may write to y.
    ctx.save_for_backward(y.clone(), argmax, input, weight)


def _conv2d_pool_gradients(ctx: Any, grad: Any, _: Any) -> tuple[Any, ...]:
    *output, input, weight = ctx.saved_tensors
    wanted = ctx.needs_input_grad[:3]
    gradients = conv2d_pool_backward(grad, *output, input, weight, *ctx.geometry, wanted)
    return formatted_gradients(ctx, input, weight, gradients)


conv2d_pool = operator(
    "conv2d_pool",
    f"(Tensor input, Tensor weight, Tensor? bias, {_CONV_POOL}) -> (Tensor, Tensor)",
    _run_conv2d_pool,
    _fake_conv2d_pool,
    _conv2d_pool_gradients,
    _save_conv2d_pool,
)
conv2d_pool_backward = operator(
    "conv2d_pool_backward",
    "(Tensor grad, Tensor y, Tensor argmax, Tensor input, Tensor weight,"
    f" {_CONV_POOL}, bool[] wanted) -> (Tensor, Tensor, Tensor)",
    _run_conv2d_pool_backward,
    _fake_conv2d_pool_backward,
)
