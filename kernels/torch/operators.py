"""The operators behind `torch.py`, ``torch.ops.<NAMESPACE>.<name>``: kernels as PyTorch sees them.

The namespace contains the package's name, so that copies of the package under different names live
side by side.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad

from ..common.geometry import output_count
from ..common.reduce import accumulator
from ..runtime import KernelError
from ..runtime.cuda import unavailable

_PACKAGE = __package__.rpartition(".")[0]  # whatever name it goes by
NAMESPACE = "cnn_" + _PACKAGE.replace(".", "__")

_kernels: Any = importlib.import_module(_PACKAGE)


def _operator(
    name: str,
    schema: str,
    run: Callable[..., Any],
    fake: Callable[..., Any],
    gradients: Callable[..., Any] | None = None,
    save: Callable[..., None] | None = None,
) -> Any:
    """Register an operator and return a function that calls it.

    Only a plain call skips PyTorch's dispatcher, which takes longer than a small kernel.

    Parameters
    ----------
    name, schema : str
        Of the operator. Schemas have no defaults: all arguments are given by position.
    run : callable
        Called with the operator's arguments, tensors as arrays or detached, with their channels
        last; returns arrays like that. In a tuple, None stands for an empty tensor.
    fake : callable
        Called with the operator's arguments; returns empty tensors like its results.
    gradients, save : callable, optional
        PyTorch's `backward` and `setup_context`.
    """

    def launch(*arguments: Any) -> Any:
        with _on_current_stream(arguments[0].device):
            results = run(*map(_to_kernels, arguments))
            if not isinstance(results, tuple):
                return _from_kernels(results)
            return tuple(
                arguments[0].new_empty(0) if result is None else _from_kernels(result)
                for result in results
            )

    operator = torch.library.custom_op(
        f"{NAMESPACE}::{name}", launch, mutates_args=(), schema=schema
    )
    backward = gradients or _no_gradients
    operator.register_fake(fake)
    operator.register_autograd(backward, setup_context=save)
    for key in ("AutogradCPU", "AutogradCUDA"):
        _refuse_transforms(name, key)

    def forward(ctx: Any, *arguments: Any) -> Any:
        results = launch(*arguments)
        if save is not None:
            save(ctx, arguments, results)
        ctx.set_materialize_grads(False)  # the gradients of statistics would be zeros
        return results

    def gradients_of_first(ctx: Any, *grads: Any) -> Any:
        if grads[0] is None:  # one that is zero everywhere
            return tuple(None for _ in ctx.needs_input_grad)
        return backward(ctx, *grads)

    methods = {"forward": staticmethod(forward), "backward": staticmethod(gradients_of_first)}
    differentiable: Any = type(name, (torch.autograd.Function,), methods)

    def call(*arguments: Any) -> Any:
        if torch.compiler.is_compiling() or not _is_plain(arguments):
            return operator(*arguments)
        if torch.is_grad_enabled() and any(getattr(a, "requires_grad", False) for a in arguments):
            return differentiable.apply(*arguments)
        return launch(*arguments)

    return call


def _keys(tensor: Any) -> int:
    """Return what PyTorch's dispatcher chooses an operator's implementation by."""
    keys: int = torch._C._dispatch_keys(tensor).raw_repr()
    return keys


with torch.inference_mode():
    _PLAIN_KEYS = {_keys(torch.empty(0))}
with torch.inference_mode(False):
    _PLAIN_KEYS.add(_keys(torch.empty(0)))


def _is_plain(arguments: tuple[Any, ...]) -> bool:
    """Return whether all tensors are ordinary ones of the CPU, and no mode or transform is on."""
    return all(
        type(value) in (torch.Tensor, torch.nn.Parameter) and _keys(value) in _PLAIN_KEYS
        for value in arguments
        if isinstance(value, torch.Tensor)
    ) and not (
        torch._C._len_torch_dispatch_stack()
        or torch._C._are_functorch_transforms_active()
        or torch._C._get_tracing_state()
        or torch.autograd._profiler_enabled()
        or forward_ad._current_level >= 0
    )


# Kept: PyTorch takes back what a library registered when that is gone.
_library = torch.library.Library(NAMESPACE, "FRAGMENT")


def _refuse_transforms(name: str, key: str) -> None:
    """Make an operator raise RuntimeError where its gradients are taken in a way it does not have.

    PyTorch's own registration drops the tangents of forward mode.
    """
    kernel = torch.library.get_kernel(f"{NAMESPACE}::{name}", key)

    def differentiable(keyset: Any, *arguments: Any) -> Any:
        tensors = [value for value in arguments if isinstance(value, torch.Tensor)]
        # vmap is no such way: by now, it has called for each slice.
        if any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors) or (
            torch._C._are_functorch_transforms_active()
            and torch.is_grad_enabled()
            and any(tensor.requires_grad for tensor in tensors)
        ):
            raise RuntimeError(
                f"{__package__} supports torch.autograd in reverse mode only, neither "
                "forward mode nor the gradients of torch.func (grad, vjp, jvp, jacrev, jacfwd)"
            )
        return kernel.call_boxed(keyset, *arguments)

    _library.impl(name, differentiable, key, with_keyset=True)


def _no_gradients(ctx: Any, *_: Any) -> Any:
    raise RuntimeError(f"the gradients of {__package__} cannot be differentiated again")


def _to_kernels(value: Any) -> Any:
    """Return a tensor with channels last and contiguous, as the kernels take it."""
    if not isinstance(value, torch.Tensor):
        return value
    value = value.detach()
    value = (value.movedim(1, -1) if value.ndim > 2 else value).contiguous()
    # In a third of DLPack's time.
    return value.numpy() if value.device.type == "cpu" and type(value) is torch.Tensor else value


def _from_kernels(array: Any) -> Any:
    """Return an array as a tensor with channels second.

    The array's axes are moved, not the tensor's: views must not be written to, as relu_() does.
    """
    if array.ndim > 2:
        array = array.transpose(0, array.ndim - 1, *range(1, array.ndim - 1))
    if 0 in array.shape:  # NumPy's strides are then 0, unlike those of PyTorch and of the fakes
        like = torch.from_dlpack(array)
        strides = (_empty(like, like.shape) if like.ndim > 2 else like.contiguous()).stride()
        return like.new_empty_strided(like.shape, strides)
    return (torch.from_numpy if isinstance(array, np.ndarray) else torch.from_dlpack)(array)


def _on_current_stream(device: Any) -> AbstractContextManager[Any]:
    """On a GPU, make PyTorch's current stream CuPy's current one; on a CPU, do nothing."""
    if device.type != "cuda":
        return nullcontext()
    reason = unavailable()
    if reason is not None:
        raise KernelError(f"the tensors are on a GPU, but {reason}")
    import cupy

    stack = ExitStack()
    stack.enter_context(cupy.cuda.Device(device.index))
    stack.enter_context(cupy.cuda.Stream.from_external(torch.cuda.current_stream(device)))
    return stack


def _empty(like: Any, shape: Any, dtype: Any = None) -> Any:
    """Return an empty tensor of a shape (N, C, ...), its channels last in memory."""
    N, C, *rest = shape
    return like.new_empty((N, *rest, C), dtype=dtype).movedim(-1, 1)


def _wide(tensor: Any) -> Any:
    """Return the type that sums of a tensor's values are taken in."""
    return getattr(torch, accumulator(str(tensor.dtype).removeprefix("torch.")))


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
    return _empty(input, (N, F, OH, OW))


def _run_conv2d_backward(dy: Any, x: Any, w: Any, *rest: Any) -> Any:
    """Return the gradients of x, w and the bias; that of x is None where it is not needed."""
    *window, need_dx = rest
    return _kernels.conv2d_backward(dy, x, w, need_dx=need_dx, **_conv2d_options(*window))


def _fake_conv2d_backward(grad: Any, input: Any, weight: Any, *rest: Any) -> tuple[Any, ...]:
    dx = _empty(input, input.shape) if rest[-1] else input.new_empty(0)
    return dx, _empty(weight, weight.shape), weight.new_empty(weight.shape[:1])


def _save_conv2d(ctx: Any, inputs: Any, output: Any) -> None:
    input, weight, _, *ctx.window = inputs
    ctx.save_for_backward(input, weight)


def _conv2d_gradients(ctx: Any, grad: Any) -> tuple[Any, ...]:
    need_dx, _, need_db, *others = ctx.needs_input_grad
    dx, dw, db = conv2d_backward(grad, *ctx.saved_tensors, *ctx.window, need_dx)
    return dx if need_dx else None, dw, db if need_db else None, *(None for _ in others)


conv2d = _operator(
    "conv2d",
    f"(Tensor input, Tensor weight, Tensor? bias, {_WINDOW}) -> Tensor",
    _run_conv2d,
    _fake_conv2d,
    _conv2d_gradients,
    _save_conv2d,
)
conv2d_backward = _operator(
    "conv2d_backward",
    f"(Tensor grad, Tensor input, Tensor weight, {_WINDOW}, bool need_dx)"
    " -> (Tensor, Tensor, Tensor)",
    _run_conv2d_backward,
    _fake_conv2d_backward,
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
    return _empty(input, shape), _empty(input, shape, index)


def _run_max_pool2d_backward(dy: Any, argmax: Any, H: int, W: int, kernel: Any, *rest: Any) -> Any:
    N, _, _, C = dy.shape
    return _kernels.max_pool2d_backward(dy, argmax, (N, H, W, C), kernel, **_pool_options(*rest))


def _fake_max_pool2d_backward(grad: Any, argmax: Any, H: Any, W: Any, *_: Any) -> Any:
    return _empty(grad, (*grad.shape[:2], H, W))


def _run_pool_indices(argmax: Any, H: int, W: int, kernel: Any, *rest: Any) -> Any:
    N, _, _, C = argmax.shape
    return _kernels.pool_indices(argmax, (N, H, W, C), kernel, **_pool_options(*rest))


def _fake_pool_indices(argmax: Any, *_: Any) -> Any:
    return _empty(argmax, argmax.shape, torch.int64)


def _save_max_pool2d(ctx: Any, inputs: Any, output: Any) -> None:
    input, *ctx.window = inputs
    ctx.size = input.shape[2:]
    ctx.save_for_backward(output[1])


def _max_pool2d_gradients(ctx: Any, grad: Any, _: Any) -> tuple[Any, ...]:
    dx = max_pool2d_backward(grad, *ctx.saved_tensors, *ctx.size, *ctx.window)
    return dx, *(None for _ in ctx.window)


max_pool2d = _operator(
    "max_pool2d",
    f"(Tensor input, {_POOL}) -> (Tensor, Tensor)",
    _run_max_pool2d,
    _fake_max_pool2d,
    _max_pool2d_gradients,
    _save_max_pool2d,
)
max_pool2d_backward = _operator(
    "max_pool2d_backward",
    f"(Tensor grad, Tensor argmax, SymInt H, SymInt W, {_POOL}) -> Tensor",
    _run_max_pool2d_backward,
    _fake_max_pool2d_backward,
)
pool_indices = _operator(
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
    return _empty(input, input.shape), *saved, *running


def _run_batch_norm_backward(
    dy: Any, x: Any, gamma: Any, mean: Any, inv_std: Any, training: bool
) -> Any:
    saved = _kernels.BatchNormSaved(mean, inv_std, training)
    return _kernels.batch_norm_backward(dy, x, gamma, saved)


def _fake_batch_norm_backward(grad: Any, input: Any, weight: Any, *_: Any) -> Any:
    return _empty(input, input.shape), torch.empty_like(weight), torch.empty_like(weight)


def _save_batch_norm(ctx: Any, inputs: Any, output: Any) -> None:
    input, weight, *_, ctx.training, _, _ = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(input, weight, *output[1:3])


def _batch_norm_gradients(ctx: Any, grad: Any, *_: Any) -> tuple[Any, ...]:
    gradients = batch_norm_backward(grad, *ctx.saved_tensors, ctx.training)
    return *gradients, None, None, None, None, None


batch_norm = _operator(
    "batch_norm",
    "(Tensor input, Tensor weight, Tensor bias, Tensor running_mean, Tensor running_var,"
    " bool training, float momentum, float eps) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _run_batch_norm,
    _fake_batch_norm,
    _batch_norm_gradients,
    _save_batch_norm,
)
batch_norm_backward = _operator(
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


layer_norm = _operator(
    "layer_norm",
    "(Tensor input, Tensor weight, Tensor bias, float eps) -> (Tensor, Tensor, Tensor)",
    _run_layer_norm,
    _fake_layer_norm,
    _layer_norm_gradients,
    _save_layer_norm,
)
layer_norm_backward = _operator(
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


dense = _operator(
    "dense",
    "(Tensor input, Tensor weight, Tensor? bias) -> Tensor",
    _kernels.dense,
    _fake_dense,
    _dense_gradients,
    _save_dense,
)
dense_backward = _operator(
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


softmax_cross_entropy = _operator(
    "softmax_cross_entropy",
    "(Tensor input, Tensor target, Tensor? weight, int ignore_index, str reduction,"
    " float label_smoothing) -> (Tensor, Tensor)",
    _run_cross_entropy,
    _fake_cross_entropy,
    _cross_entropy_gradients,
    _save_cross_entropy,
)
# It takes the input so that differentiating twice fails: dx alone does not depend on it.
softmax_cross_entropy_backward = _operator(
    "softmax_cross_entropy_backward",
    "(Tensor grad, Tensor input, Tensor dx) -> Tensor",
    lambda grad, input, dx: grad.reshape(-1, 1) * dx,  # one for all rows, or one for each
    lambda grad, input, dx: torch.empty_like(dx),
)
