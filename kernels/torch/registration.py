"""Registering operators with PyTorch, and the way from its tensors to the kernels and back.

The namespace contains the package's name, so that copies of the package under different names live
side by side.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad
from torch.utils._device import DeviceContext

from ..runtime import KernelError
from ..runtime.cuda import unavailable

PACKAGE = __package__.rpartition(".")[0]  # whatever name it goes by
NAMESPACE = "cnn_" + PACKAGE.replace(".", "__")
#: The package, whose public functions the operators run.
KERNELS: Any = importlib.import_module(PACKAGE)


def operator(
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

    registered = torch.library.custom_op(
        f"{NAMESPACE}::{name}", launch, mutates_args=(), schema=schema
    )
    backward = gradients or _no_gradients
    registered.register_fake(fake)
    registered.register_autograd(backward, setup_context=save)
    for key in ("AutogradCPU", "AutogradCUDA"):
        _refuse_transforms(name, key)

    def forward(ctx: Any, *arguments: Any) -> Any:
        results = launch(*arguments)
        if save is not None:
            save(ctx, arguments, results)
        ctx.set_materialize_grads(False)  # the gradients of statistics would be zeros
        return results

    def differentiate(ctx: Any, *grads: Any) -> Any:
        if all(grad is None for grad in grads):  # zero everywhere
            return tuple(None for _ in ctx.needs_input_grad)
        return backward(ctx, *grads)

    methods = {"forward": staticmethod(forward), "backward": staticmethod(differentiate)}
    differentiable: Any = type(name, (torch.autograd.Function,), methods)

    def call(*arguments: Any) -> Any:
        if torch.compiler.is_compiling() or not _is_plain(arguments):
            return registered(*arguments)
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
    """Return whether all tensors are ordinary ones of the CPU, and PyTorch watches no operators."""
    return not (is_watching() or torch.autograd._profiler_enabled()) and all(
        type(value) in (torch.Tensor, torch.nn.Parameter) and _keys(value) in _PLAIN_KEYS
        for value in arguments
        if isinstance(value, torch.Tensor)
    )


def is_watching() -> bool:
    """Return whether a mode, transform or trace of PyTorch's is on, which sees each operator."""
    return bool(
        is_transforming() or torch._C._len_torch_dispatch_stack() or torch._C._get_tracing_state()
    )


def is_transforming() -> bool:
    """Return whether `torch.func`, forward mode or a mode that overrides functions is on.

    The compiler sees through this.
    """
    return bool(
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or (torch._C._len_torch_function_stack() and _is_overriding())
    )


def _is_overriding() -> bool:
    """Return whether a mode does more to functions than to choose the device of new tensors."""
    modes = torch.overrides._get_current_function_mode_stack()
    return any(type(mode) is not DeviceContext for mode in modes)


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
    is_plain = value.device.type == "cpu" and type(value) is torch.Tensor
    return np.asarray(_Memory(value)) if is_plain else value


class _Memory:
    """The memory of a contiguous tensor, as NumPy takes it in half of DLPack's time.

    `Tensor.numpy` would forbid to resize that memory from then on, as FSDP does with parameters.
    """

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor  # kept: arrays keep this object
        self.__array_interface__ = {
            "version": 3,
            "shape": tuple(tensor.shape),
            "typestr": _array_type(tensor.dtype),
            "data": (tensor.data_ptr(), False),
        }


@cache
def _array_type(dtype: Any) -> str:
    name: str = np.dtype(str(dtype).removeprefix("torch.")).str
    return name


def _from_kernels(array: Any) -> Any:
    """Return an array as a tensor with channels second.

    The array's axes are moved, not the tensor's: views must not be written to, as relu_() does.
    """
    if array.ndim > 2:
        array = array.transpose(0, array.ndim - 1, *range(1, array.ndim - 1))
    if 0 in array.shape:  # NumPy's strides are then 0, unlike those of PyTorch and of the fakes
        like = torch.from_dlpack(array)
        strides = (empty(like, like.shape) if like.ndim > 2 else like.contiguous()).stride()
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


def empty(like: Any, shape: Any, dtype: Any = None) -> Any:
    """Return an empty tensor of a shape (N, C, ...), its channels last in memory."""
    N, C, *rest = shape
    return like.new_empty((N, *rest, C), dtype=dtype).movedim(-1, 1)


def need_options(wanted: Any) -> dict[str, bool]:
    """Return whether dx, dw and db are wanted, as the kernels take it."""
    return dict(zip(("need_dx", "need_dw", "need_db"), wanted, strict=True))


def wanted_or_empty(wanted: Any, *gradients: Any) -> tuple[Any, ...]:
    """Return gradients, an empty tensor in place of each that is not wanted."""
    pairs = zip(wanted, gradients, strict=True)
    return tuple(gradient if is_wanted else gradient.new_empty(0) for is_wanted, gradient in pairs)


def contiguous(images: Any) -> Any:
    """Return a contiguous copy.

    `Tensor.contiguous` leaves images of one channel or pixel as they are, with channels last, and
    what PyTorch makes of them would have channels last, too.
    """
    return images.clone(memory_format=torch.contiguous_format)


def formatted(gradient: Any, tensor: Any) -> Any:
    """Return the gradient of images or filters in their memory format."""
    return contiguous(gradient) if tensor.is_contiguous() else gradient
