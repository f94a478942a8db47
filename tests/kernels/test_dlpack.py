"""Arrays of NumPy and PyTorch in and out: without a copy where possible, else with one sentence."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import kernels
from kernels.runtime import checks, cuda


def test_pytorch_tensors_are_taken_without_a_copy():
    tensor = torch.randn(2, 5, 6, 3)
    channels_last = torch.randn(2, 3, 5, 6).to(memory_format=torch.channels_last)
    image = torch.randn(2, 1, 5, 6)  # one channel: NCHW and NHWC are the same memory
    for x in (tensor, channels_last.permute(0, 2, 3, 1), image.permute(0, 2, 3, 1)):
        _, (array,) = checks.arrays(x=x)
        assert array.ctypes.data == x.data_ptr()
        assert array.shape == x.shape


def test_pinned_memory_is_the_cpus():
    """PyTorch pins memory only with a GPU; here the array only says that it is pinned."""

    class Pinned:
        def __init__(self, tensor):
            self.__dlpack__ = tensor.__dlpack__

        def __dlpack_device__(self):
            return 3, 0  # kDLCUDAHost

    result = kernels.relu(Pinned(torch.tensor([-1.0, 2.0])))
    assert isinstance(result, np.ndarray) and result.tolist() == [0, 2]


def test_results_are_given_to_pytorch_without_a_copy():
    result = kernels.relu(torch.randn(2, 5, 6, 3))
    assert isinstance(result, np.ndarray)
    tensor = torch.from_dlpack(result)
    assert tensor.data_ptr() == result.ctypes.data
    tensor[...] = 7
    assert (result == 7).all()


def test_tensors_are_updated_in_place():
    param, grad, velocity = torch.ones(50), torch.full((50,), 2.0), torch.zeros(50)
    kernels.sgd_step(param, grad, velocity, lr=0.25, momentum=0.9)
    assert (param == 0.5).all() and (velocity == 2).all()


def test_an_update_in_place_refuses_a_tensor_that_is_no_block_of_memory():
    param = torch.ones(8)[::2]
    with pytest.raises(ValueError, match="^param: is updated in place, expected a C-contiguous"):
        kernels.sgd_step(param, torch.ones(4), lr=0.25)
    assert (param == 1).all()


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.permute(0, 2, 3, 1),  # NCHW: its channels are not last
        lambda x: x[:, :, ::2],
        lambda x: x[:1].expand(3, -1, -1, -1),  # strides of 0
    ],
    ids=["permuted", "strided", "expanded"],
)
def test_a_tensor_that_is_no_block_of_memory_gives_the_same_bits(view):
    x = view(torch.randn(2, 4, 6, 6))
    assert not x.is_contiguous()
    np.testing.assert_array_equal(kernels.softmax(x), kernels.softmax(x.contiguous()))


@pytest.mark.parametrize(
    "tensor, sentence",
    [
        (
            torch.ones(3, requires_grad=True),
            "NumPy cannot take it .*: Can't export tensors that re",
        ),
        (torch.ones(3, dtype=torch.bfloat16), "NumPy cannot take it .*: Unsupported dtype"),
        (torch.ones(3, dtype=torch.float16), "got float16 on cpu, expected float32 or float64"),
        (torch.ones(3, dtype=torch.int32), "got int32 on cpu, expected float32 or float64"),
        (torch.ones(3, dtype=torch.complex64).conj(), "NumPy cannot take it .*: Can't export"),
        (torch.ones(3, dtype=torch.complex64).conj().imag, "got a negated view, expected a tensor"),
        (torch.ones(3).to_sparse(), "NumPy cannot take it .*: Can't export tensors with layout"),
        (torch.ones(3, device="meta"), "NumPy cannot take it .*: Unknown device type meta"),
        (FakeTensorMode().from_tensor(torch.ones(3)), "got FakeTensor, expected a tensor of"),
    ],
    ids=[
        "gradient",
        "bfloat16",
        "float16",
        "int32",
        "conjugate",
        "negated",
        "sparse",
        "meta",
        "fake",
    ],
)
def test_a_tensor_that_cannot_be_taken_is_named(tensor, sentence):
    with pytest.raises(TypeError, match=f"^x: {sentence}") as caught:
        kernels.relu(tensor)
    assert "\n" not in str(caught.value)


def freed(tensor):
    """Free a tensor's memory, as FullyShardedDataParallel frees that of parameters; return it."""
    tensor.untyped_storage().resize_(0)
    return tensor


def functional():
    """Return a tensor as `torch.func.functionalize` passes it on."""
    seen = []
    torch.func.functionalize(lambda x: seen.append(x.clone()) or x)(torch.ones(3))
    return seen[0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: freed(torch.ones(3)),
        lambda: freed(torch.ones(4)[1:]),
        lambda: torch._efficientzerotensor((3,)),
        functional,
    ],
    ids=["freed", "view", "zero", "functional"],
)
def test_a_tensor_without_memory_is_refused(make):
    """In its place NumPy would take uninitialised memory, or an address near 0."""
    reason = "NumPy cannot take it through DLPack: (it has no memory|Attempted to access the data)"
    with pytest.raises(TypeError, match=f"^x: {reason}"):
        kernels.relu(make())
    with pytest.raises(TypeError, match=f"^param: {reason}"):
        kernels.sgd_step(make(), torch.ones(3), lr=1)


def test_an_owner_that_refuses_is_named():
    """Arrow's arrays refuse so if values are missing."""

    class Refusing:
        def __dlpack_device__(self):
            return 1, 0  # kDLCPU

        def __dlpack__(self, **options):
            raise TypeError("Can only use DLPack on arrays with no nulls.")

    message = "^x: NumPy cannot take it through DLPack: Can only use DLPack on arrays with no nulls"
    with pytest.raises(TypeError, match=message):
        kernels.relu(Refusing())


def test_read_only_numpy_arrays():
    """Read without a copy, and never written."""
    x = np.linspace(-1, 1, 40, dtype=np.float32)
    x.flags.writeable = False
    _, (array,) = checks.arrays(x=x)
    assert array is x
    tensor = torch.from_dlpack(kernels.relu(x))
    tensor += 1  # the result is writeable
    with pytest.raises(ValueError, match="^param: is updated in place, expected a writeable array"):
        kernels.sgd_step(x, x, lr=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gpu_tensors_are_shared_both_ways(dtype):
    """CuPy takes from PyTorch and gives back; each orders its stream after the other's."""
    reason = cuda.unavailable()
    if reason is not None or not torch.cuda.is_available():
        pytest.skip(reason or "PyTorch finds no GPU")
    x = torch.randn(1000, 1000, device="cuda", dtype=dtype).square() - 1
    _, (array,) = checks.arrays(x=x)
    assert array.data.ptr == x.data_ptr()
    result = kernels.relu(x)
    tensor = torch.from_dlpack(result)
    assert tensor.data_ptr() == result.data.ptr
    assert tensor.equal(x.relu())
