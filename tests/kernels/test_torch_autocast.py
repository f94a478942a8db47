"""`kernels.torch` under `torch.autocast`, beside PyTorch's own functions.

PyTorch sees no emulated GPU. Fake tensors tell the types of results there without computing them;
values and gradients on a GPU are tested only where there is one.
"""

from contextlib import contextmanager
from typing import NamedTuple

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

import kernels.torch

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64


class Arguments(NamedTuple):
    """Of all functions: inputs, parameters, labels."""

    images: torch.Tensor
    rows: torch.Tensor
    filters: torch.Tensor
    matrix: torch.Tensor
    biases: torch.Tensor
    mean: torch.Tensor
    var: torch.Tensor
    labels: torch.Tensor


def arguments(device, inputs, parameters=F32):
    """Return arguments whose inputs have one type and whose parameters another."""
    torch.manual_seed(0)
    drawn = [torch.randn(shape, device=device) for shape in ((3, 4, 5, 6), (3, 4))]
    parts = [torch.randn(shape, device=device) for shape in ((4, 4, 3, 3), (4, 4), 4, 4)]
    parts.append(torch.rand(4, device=device) + 0.5)
    chosen = [*(x.to(inputs) for x in drawn), *(p.to(parameters) for p in parts)]
    return Arguments(*chosen, torch.arange(3, device=device))


def results(lib, a):
    """Return what each function of kernels.torch, or its namesake in PyTorch, is called with."""
    ours = lib is kernels.torch
    dense = lib.dense if ours else lib.linear
    cross_entropy = lib.softmax_cross_entropy if ours else lib.cross_entropy
    statistics = a.mean, a.var
    return {
        "conv2d": lambda: lib.conv2d(a.images, a.filters, a.biases, padding=1),
        "dense": lambda: dense(a.rows, a.matrix, a.biases),
        "max_pool2d": lambda: lib.max_pool2d(a.images, 2),
        "batch_norm": lambda: lib.batch_norm(a.images, *statistics, a.var, a.biases),
        "softmax_cross_entropy": lambda: cross_entropy(a.rows, a.labels),
        "softmax_cross_entropy, weighted": lambda: cross_entropy(a.rows, a.labels, a.var),
    }


NAMES = list(results(functional, arguments("cpu", F32)))
every_function = pytest.mark.parametrize("name", NAMES)
every_input = pytest.mark.parametrize("inputs", [F32, F16, BF16], ids=str)


@contextmanager
def autocast(device, dtype):
    """As torch.autocast, which refuses to turn it on for a GPU that is not there."""
    if device == "cpu" or torch.cuda.is_available():
        with torch.autocast(device, dtype):
            yield
        return
    before = torch.get_autocast_dtype(device)
    torch.set_autocast_enabled(device, True)
    torch.set_autocast_dtype(device, dtype)
    try:
        yield
    finally:
        torch.set_autocast_dtype(device, before)
        torch.set_autocast_enabled(device, False)


@every_function
@every_input
@pytest.mark.parametrize("dtype", [F16, BF16], ids=str)
def test_types_on_a_gpu_are_those_of_pytorch(dtype, inputs, name):
    with FakeTensorMode(), autocast("cuda", dtype):
        ours, theirs = (
            results(lib, arguments("cuda", inputs))[name]() for lib in (kernels.torch, functional)
        )
    assert (ours.dtype, ours.shape, ours.device) == (theirs.dtype, theirs.shape, theirs.device)
    expected = {"conv2d": dtype, "dense": dtype, "max_pool2d": inputs, "batch_norm": inputs}
    assert ours.dtype == expected.get(name, F32)


@every_function
@every_input
def test_on_a_cpu_all_is_float32(inputs, name):
    """The bits are those that float32 arguments of the same values give."""
    a = arguments("cpu", inputs)
    with autocast("cpu", BF16):
        y = results(kernels.torch, a)[name]()
    wide = Arguments(*(x.float() if x.is_floating_point() else x for x in a))
    torch.testing.assert_close(y, results(kernels.torch, wide)[name](), rtol=0, atol=0)
    assert y.dtype == F32 and y.any()


@every_function
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_float64_stays(device, name):
    with FakeTensorMode(), autocast(device, BF16):
        assert results(kernels.torch, arguments(device, F64, F64))[name]().dtype == F64


@pytest.mark.parametrize("name", ["conv2d", "dense", "batch_norm"])
def test_float64_beside_what_is_cast_is_refused_as_in_pytorch(name):
    a = arguments("cpu", F64)
    with autocast("cpu", BF16):
        with pytest.raises(RuntimeError):
            results(functional, a)[name]()
        sentence = "got torch.float32, expected torch.float64 like input$"
        with pytest.raises(TypeError, match=sentence):
            results(kernels.torch, a)[name]()


def test_what_is_no_tensor_is_refused_as_without_autocast():
    with autocast("cpu", BF16):
        for function in (kernels.torch.max_pool2d, kernels.torch.dense):
            with pytest.raises(TypeError, match="^input: got list, expected a torch.Tensor$"):
                function([1.0], 2)


@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
def test_running_statistics_move_in_place(dtype):
    a = arguments("cpu", BF16)
    running = a.mean.to(dtype), a.var.to(dtype)
    expected = [x.float() for x in running]
    functional.batch_norm(a.images.float(), *expected, training=True)
    with autocast("cpu", BF16):
        kernels.torch.batch_norm(a.images, *running, training=True)
    for found, moved in zip(running, expected, strict=True):
        torch.testing.assert_close(found, moved.to(dtype))
        assert found.dtype == dtype


def loss(images, labels, filters, gamma, matrix):
    """Layers of ours and of PyTorch's in turns."""
    x = kernels.torch.conv2d(images, filters, padding="same")
    x = functional.conv2d(x, filters, padding=1)
    x = kernels.torch.batch_norm(x, None, None, gamma, training=True)
    x = kernels.torch.max_pool2d(x.relu(), 2).mean((2, 3))
    x = kernels.torch.dense(functional.linear(x, matrix), matrix)
    return kernels.torch.softmax_cross_entropy(x, labels)


no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=no_gpu)])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler, while it loads
def test_gradients_through_layers_of_both(compiled, device):
    a = arguments(device, F32)
    leaves = [x.requires_grad_() for x in (a.filters, a.var, a.matrix)]
    call = torch.compile(loss, fullgraph=True, backend="aot_eager") if compiled else loss
    exact = torch.autograd.grad(loss(a.images, a.labels, *leaves), leaves)
    with autocast(device, BF16):
        y = call(a.images, a.labels, *leaves)
    assert y.dtype == F32
    for found, expected in zip(torch.autograd.grad(y, leaves), exact, strict=True):
        # Two of the layers, on a GPU four, round what they multiply to the 8 bits of bfloat16.
        atol = 2**-5 * expected.abs().max().item()
        torch.testing.assert_close(found, expected, rtol=0, atol=atol)
        assert found.any()
