"""Every function that is in the table beside PyTorch's, in float64, on all its sizes.

The reason of the sizes that fail is the last line printed.
"""

import pytest
import torch
from torch.nn import functional

import kernels.torch
from tests.cases import CASES
from tests.lib.comparison import assert_close
from tests.lib.support import RTOL


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.beside_pytorch()])
def test_equals_pytorch(name):
    case = CASES[name]
    for why, sizes in case.beside_pytorch().items():
        print(why)
        call = case.call(sizes)
        run, read = case.peer(torch, call.arrays, call.options)
        expected = case.expected(call)[: case.results]
        for found, wanted in zip(read(run()), expected, strict=True):
            assert_close(found, wanted, rtol=RTOL[case.coarsest])


@pytest.mark.parametrize(
    "name",
    [name for name, case in CASES.items() if case.functional and hasattr(kernels.torch, name)],
)
def test_the_function_of_tensors(name):
    """Values and gradients of `kernels.torch`."""
    case, gradient = CASES[name], CASES[f"{name}_backward"]
    for why, sizes in case.beside_pytorch().items():
        if why not in gradient.sizes:
            continue
        print(why)
        call = case.call(sizes)

        def values_and_gradients(module, call=call):
            tensors = [torch.from_numpy(array).requires_grad_() for array in call.cast().values()]
            y = case.functional(module, *tensors, **call.options)
            y.backward(torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape))
            return [y.detach(), *(tensor.grad for tensor in tensors)]

        ours, theirs = map(values_and_gradients, (kernels.torch, functional))
        for found, expected in zip(ours, theirs, strict=True):
            assert_close(found.numpy(), expected.numpy(), rtol=case.rounding * RTOL["float64"])
