"""Which of CuPy's own tests are left out on the emulated GPU, and why.

Left out besides are those that CuPy's tests themselves skip; the runner tells their reasons.
"""

#: Files below CuPy's tests/cupy_tests, as patterns of `fnmatch`.
BY_FILE = {
    "of a library of NVIDIA's beside CUDA's runtime": [
        "cuda_tests/test_cublas.py",
        "cuda_tests/test_cufft.py",
        "cuda_tests/test_curand.py",
        "cuda_tests/test_cusolver.py",
        "cuda_tests/test_cusparse.py",
        "cuda_tests/test_cutensor.py",
        "cuda_tests/test_nccl.py",
        "fft_tests/*",
        "linalg_tests/test_decomposition.py",
        "linalg_tests/test_eigenvalue.py",
        "linalg_tests/test_solve.py",
        "random_tests/*",
        "test_cublas.py",
    ],
    "of textures, which are not supported": [
        "cuda_tests/test_texture.py",
    ],
    "of cupy.testing, which needs no GPU": [
        "testing_tests/*",
    ],
}

#: By pytest mark.
BY_MARK = {
    "slow": "are marked as slow",
    "multi_gpu": "need several GPUs",
}

#: By what their failure says, a regular expression.
BY_MESSAGE = {
    "need a library of NVIDIA's beside CUDA's runtime": 'Failure finding "libcu',
    "launch blocks that wait for each other, which is not supported": "operand %envreg2",
    "call Thrust, whose kernels in CuPy's wheel are machine code": (
        r"\w+:? failed:? .*cudaErrorInvalidDevice"
    ),
    "load machine code: the device takes PTX": r"the module is machine code \(a cubin\)",
    # By CUDA's rules these two are faults of CuPy, though GPUs run them.
    "have some threads of a block return before a barrier of the others, which is reported": (
        r"cupy_inclusive_batch_scan_kernel, block \(.*\): threads? .* waits? at the barrier"
    ),
    "order accesses to shared memory by shuffles alone, which is reported as a race": (
        r"cupy_nonzero_kernel_incomplete_scan, block .* races with thread"
    ),
}

#: By the names that pytest gives them, as patterns of `fnmatch`.
BY_NAME: dict[str, list[str]] = {
    "read memory that nobody has written, which is reported": [
        "core_tests/test_elementwise.py::TestElementwise::test_copy_orders",
        "core_tests/test_ndarray.py::TestNdarrayDeepCopy*::test_deepcopy",
    ],
    "need CuPy's memory pool, which is off: every array has bounds of its own": [
        "statistics_tests/test_order.py::TestQuantile::test_percentile_memory_access",
    ],
    "call CUB, whose kernels in CuPy's wheel are machine code": [
        "*::TestCubReduction*device*",
        "statistics_tests/test_histogram.py::TestCubHistogram::*",
    ],
    # A binary search among NaNs alone: a read past the end, in memory that a GPU has.
    "read outside of an array, which is reported": [
        "statistics_tests/test_histogram.py::TestDigitizeNanInf*::test_digitize_all_nan_bins",
    ],
    "have nvcc compile, for which its own headers must be installed": [
        "core_tests/test_raw.py::*NVCC*",
        "core_tests/test_include.py::*::test_nvcc",
    ],
    "expect an older NVRTC": [
        "core_tests/test_raw.py::TestRaw::test_dynamical_parallelism_compile_failure*",
    ],
    "start another Python, which knows of no emulated GPU": [
        "core_tests/test_raw.py::TestRawPicklable::*",
        "test_init.py::TestAvailable::*",
    ],
}
