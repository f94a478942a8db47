"""The operators behind `functional`: kernels as PyTorch sees them, each with its gradients.

The gradients of contiguous images and filters are contiguous, as PyTorch's are.
"""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from ..common.geometry import output_count, window
from ..common.reduce import accumulator
from ..conv import conv2d_pool as conv_pool
from ..runtime import as_array, checks, cpu_target
from .registration import PACKAGE, contiguous, empty, operator

_kernels: Any = importlib.import_module(PACKAGE)


def _wide(tensor: Any) -> Any:
    """Return the type that sums of a tensor's values are taken in."""
    return getattr(torch, accumulator(str(tensor.dtype).removeprefix("torch.")))


def _formatted(gradient: Any, tensor: Any) -> Any:
    """Return the gradient of images or filters in their memory format."""
    return contiguous(gradient) if tensor.is_contiguous() else gradient


# --- convolution

_WINDOW = "int[] stride, int[] sides, int[] dilation, int groups"


def _conv2d_options(stride: Any, sides: Any, dilation: Any, groups: int) -> dict[str, Any]:
    padding = tuple(sides[:2]), tuple(sides[2:])
    return {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


def _run_conv2d(x: Any, w: Any, b: Any, *window: Any) -> Any:
    return _kernels.conv2d(x, w, b, **_conv2d_options(*window))


def _fake_conv2d(
    input: Any, weight: Any, bias: Any, stride: Any, sides: Any, dilation: Any, groups: int
) -> Any:
    N, _, H, W = input.shape
    F, _, KH, KW = weight.shape
    OH = output_count("height", H, sides[0], sides[1], dilation[0] * (KH - 1) + 1, stride[0], False)
    OW = output_count("width", W, sides[2], sides[3], dilation[1] * (KW - 1) + 1, stride[1], False)
    return empty(input, (N, F, OH, OW))


def _run_conv2d_backward(dy: Any, x: Any, w: Any, *rest: Any) -> Any:
    """Return the gradients of x, w and the bias; that of x is None where it is not needed."""
    *window, need_dx = rest
    return _kernels.conv2d_backward(dy, x, w, need_dx=need_dx, **_conv2d_options(*window))


def _fake_conv2d_backward(grad: Any, input: Any, weight: Any, *rest: Any) -> tuple[Any, ...]:
    dx = empty(input, input.shape) if rest[-1] else input.new_empty(0)
    return dx, empty(weight, weight.shape), weight.new_empty(weight.shape[:1])


def _save_conv2d(ctx: Any, inputs: Any, output: Any) -> None:
    input, weight, _, *ctx.window = inputs
    ctx.save_for_backward(input, weight)


def _conv2d_gradients(ctx: Any, grad: Any) -> tuple[Any, ...]:
    need_dx, _, need_db, *others = ctx.needs_input_grad
    input, weight = ctx.saved_tensors
    dx, dw, db = conv2d_backward(grad, input, weight, *ctx.window, need_dx)
    dx = _formatted(dx, input) if need_dx else None
    return dx, _formatted(dw, weight), db if need_db else None, *(None for _ in others)


conv2d = operator(
    "conv2d",
    f"(Tensor input, Tensor weight, Tensor? bias, {_WINDOW}) -> Tensor",
    _run_conv2d,
    _fake_conv2d,
    _conv2d_gradients,
    _save_conv2d,
)
conv2d_backward = operator(
    "conv2d_backward",
    f"(Tensor grad, Tensor input, Tensor weight, {_WINDOW}, bool need_dx)"
    " -> (Tensor, Tensor, Tensor)",
    _run_conv2d_backward,
    _fake_conv2d_backward,
)


# --- convolution, max-pooling and ReLU in one

_CONV_POOL = "int[] stride, int[] sides, int[] dilation, int[] kernel"


def _pooled(target: Any, dtype: Any, size: Any, filters: Any, *geometry: Any) -> Any:
    """Return the convolution's window and the pool; None for one that no kernel fuses with it."""
    stride, sides, dilation, kernel = map(tuple, geometry)
    padding = sides[:2], sides[2:]
    of, _ = window(size, filters[1:3], stride=stride, padding=padding, dilation=dilation)
    return of, conv_pool.windows(target, dtype, filters, of, kernel)


@lru_cache(1024)
def is_conv2d_pool_fused(size: Any, filters: Any, *geometry: Any) -> bool:
    """Return whether one kernel computes `conv2d_pool` of float32 on a CPU.

    It takes the sizes (H, W) and (F, KH, KW, C), and the operator's last arguments as tuples.
    """
    return _pooled(cpu_target(), np.float32, size, filters, *geometry)[1] is not None


def _run_conv2d_pool(x: Any, w: Any, b: Any, *geometry: Any) -> Any:
    """Return y and argmax."""
    target, (x, w, b) = checks.arrays(x=x, w=w, b=b, optional=("b",))
    of, pool = _pooled(target, x.dtype, x.shape[1:3], w.shape, *geometry)
    if pool is None:
        stride, sides, dilation, kernel = geometry
        y = _kernels.conv2d(x, w, b, relu=True, **_conv2d_options(stride, sides, dilation, 1))
        return _kernels.max_pool2d(y, kernel)
    return conv_pool.forward(x, w, b, of, pool)


def _fake_conv2d_pool(
    input: Any, weight: Any, bias: Any, stride: Any, sides: Any, dilation: Any, kernel: Any
) -> Any:
    convolved = _fake_conv2d(input, weight, bias, stride, sides, dilation, 1)
    N, F, OH, OW = convolved.shape
    shape = (N, F, OH // kernel[0], OW // kernel[1])
    return empty(input, shape), empty(input, shape, torch.uint8)


def _run_conv2d_pool_backward(
    dy: Any, y: Any, argmax: Any, x: Any, w: Any, *rest: Any
) -> tuple[Any, ...]:
    """Return the gradients of x, w and the bias; that of x is None where it is not needed."""
    *geometry, need_dx = rest
    target, (dy, y, x, w) = checks.arrays(dy=dy, y=y, x=x, w=w)
    _, argmax = as_array("argmax", argmax)
    of, pool = _pooled(target, x.dtype, x.shape[1:3], w.shape, *geometry)
    if pool is None:
        stride, sides, dilation, kernel = geometry
        shape = (len(x), of.OH, of.OW, len(w))
        dz = _kernels.max_pool2d_backward(_kernels.relu_backward(dy, y), argmax, shape, kernel)
        options = _conv2d_options(stride, sides, dilation, 1)
        return tuple(_kernels.conv2d_backward(dz, x, w, need_dx=need_dx, **options))
    dw, db = target.empty(w.shape, y.dtype), target.empty(w.shape[:1], y.dtype)
    dx = conv_pool.backward(dy, y, argmax, x, w, dw, db, of, pool, need_dx=need_dx)
    return dx, dw, db


def _fake_conv2d_pool_backward(
    grad: Any, y: Any, argmax: Any, input: Any, weight: Any, *rest: Any
) -> tuple[Any, ...]:
    return _fake_conv2d_backward(grad, input, weight, *rest)


def _save_conv2d_pool(ctx: Any, inputs: Any, output: Any) -> None:
    input, weight, _, *ctx.geometry = inputs
    y, argmax = output
    # A copy: as after a pool of PyTorch's, what follows may write to y.
    ctx.save_for_backward(y.clone(), argmax, input, weight)


def _conv2d_pool_gradients(ctx: Any, grad: Any, _: Any) -> tuple[Any, ...]:
    need_dx, _, need_db, *others = ctx.needs_input_grad
    *output, input, weight = ctx.saved_tensors
    dx, dw, db = conv2d_pool_backward(grad, *output, input, weight, *ctx.geometry, need_dx)
    dx = _formatted(dx, input) if need_dx else None
    return dx, _formatted(dw, weight), db if need_db else None, *(None for _ in others)


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
    f" {_CONV_POOL}, bool need_dx) -> (Tensor, Tensor, Tensor)",
    _run_conv2d_pool_backward,
    _fake_conv2d_pool_backward,
)


# --- max-pooling

_POOL = "int[] kernel, int[] stride, int[] padding, int[] dilation, bool ceil_mode"


def _pool_options(stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> dict[str, Any]:
    return {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}


def _run_max_pool2d(x: Any, kernel: Any, *rest: Any) -> Any:
    return _kernels.max_pool2d(x, kernel, **_pool_options(*rest))


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
    return _kernels.max_pool2d_backward(dy, argmax, (N, H, W, C), kernel, **_pool_options(*rest))


def _fake_max_pool2d_backward(grad: Any, argmax: Any, H: Any, W: Any, *_: Any) -> Any:
    return empty(grad, (*grad.shape[:2], H, W))


def _run_pool_indices(argmax: Any, H: int, W: int, kernel: Any, *rest: Any) -> Any:
    N, _, _, C = argmax.shape
    return _kernels.pool_indices(argmax, (N, H, W, C), kernel, **_pool_options(*rest))


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
    y, saved = _kernels.batch_norm(x, gamma, beta, *running, **settings)
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
    saved = _kernels.BatchNormSaved(mean, inv_std, training)
    return _kernels.batch_norm_backward(dy, x, gamma, saved)


def _fake_batch_norm_backward(grad: Any, input: Any, weight: Any, *_: Any) -> Any:
    return empty(input, input.shape), torch.empty_like(weight), torch.empty_like(weight)


def _save_batch_norm(ctx: Any, inputs: Any, output: Any) -> None:
    input, weight, *_, ctx.training, _, _ = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(input, weight, *output[1:3])


def _batch_norm_gradients(ctx: Any, grad: Any, *_: Any) -> tuple[Any, ...]:
    dx, *others = batch_norm_backward(grad, *ctx.saved_tensors, ctx.training)
    return _formatted(dx, ctx.saved_tensors[0]), *others, None, None, None, None, None


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


# --- layer normalisation, of rows (N, C)


def _run_layer_norm(x: Any, gamma: Any, beta: Any, eps: float) -> Any:
    """Return y and the statistics that it was made with."""
    y, saved = _kernels.layer_norm(x, gamma, beta, eps=eps)
    return y, *saved


def _fake_layer_norm(input: Any, *_: Any) -> Any:
    saved = (input.new_empty(input.shape[:1], dtype=_wide(input)) for _ in range(2))
    return input.new_empty(input.shape), *saved


def _run_layer_norm_backward(dy: Any, x: Any, gamma: Any, mean: Any, inv_std: Any) -> Any:
    return _kernels.layer_norm_backward(dy, x, gamma, _kernels.LayerNormSaved(mean, inv_std))


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


# --- dense layer


def _fake_dense(input: Any, weight: Any, bias: Any) -> Any:
    return input.new_empty((input.shape[0], weight.shape[0]))


def _run_dense_backward(dy: Any, x: Any, w: Any, need_dx: bool) -> Any:
    """Return the gradients of x, w and the bias; that of x is None where it is not needed."""
    return _kernels.dense_backward(dy, x, w, need_dx=need_dx)


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
    _kernels.dense,
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


# --- cross-entropy


def _run_cross_entropy(
    x: Any, labels: Any, weight: Any, ignore_index: int, reduction: str, label_smoothing: float
) -> Any:
    return _kernels.softmax_cross_entropy(
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
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(inputs[0], output[1])


def _cross_entropy_gradients(ctx: Any, grad: Any, _: Any) -> tuple[Any, ...]:
    dx = softmax_cross_entropy_backward(grad, *ctx.saved_tensors)
    return dx, None, None, None, None, None


softmax_cross_entropy = operator(
    "softmax_cross_entropy",
    "(Tensor input, Tensor target, Tensor? weight, int ignore_index, str reduction,"
    " float label_smoothing) -> (Tensor, Tensor)",
    _run_cross_entropy,
    _fake_cross_entropy,
    _cross_entropy_gradients,
    _save_cross_entropy,
)
# It takes the input so that differentiating twice fails: dx alone does not depend on it.
softmax_cross_entropy_backward = operator(
    "softmax_cross_entropy_backward",
    "(Tensor grad, Tensor input, Tensor dx) -> Tensor",
    lambda grad, input, dx: grad.reshape(-1, 1) * dx,  # one for all rows, or one for each
    lambda grad, input, dx: torch.empty_like(dx),
)
