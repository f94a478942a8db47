"""Every function that is in the table beside PyTorch's, in float64, on all its sizes."""

import pytest
import torch
from torch.nn import functional

import kernels.torch
from tests.cases import CASES, TRIED
from tests.lib.comparison import assert_close
from tests.lib.support import RTOL


@pytest.mark.parametrize("name, why", TRIED)
def test_equals_pytorch(name, why):
    case = CASES[name]
    arrays = case.arrays(**case.sizes[why])
    results = case.peer(torch, {key: torch.from_numpy(array) for key, array in arrays.items()})()
    results = results if isinstance(results, tuple) else (results,)
    expected = case.expected(arrays)[: case.results]
    for found, wanted in zip(results, expected, strict=True):
        assert_close(found.numpy(), wanted, rtol=RTOL["float64"])


DIFFERENTIATED = [
    (name, why)
    for name, why in TRIED
    if CASES[name].functional
    and hasattr(kernels.torch, name)
    and why in CASES[f"{name}_backward"].sizes
]


@pytest.mark.parametrize("name, why", DIFFERENTIATED)
def test_the_function_of_tensors(name, why):
    """Values and gradients of `kernels.torch`."""
    case = CASES[name]

    def values_and_gradients(module):
        arrays = case.arrays(**case.sizes[why]).values()
        tensors = [torch.from_numpy(array).requires_grad_() for array in arrays]
        y = case.functional(module, *tensors)
        y.backward(torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape))
        return [y.detach(), *(tensor.grad for tensor in tensors)]

    ours, theirs = map(values_and_gradients, (kernels.torch, functional))
    for found, expected in zip(ours, theirs, strict=True):
        assert_close(found.numpy(), expected.numpy(), rtol=case.rounding * RTOL["float64"])
