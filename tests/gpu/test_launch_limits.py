"""Launches that the device cannot take, and what kernels take of it."""

import numpy as np
import pytest

from tests.gpu.codes import raises
from tests.lib import nvrtc
from tests.lib.kernel_resources import SOURCES

TEXT = r"""
extern "C" __global__ void plain(float *x) { x[threadIdx.x] = 1; }
extern "C" __global__ void shares(float *x) {
    extern __shared__ float s[];
    s[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = s[blockDim.x - 1 - threadIdx.x];
}
extern "C" __global__ void __launch_bounds__(64) bounded(float *x) { x[threadIdx.x] = 1; }
// Ninety values that live side by side.
extern "C" __global__ void greedy(float *x) {
    float v[90];
    #pragma unroll
    for (int i = 0; i < 90; i++) v[i] = x[i * 1024 + threadIdx.x];
    __syncthreads();
    float sum = 0;
    #pragma unroll
    for (int i = 0; i < 90; i++) sum = sum * v[i] + v[89 - i];
    x[threadIdx.x] = sum;
}
"""


@pytest.fixture(scope="module")
def kernel(cupy):
    """The kernel of a name."""
    return cupy.RawModule(code=TEXT).get_function


@pytest.mark.parametrize(
    ("grid", "block"),
    [
        ((1,), (1025,)),
        ((1,), (32, 33)),
        ((1,), (1, 1, 65)),
        ((1, 65536), (1,)),
        ((1, 1, 65536), (1,)),
    ],
)
def test_a_launch_beyond_the_limits_of_every_gpu_is_refused(cupy, kernel, x, grid, block):
    with raises(cupy, "CUDA_ERROR_INVALID_VALUE"):
        kernel("plain")(grid, block, (x,))


def test_the_report_names_the_kernel_and_the_limit(emulated, kernel, x):
    with raises(emulated, "CUDA_ERROR_INVALID_VALUE", "plain", "(1025, 1, 1)", "1024"):
        kernel("plain")((1,), (1025,), (x,))


def test_no_blocks_or_threads_are_an_error(cupy, kernel, x):
    pointer = kernel("plain").kernel.ptr
    for grid, block in ((0, 1), (1, 0)):
        with raises(cupy, "CUDA_ERROR_INVALID_VALUE"):
            cupy.cuda.driver.launchKernel(pointer, grid, 1, 1, block, 1, 1, 0, 0, 0, 0)


def test_more_than_48_kib_of_shared_memory_must_be_opted_into(cupy, kernel):
    x = cupy.zeros(32, np.float32)
    function = kernel("shares")
    assert function.max_dynamic_shared_size_bytes == 48 * 1024
    with raises(cupy, "CUDA_ERROR_INVALID_VALUE"):
        function((1,), (32,), (x,), shared_mem=48 * 1024 + 1)
    function.max_dynamic_shared_size_bytes = 60 * 1024
    function((1,), (32,), (x,), shared_mem=60 * 1024)
    with raises(cupy, "CUDA_ERROR_INVALID_VALUE"):
        function((1,), (32,), (x,), shared_mem=61 * 1024)


def test_nobody_can_opt_into_more_than_a_block_can_have(cupy, kernel):
    most = cupy.cuda.Device().attributes["MaxSharedMemoryPerBlockOptin"]
    with raises(cupy, "CUDA_ERROR_INVALID_VALUE"):
        kernel("shares").max_dynamic_shared_size_bytes = most + 1


def test_launch_bounds_are_bounds(cupy, kernel):
    x = cupy.zeros(128, np.float32)
    kernel("bounded")((1,), (64,), (x,))
    with raises(cupy, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"):
        kernel("bounded")((1,), (128,), (x,))


def test_registers_limit_the_threads_of_a_block(cupy, kernel):
    x = cupy.ones(90 * 1024, np.float32)
    function = kernel("greedy")
    assert function.num_regs > 64
    assert 256 <= function.max_threads_per_block < 1024
    function((1,), (function.max_threads_per_block,), (x,))
    with raises(cupy, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"):
        function((1,), (1024,), (x,))


def test_registers_are_those_of_nvrtcs_code(emulated):
    """Relocatable code, which nvJitLink makes, has 77 where this has 72 (sm_90), or 120 and 68."""
    source, entry = SOURCES["loss/softmax.cu"], "softmax_forward"
    text = nvrtc.specialised(source, "float32", entry, ROW_THREADS=32, ROW_SPANS=8)
    arch = f"sm_{emulated.cuda.Device().compute_capability}"
    expected = nvrtc.resources(nvrtc.compiled(text, source.name, arch).report)[entry]
    found = emulated.RawModule(code=text, options=("-std=c++17",)).get_function(entry)
    assert found.num_regs == expected.registers
    assert (found.local_size_bytes, found.shared_size_bytes) == (0, expected.shared)


def test_occupancy_is_that_of_the_calculator(cupy, kernel):
    driver, pointer = cupy.cuda.driver, kernel("shares").kernel.ptr
    device = cupy.cuda.Device().attributes
    threads = device["MaxThreadsPerMultiProcessor"]
    blocks = driver.occupancyMaxActiveBlocksPerMultiprocessor
    assert blocks(pointer, 256, 0) == threads // 256
    assert blocks(pointer, 256, 40 * 1024) < threads // 256


def test_a_module_that_is_no_ptx_is_refused(cupy):
    with raises(cupy, "CUDA_ERROR_INVALID_IMAGE"):
        cupy.cuda.driver.moduleLoadData(b"nonsense\0")
    with raises(cupy, "CUDA_ERROR_FILE_NOT_FOUND"):
        cupy.cuda.driver.moduleLoad("/nowhere.ptx")


def test_a_cubin_is_refused_with_what_to_do_about_it(emulated):
    with raises(emulated, "CUDA_ERROR_INVALID_IMAGE", "cubin", "CUPY_COMPILE_WITH_PTX"):
        emulated.cuda.driver.moduleLoadData(b"\x7fELF\2\1\1\0")


def test_a_kernel_that_is_not_there_is_named(cupy, kernel):
    with raises(cupy, "CUDA_ERROR_NOT_FOUND"):
        kernel("absent")
