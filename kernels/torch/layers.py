"""Layers of `torch.nn` that the kernels compute where they are faster, and PyTorch elsewhere.

They differ from PyTorch's in `forward` alone. A module becomes one of them by a change of its
class: its parameters, buffers, hooks and name stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules.module import _has_any_global_hook

from ..common.geometry import pair
from . import functional, rules
from .registration import contiguous, is_transforming, is_watching


class Conv2d(nn.Conv2d):
    """A convolution."""

    def forward(self, input: Any) -> Any:
        """Return the convolution of images (N, C, H, W)."""
        weight, bias = self.weight, self.bias  # once: a parametrization computes them anew
        if not _fits(self, input, weight, bias) or not rules.conv2d_pays(
            self, input, is_channels_last(input)
        ):
            return self._conv_forward(input, weight, bias)
        geometry = (self.stride, self.padding, self.dilation, self.groups)
        return _formatted(functional.conv2d(input, weight, bias, *geometry), input, weight)


class MaxPool2d(nn.MaxPool2d):
    """A max-pool."""

    def forward(self, input: Any) -> Any:
        """Return the largest values of windows of images (N, C, H, W)."""
        if not _are_usual(input) or not rules.max_pool2d_pays(self, input, is_channels_last(input)):
            return super().forward(input)
        return _formatted(functional.max_pool2d(input, self.kernel_size, self.stride), input)


class Sequential(nn.Sequential):
    """Layers one after the other, of which some are computed by one kernel."""

    def forward(self, input: Any) -> Any:
        """Return what the last layer returns."""
        for part in parts(self):
            if isinstance(part, Pooled) and part.suits(input):
                input = part(input)
            else:
                for layer in part:
                    input = layer(input)
        return input


class Pooled(NamedTuple):
    """A convolution followed by a ReLU and a max-pool, in either order."""

    conv: nn.Conv2d
    first: nn.Module
    second: nn.Module

    @property
    def pool(self) -> nn.MaxPool2d:
        """The max-pool."""
        pool = self.first if isinstance(self.first, nn.MaxPool2d) else self.second
        assert isinstance(pool, nn.MaxPool2d)
        return pool

    def suits(self, input: Any) -> bool:
        """Return whether one kernel should compute them."""
        return (
            _fits(self.conv, input, self.conv.weight, self.conv.bias)
            and rules.conv2d_pool_pays(self.conv, self.pool, input, is_channels_last(input))
            and not any(map(_is_changed, self))
            # The compiler does not see through this; the operator takes more kernels then.
            and (torch.compiler.is_compiling() or self._is_one_kernel(input))
        )

    def _is_one_kernel(self, input: Any) -> bool:
        conv = self.conv
        return functional.is_conv2d_pool_fused(input, conv.weight, conv.padding, self.kernel)

    @property
    def kernel(self) -> tuple[int, int]:
        """The size of the pool's windows."""
        return pair("kernel_size", self.pool.kernel_size, 1)

    def __call__(self, input: Any) -> Any:
        """Return the pooled images."""
        conv = self.conv
        y = functional.conv2d_pool(input, conv.weight, conv.bias, conv.padding, self.kernel)
        return _formatted(y, input, conv.weight)


def parts(layers: Iterable[nn.Module]) -> Iterator[tuple[nn.Module, ...]]:
    """Yield layers in order: those that one kernel can compute as `Pooled`, others one by one."""
    left = list(layers)
    while left:
        kinds = [theirs(type(layer)) for layer in left[:3]]
        if kinds in _POOLED:
            yield Pooled(*left[:3])
            del left[:3]
        else:
            yield (left.pop(0),)


#: PyTorch's classes of layers, by those that take their place.
THEIRS: dict[Any, Any] = {Conv2d: nn.Conv2d, MaxPool2d: nn.MaxPool2d, Sequential: nn.Sequential}
_POOLED = [[nn.Conv2d, nn.ReLU, nn.MaxPool2d], [nn.Conv2d, nn.MaxPool2d, nn.ReLU]]


def theirs(kind: Any) -> Any:
    """Return the class of PyTorch's whose place a class has taken, or the class itself."""
    return THEIRS.get(kind, kind)


def is_channels_last(tensor: Any) -> bool:
    """Return whether PyTorch gives a result with channels last for these images or filters.

    Where both formats are the same memory (one channel, pixel or image), PyTorch looks at strides
    that no step is taken with: this is its `is_channels_last_strides_2d`.
    """
    least = 1
    for axis in (1, 3, 2, 0):
        if tensor.stride(axis) < least or (axis == 0 and least == tensor.stride(1)):
            return False
        least = tensor.stride(axis) * tensor.shape[axis]
    return True


def _formatted(y: Any, *given: Any) -> Any:
    """Return images in the memory format in which PyTorch returns them."""
    return y if any(map(is_channels_last, given)) else contiguous(y)


def _fits(conv: nn.Conv2d, input: Any, weight: Any, bias: Any) -> bool:
    """Return whether the kernels compute a convolution of this input as PyTorch does.

    Shapes are looked at, too, since parameters can be replaced; PyTorch then raises its error.
    """
    parameters = [weight] if bias is None else [weight, bias]
    return (
        _are_usual(input, *parameters)
        and input.shape[1] == conv.in_channels
        and weight.shape[:2] == (conv.out_channels, conv.in_channels // conv.groups)
        and weight.shape[2:] == conv.kernel_size
        and (bias is None or bias.shape == (conv.out_channels,))
        and not has_own_forward(conv)
    )


def _are_usual(input: Any, *parameters: Any) -> bool:
    """Return whether the rules hold for these tensors, and nothing else needs PyTorch's layers."""
    return (
        all(
            type(tensor) in (torch.Tensor, nn.Parameter)
            and tensor.dtype == torch.float32
            and tensor.device.type == "cpu"
            and tensor.layout == torch.strided
            for tensor in (input, *parameters)
        )
        and not is_transforming()
        and (torch.compiler.is_compiling() or not is_watching())
        and not torch.compiler.is_exporting()
        and not torch.is_autocast_enabled("cpu")
        and input.ndim == 4
        and rules.holds(input.numel() > 0)
        and (input.is_contiguous() or input.is_contiguous(memory_format=torch.channels_last))
        and rules.holds(input.numel() <= rules.MOST_VALUES)
    )


def _is_changed(layer: nn.Module) -> bool:
    """Return whether calling a layer does more than its class's `forward`."""
    return bool(
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
        or _has_any_global_hook()
        or has_own_forward(layer)
    )


def has_own_forward(layer: nn.Module) -> bool:
    """Return whether a layer computes something else than its class does."""
    return "forward" in vars(layer) or "_conv_forward" in vars(layer)
