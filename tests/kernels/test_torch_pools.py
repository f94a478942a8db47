"""Pools of any window beside PyTorch's: which windows there are, their values and gradients."""

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch.nn import functional

import kernels
import kernels.torch
from cnn import AvgPool2D, MaxPool2D, Sequential
from kernels.torch import operators
from tests.lib.comparison import assert_close
from tests.lib.support import RTOL

pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))


@st.composite
def windows(draw):
    """Draw (H, W), often smaller than the window, and arguments that PyTorch's pools take."""
    kernel = draw(pairs)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    size = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    options = {"stride": draw(pairs), "padding": padding, "ceil_mode": draw(st.booleans())}
    return size, kernel, options


def results(pool, *arguments, **options):
    """Return what a pool gives and the gradient of its input, or None if it has no window."""
    try:
        y = pool(*arguments, **options)
    except (RuntimeError, ValueError) as error:
        assert "Output size is too small" in str(error) or "kernel: extends over" in str(error)
        return None
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    return y, dy, *torch.autograd.grad(y, arguments[0], dy)


def average(x, kernel, **options):
    """Return avg_pool2d of x (N, C, H, W), with its gradient."""
    count = options.pop("count_include_pad")

    class Average(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            of = {"count_include_pad": count, **options}
            y = kernels.avg_pool2d(x.detach().movedim(1, -1), kernel, **of)
            return torch.from_dlpack(y).movedim(-1, 1)

        @staticmethod
        def backward(ctx, dy):
            N, C, H, W = x.shape
            of = {"count_include_pad": count, **options}
            dx = kernels.avg_pool2d_backward(dy.movedim(1, -1), (N, H, W, C), kernel, **of)
            return torch.from_dlpack(dx).movedim(-1, 1)

    return Average.apply(x)


def assert_same(ours, theirs, x, kernel, **options):
    """Compare two pools; theirs is given float64."""
    found = results(ours, x.clone().requires_grad_(), kernel, **options)
    expected = results(theirs, x.double().requires_grad_(), kernel, **options)
    assert (found is None) == (expected is None)
    for actual, reference in zip(found or (), expected or (), strict=True):
        values = actual.detach().numpy(), reference.detach().numpy()
        assert_close(*values, rtol=RTOL["float32"])


@hypothesis.given(windows())
@hypothesis.settings(max_examples=200)
def test_max_pools(drawn):
    size, kernel, options = drawn
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    assert_same(kernels.torch.max_pool2d, functional.max_pool2d, x, kernel, **options)


@hypothesis.given(windows(), st.booleans())
@hypothesis.settings(max_examples=200)
def test_average_pools(drawn, count_include_pad):
    size, kernel, options = drawn
    options["count_include_pad"] = count_include_pad
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    assert_same(average, functional.avg_pool2d, x, kernel, **options)


def described(function):
    """Return shape, strides and dtype of each result, or the error."""
    try:
        return [(y.shape, y.stride(), y.dtype) for y in function()]
    except ValueError as error:
        return str(error)


@hypothesis.given(windows(), pairs)
@hypothesis.settings(max_examples=200)
def test_fake_results_are_like_the_real_ones(drawn, dilation):
    """So are refusals: PyTorch makes the graph that it compiles from the fakes."""
    size, kernel, options = drawn
    window = kernel, options["stride"], options["padding"], dilation, options["ceil_mode"]
    x = torch.zeros(2, 3, *size)
    real = described(lambda: operators.max_pool2d(x, *window))
    with torch._subclasses.FakeTensorMode() as mode:
        fake_x = mode.from_tensor(x)
        assert described(lambda: operators.max_pool2d(fake_x, *window)) == real

    of = options["stride"], [side for p in options["padding"] for side in (p, p)], dilation, 1
    w = torch.zeros(2, 3, *kernel)
    real = described(lambda: [operators.conv2d(x, w, None, *of)])
    with torch._subclasses.FakeTensorMode() as mode:
        fake_x, fake_w = mode.from_tensor(x), mode.from_tensor(w)
        assert described(lambda: [operators.conv2d(fake_x, fake_w, None, *of)]) == real


@pytest.mark.parametrize("layer", [MaxPool2D, AvgPool2D])
def test_layers_take_images_smaller_than_a_window(layer):
    model = Sequential([layer(3, 2, ceil_mode=True)], (2, 2, 1))
    assert model.output_shape == (1, 1, 1)
    x = np.array([1, 2, 3, 6], np.float32)
    y = model.predict(x.reshape(1, 2, 2, 1)).item()
    assert y == (6 if layer is MaxPool2D else 3)
