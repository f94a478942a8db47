"""Functions of `torch.nn.functional`, with gradients, computed by these kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from ..common.geometry import Pair, pair, pool_stride
from ..runtime.checks import shown, whole
from . import autocast, checks, operators


def conv2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Any:
    """Return the 2-D convolution of input with weight, plus bias.

    About values that are not finite, see `kernels.conv2d`.

    Parameters
    ----------
    input : tensor (N, C, H, W)
    weight : tensor (F, C/groups, KH, KW)
    bias : tensor (F,), optional
    stride, dilation : int or (h, w)
        Pixels between neighbouring windows, and between neighbouring taps of one.
    padding : int, (h, w), "valid" or "same"
        Zeros around the image, in pixels; "same" needs a stride of 1.
    groups : int
        Parts that C and F are split into; each part of F sees only its part of C.

    Returns
    -------
    tensor (N, F, OH, OW)

    Raises
    ------
    TypeError, ValueError
        If dtypes, devices, shapes or parameters do not fit, or the dilated kernel is larger than
        the padded image.
    """
    input, weight, bias = autocast.for_product(input, weight, bias)
    checks.input(input)
    checks.shape("input", input, ("N", "C", "H", "W"), "images")
    C = input.shape[1]
    groups = whole("groups", groups, 1)
    checks.like("weight", weight, input)
    if weight.ndim != 4 or weight.shape[1] * groups != C:
        raise ValueError(
            f"weight: got shape {tuple(weight.shape)}, expected (F, C/groups, KH, KW) "
            f"for {C} channels in {groups} groups"
        )
    if 0 in weight.shape:
        raise ValueError(
            f"weight: got shape {tuple(weight.shape)}, expected filters with taps and channels"
        )
    if bias is not None:
        checks.like("bias", bias, input)
        checks.shape("bias", bias, weight.shape[:1], "one bias per filter")
    strides, dilations = pair("stride", stride, 1), pair("dilation", dilation, 1)
    sides = _sides(padding, weight.shape[2:], strides, dilations)
    return operators.conv2d(input, weight, bias, strides, sides, dilations, groups)


def conv2d_pool(
    input: Any, weight: Any, bias: Any, padding: Pair | str, kernel_size: tuple[int, int]
) -> Any:
    """Return the max-pool of the ReLU of a convolution.

    The caller checks the arguments: the convolution has neither strides nor dilation nor groups,
    and the pool's windows do not overlap and leave no gaps.
    """
    geometry = _conv2d_pool_geometry(weight, padding, kernel_size)
    return operators.conv2d_pool(input, weight, bias, *geometry)[0]


def is_conv2d_pool_fused(
    input: Any, weight: Any, padding: Pair | str, kernel_size: tuple[int, int]
) -> bool:
    """Return whether one kernel computes `conv2d_pool` of float32 on a CPU."""
    F, C, KH, KW = weight.shape
    geometry = _conv2d_pool_geometry(weight, padding, kernel_size)
    size = tuple(input.shape[2:])
    return operators.is_conv2d_pool_fused(size, (F, KH, KW, C), *geometry)


def _conv2d_pool_geometry(
    weight: Any, padding: Pair | str, kernel_size: tuple[int, int]
) -> tuple[tuple[int, ...], ...]:
    sides = tuple(_sides(padding, weight.shape[2:], (1, 1), (1, 1)))
    return (1, 1), sides, (1, 1), kernel_size


def max_pool2d(
    input: Any,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Return the maximum of every window of input and, with `return_indices`, where it is.

    Parameters
    ----------
    input : tensor (N, C, H, W)
    kernel_size : int or (h, w)
        Taps of the window.
    stride : int or (h, w), optional
        Pixels between neighbouring windows; the kernel's size by default.
    padding : int or (h, w)
        Pixels around the image, which are never a maximum.
    dilation : int or (h, w)
        Pixels between neighbouring taps.
    ceil_mode : bool
        Round the number of windows up.
    return_indices : bool
        Return the indices, too.

    Returns
    -------
    tensor (N, C, OH, OW)
    indices : int64 tensor (N, C, OH, OW)
        ih*W + iw of each maximum. Only with `return_indices`.

    Raises
    ------
    TypeError, ValueError
        If dtype, shape or parameters do not fit.
    """
    input = autocast.for_kernel(input)
    checks.input(input)
    checks.shape("input", input, ("N", "C", "H", "W"), "images")
    kernel = pair("kernel_size", kernel_size, 1)
    window = (
        kernel,
        pool_stride(stride, kernel),
        pair("padding", padding, 0),
        pair("dilation", dilation, 1),
        ceil_mode,
    )
    y, argmax = operators.max_pool2d(input, *window)
    if not return_indices:
        return y
    return y, operators.pool_indices(argmax, *input.shape[2:], *window)


def batch_norm(
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """Normalise input over all axes but its second, then scale by weight and shift by bias.

    Parameters
    ----------
    input : tensor (N, C, ...)
        Two dimensions or more.
    running_mean, running_var : tensor (C,) or None
        With `training`, moved in place where given: running = (1 - momentum) * running +
        momentum * batch, the variance unbiased. Without, used instead of the batch's.
    weight, bias : tensor (C,), optional
        1 and 0 where not given.
    training : bool
        Normalise by the batch's own mean and biased variance.
    momentum : float
        In [0, 1].
    eps : float
        Added to the variance.

    Returns
    -------
    tensor (N, C, ...)

    Raises
    ------
    TypeError, ValueError
        If dtypes, devices, shapes or parameters do not fit, or a batch to train on has only one
        value per channel.
    """
    given = autocast.for_kernel(input)
    input, mean, var, weight, bias = autocast.to_float32(
        given, running_mean, running_var, weight, bias
    )
    checks.input(input)
    if input.ndim < 2:
        raise ValueError(f"input: got shape {tuple(input.shape)}, expected (N, C, ...)")
    C = input.shape[1]
    if training and math.prod((input.shape[0], *input.shape[2:])) == 1:
        raise ValueError(
            f"input: got shape {tuple(input.shape)}, "
            "expected more than one value per channel to train on"
        )
    statistics = {"running_mean": mean, "running_var": var}
    for name, tensor in {**statistics, "weight": weight, "bias": bias}.items():
        if tensor is not None:
            checks.like(name, tensor, input)
            checks.shape(name, tensor, (C,), "one value per channel")
        elif name in statistics and not training:
            raise ValueError(f"{name}: got None, expected a tensor where training is not set")
    zeros, ones = input.new_zeros(C), input.new_ones(C)
    y, *_, moved_mean, moved_var = operators.batch_norm(
        input,
        ones if weight is None else weight,
        zeros if bias is None else bias,
        zeros if mean is None else mean,
        ones if var is None else var,
        training,
        momentum,
        eps,
    )
    if training and running_mean is not None:
        running_mean.copy_(moved_mean)
    if training and running_var is not None:
        running_var.copy_(moved_var)
    return y.to(given.dtype)


def layer_norm(
    input: Any,
    normalized_shape: Sequence[int],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Any:
    """Normalise input over its last axes, then scale by weight and shift by bias.

    Parameters
    ----------
    input : tensor (..., *normalized_shape)
    normalized_shape : sequence of int
        Lengths of the axes to normalise over.
    weight, bias : tensor (*normalized_shape), optional
        1 and 0 where not given.
    eps : float
        Added to the variance, which is the biased one.

    Returns
    -------
    tensor
        Of input's shape.

    Raises
    ------
    TypeError, ValueError
        If dtypes, devices, shapes or eps do not fit.
    """
    input, weight, bias = autocast.to_float32(input, weight, bias)
    checks.input(input)
    if not isinstance(normalized_shape, Sequence):
        raise TypeError(
            f"normalized_shape: got {shown(normalized_shape)}, expected a sequence of lengths"
        )
    shape = tuple(normalized_shape)
    batch = input.ndim - len(shape)
    if not math.prod(shape) or not shape or batch < 0 or tuple(input.shape[batch:]) != shape:
        raise ValueError(
            f"normalized_shape: got {shape}, expected the lengths of the last axes of "
            f"{tuple(input.shape)}, input's, none of them 0"
        )
    for name, tensor in {"weight": weight, "bias": bias}.items():
        if tensor is not None:
            checks.like(name, tensor, input)
            checks.shape(name, tensor, shape, "one value for each that is normalised")
    C = math.prod(shape)
    y, *_ = operators.layer_norm(
        input.reshape(math.prod(input.shape[:batch]), C),
        input.new_ones(C) if weight is None else weight.reshape(C),
        input.new_zeros(C) if bias is None else bias.reshape(C),
        eps,
    )
    return y.reshape(input.shape)


def dense(input: Any, weight: Any, bias: Any = None) -> Any:
    """Return input @ weight.T + bias; in PyTorch, `linear`.

    Parameters
    ----------
    input : tensor (..., in)
    weight : tensor (out, in)
    bias : tensor (out,), optional

    Returns
    -------
    tensor (..., out)

    Raises
    ------
    TypeError, ValueError
        If dtypes, devices or shapes do not fit.
    """
    input, weight, bias = autocast.for_product(input, weight, bias)
    checks.input(input)
    if input.ndim == 0:
        raise ValueError("input: got shape (), expected (..., in)")
    *batch, inputs = input.shape
    checks.like("weight", weight, input)
    checks.shape("weight", weight, ("out", inputs), "one row per output")
    if bias is not None:
        checks.like("bias", bias, input)
        checks.shape("bias", bias, weight.shape[:1], "one bias per output")
    if len(batch) == 1:
        return operators.dense(input, weight, bias)
    y = operators.dense(input.reshape(math.prod(batch), inputs), weight, bias)
    return y.reshape(*batch, weight.shape[0])


def softmax_cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """Return the cross-entropy of softmax(input) with classes; in PyTorch, `cross_entropy`.

    Parameters
    ----------
    input : tensor (N, C)
        Logits.
    target : integer tensor (N,)
        Classes. A row with `ignore_index` counts nothing; one whose class is otherwise outside
        [0, C) gives NaN.
    weight : tensor (C,), optional
        Weight of each class; it gets no gradient.
    ignore_index : int
        Class that does not count.
    reduction : {"mean", "sum", "none"}
        "mean" divides by the summed weights of the rows that count.
    label_smoothing : float
        In [0, 1]: the share of the target spread over all classes.

    Returns
    -------
    tensor ()
        (N,) for "none".

    Raises
    ------
    TypeError, ValueError
        If dtypes, devices, shapes or parameters do not fit, or weight requires a gradient.
    """
    input, weight = autocast.to_float32(input, weight)
    checks.input(input)
    checks.shape("input", input, ("N", "C"), "one row per example")
    checks.tensor("target", target, input)
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise TypeError(f"target: got {target.dtype}, expected classes of an integer type")
    checks.shape("target", target, input.shape[:1], "one class per row")
    if weight is not None:
        checks.like("weight", weight, input)
        checks.shape("weight", weight, input.shape[1:], "one weight per class")
        if weight.requires_grad:
            raise ValueError("weight: requires a gradient, expected one that does not")
    options = (ignore_index, reduction, label_smoothing)
    return operators.softmax_cross_entropy(input, target, weight, *options)[0]


def _sides(
    padding: Pair | str, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> list[int]:
    """Return a padding as its top, bottom, left and right."""
    if isinstance(padding, str):
        if padding not in ("valid", "same"):
            raise ValueError(
                f"padding: got {padding!r}, expected a whole number, (h, w), 'valid' or 'same'"
            )
        if padding == "valid":
            return [0, 0, 0, 0]
        if stride != (1, 1):
            raise ValueError(f"stride: got {stride}, expected 1 with padding 'same'")
        sums = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return [side for both in sums for side in (both // 2, both - both // 2)]
    h, w = pair("padding", padding, 0)
    return [h, h, w, w]
