"""CuPy on a real or the emulated GPU, and fixtures for tests that need the emulated one."""

import gc

import numpy as np
import pytest

from kernels.runtime.cuda import unavailable
from tests.gpu import build, device
from tests.gpu.machine_api import Machine


@pytest.fixture(scope="module")
def machine():
    """A machine that runs PTX."""
    return Machine(str(build.build().library))


@pytest.fixture(scope="session")
def cupy():
    """CuPy on a GPU."""
    reason = unavailable()
    if reason is not None:
        pytest.skip(reason)
    import cupy

    return cupy


@pytest.fixture(scope="session")
def emulated(cupy):
    """CuPy on the emulated GPU, which reports what a real one cannot."""
    if device.real_gpu():
        pytest.skip("the GPU is a real one")
    return cupy


@pytest.fixture
def stream(cupy):
    """A stream that the legacy one does not wait for, made current."""
    gc.collect()  # arrays of earlier tests' tracebacks: freed in a capture, they would end it
    with cupy.cuda.Stream(non_blocking=True) as current:
        yield current
        if current.is_capturing():
            current.end_capture()


@pytest.fixture
def x(cupy):
    """An array of ten numbers."""
    return cupy.asarray(np.arange(10, dtype=np.float32))


@pytest.fixture(scope="session")
def double(cupy):
    """A kernel that doubles n numbers, called with (x, n) or as a launch of its own shape."""
    text = """
    extern "C" __global__ void twice(float *x, int n) {
        const int i = blockIdx.x * blockDim.x + threadIdx.x;
        if (i < n) x[i] *= 2;
    }
    """
    return cupy.RawKernel(text, "twice")
