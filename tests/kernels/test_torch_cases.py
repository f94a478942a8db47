"""Every function that is in the table beside PyTorch's, in float64, on all its sizes."""

import pytest
import torch
from torch.nn import functional

import kernels.torch
from tests.cases import BESIDE_PYTORCH, CASES
from tests.lib.comparison import assert_close
from tests.lib.support import RTOL


@pytest.mark.parametrize("name, why", BESIDE_PYTORCH)
def test_equals_pytorch(name, why):
    case = CASES[name]
    call = case.call(case.sizes[why])
    run, read = case.peer(torch, call.arrays, call.options)
    expected = case.expected(call)[: case.results]
    for found, wanted in zip(read(run()), expected, strict=True):
        assert_close(found, wanted, rtol=RTOL[case.coarsest])


DIFFERENTIATED = [
    (name, why)
    for name, why in BESIDE_PYTORCH
    if CASES[name].functional
    and hasattr(kernels.torch, name)
    and why in CASES[f"{name}_backward"].sizes
]


@pytest.mark.parametrize("name, why", DIFFERENTIATED)
def test_the_function_of_tensors(name, why):
    """Values and gradients of `kernels.torch`."""
    case = CASES[name]
    call = case.call(case.sizes[why])

    def values_and_gradients(module):
        tensors = [torch.from_numpy(array).requires_grad_() for array in call.cast().values()]
        y = case.functional(module, *tensors, **call.options)
        y.backward(torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape))
        return [y.detach(), *(tensor.grad for tensor in tensors)]

    ours, theirs = map(values_and_gradients, (kernels.torch, functional))
    for found, expected in zip(ours, theirs, strict=True):
        assert_close(found.numpy(), expected.numpy(), rtol=case.rounding * RTOL["float64"])
