"""Which layers of `torch.nn` these kernels compute faster than PyTorch: known from shapes.

The rules are for values and gradients together, in float32, on a CPU. Nothing is measured when a
network runs: ``bench/networks/test_accelerate.py`` times layers on both sides of each rule, and
``bench/results/accelerate-cpu.json`` has its figures.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from ..common.geometry import pair, pool_stride
from ..pooling.pool import MOST_TAPS
from ..runtime.types import INT32_MAX

#: Channels, and filters, of a convolution without a pool: Winograd's algorithm is what is faster.
CHANNELS = range(16, 257)
#: The most channels, and filters, of a convolution before a pool whose kernel is not 3 x 3.
MOST_POOLED = 8, 64
#: Channels, and filters, if the images are contiguous: they are transposed before and after.
CONTIGUOUS = range(64, 129)
#: The least channels for which Winograd's algorithm, without a pool, gains more than a kernel that
#: pools, too; contiguous images would be transposed once more.
CHANNELS_APART = 64
#: The least multiply-adds, about: with fewer, the convolution takes less time than Python's part.
LEAST_PRODUCTS = 2**24
#: The same before a pool: fusing them also saves passes over the images.
LEAST_PRODUCTS_POOLED = 2**22
#: The least values that go into a pool; no number of contiguous ones pays for transposing them.
LEAST_POOLED, LEAST_POOLED_CONTIGUOUS = 2**20, math.inf
#: The most values of images: the kernels count in 32 bits.
MOST_VALUES = INT32_MAX


def conv2d(layer: nn.Conv2d) -> str | None:
    """Return why PyTorch computes a convolution, or None where the kernels may be faster."""
    given = {"kernel": layer.kernel_size, "stride": layer.stride, "dilation": layer.dilation}
    for (name, value), fast in zip(given.items(), ((3, 3), (1, 1), (1, 1)), strict=True):
        if value != fast:
            return f"PyTorch is faster at a {name} of {value}"
    if layer.in_channels not in CHANNELS or layer.out_channels not in CHANNELS:
        return _channels(layer)
    return _geometry(layer)


def conv2d_pays(layer: nn.Conv2d, input: Any, channels_last: bool) -> bool:
    """Return whether the kernels are faster at these images."""
    fits = channels_last or {layer.in_channels, layer.out_channels} <= {*CONTIGUOUS}
    many = holds(_products(layer, input) >= LEAST_PRODUCTS)
    return fits and many and conv2d(layer) is None and _hold_windows(input, layer)


def max_pool2d(layer: nn.MaxPool2d) -> str | None:
    """Return why PyTorch computes a pool, or None where the kernels may be faster."""
    if layer.return_indices:
        return "PyTorch is as fast at a pool that returns indices"
    windows = _windows(layer)
    if windows is None:
        return "PyTorch is as fast at windows that overlap"
    return None if math.prod(windows) <= MOST_TAPS else "its windows are too large for the kernel"


def max_pool2d_pays(layer: nn.MaxPool2d, input: Any, channels_last: bool) -> bool:
    """Return whether the kernels are faster at these images."""
    least = LEAST_POOLED if channels_last else LEAST_POOLED_CONTIGUOUS
    many = holds(input.numel() >= least)
    return many and max_pool2d(layer) is None and _hold_windows(input, layer)


def conv2d_pool(layer: nn.Conv2d, pool: nn.MaxPool2d) -> str | None:
    """Return why PyTorch computes a convolution, a ReLU and a pool, or None likewise."""
    windows = _windows(pool)
    if windows is None or pool.return_indices or windows[0] * windows[1] not in (2, 4):
        return "its pool's windows overlap, leave gaps, or are not of two or four pixels"
    if layer.stride != (1, 1) or layer.dilation != (1, 1) or layer.kernel_size == (1, 1):
        return "PyTorch is faster at strides, dilations and kernels of 1 x 1"
    most = (CHANNELS[-1],) * 2 if layer.kernel_size == (3, 3) else MOST_POOLED
    if layer.in_channels > most[0] or layer.out_channels > most[1]:
        return _channels(layer)
    return _geometry(layer)


def conv2d_pool_pays(layer: nn.Conv2d, pool: nn.MaxPool2d, input: Any, channels_last: bool) -> bool:
    """Return whether one kernel is faster at these images."""
    if channels_last and layer.in_channels >= CHANNELS_APART and conv2d_pays(layer, input, True):
        return False
    many = holds(_products(layer, input) >= LEAST_PRODUCTS_POOLED)
    return many and conv2d_pool(layer, pool) is None and _hold_windows(input, layer, pool)


def holds(condition: Any) -> bool:
    """Return whether a condition of sizes holds; False if the compiler cannot tell (`x[mask]`)."""
    if not torch.compiler.is_compiling():
        return bool(condition)
    from torch.fx.experimental.symbolic_shapes import guard_or_false  # slow to import

    return bool(guard_or_false(condition))


def _channels(layer: nn.Conv2d) -> str:
    return f"PyTorch is faster at {layer.in_channels} channels and {layer.out_channels} filters"


def _geometry(layer: nn.Conv2d) -> str | None:
    if layer.padding_mode != "zeros":
        return f"the kernels pad with zeros, not by {layer.padding_mode!r}"
    try:
        if layer.padding not in ("valid", "same"):
            pair("padding", layer.padding, 0)
    except (TypeError, ValueError):  # such as (1,), which PyTorch takes, or -1, at which it raises
        return f"the kernels take no padding of {layer.padding}"
    return None if layer.groups == 1 else "PyTorch is faster at groups"


def _hold_windows(input: Any, *layers: nn.Conv2d | nn.MaxPool2d) -> bool:
    """Return whether images are as large as what one pixel after the layers is computed from.

    In smaller ones tiles and rows are half empty, or there is no window, at which PyTorch raises.
    """
    kernels = [pair("kernel_size", layer.kernel_size, 1) for layer in layers]
    axes = zip(input.shape[2:], zip(*kernels, strict=True), strict=True)
    return all(holds(length > sum(extents) - len(extents)) for length, extents in axes)


def _products(layer: nn.Conv2d, input: Any) -> Any:
    KH, KW = layer.kernel_size
    return input.numel() * KH * KW * layer.out_channels


def _windows(pool: nn.MaxPool2d) -> tuple[int, int] | None:
    """Return the size of windows that neither overlap nor have gaps or padding, else None."""
    try:
        kernel = pair("kernel_size", pool.kernel_size, 1)
        plain = (
            pool_stride(pool.stride, kernel) == kernel
            and pair("padding", pool.padding, 0) == (0, 0)
            and pair("dilation", pool.dilation, 1) == (1, 1)
        )
    except (TypeError, ValueError):  # such as (2,), which PyTorch takes
        return None
    return kernel if plain and not pool.ceil_mode else None
