"""Which of CuPy's own tests run on the emulated GPU, and which are left out and why.

Left out besides are those that CuPy's tests themselves skip; the runner tells their reasons.
"""

#: The files that run, below CuPy's tests/cupy_tests.
FILES = """
core_tests/test_array_function.py core_tests/test_bfloat16.py core_tests/test_carray.py
core_tests/test_core.py core_tests/test_cub_reduction.py core_tests/test_dlpack.py
core_tests/test_elementwise.py core_tests/test_flags.py core_tests/test_function.py
core_tests/test_gufuncs.py core_tests/test_include.py core_tests/test_internal.py
core_tests/test_iter.py core_tests/test_mdspan.py core_tests/test_multithreading.py
core_tests/test_ndarray.py core_tests/test_ndarray_adv_indexing.py
core_tests/test_ndarray_byteswap.py core_tests/test_ndarray_complex_ops.py
core_tests/test_ndarray_contiguity.py core_tests/test_ndarray_conversion.py
core_tests/test_ndarray_copy_and_view.py core_tests/test_ndarray_cuda_array_interface.py
core_tests/test_ndarray_elementwise_op.py core_tests/test_ndarray_get.py
core_tests/test_ndarray_indexing.py core_tests/test_ndarray_math.py
core_tests/test_ndarray_owndata.py core_tests/test_ndarray_reduction.py
core_tests/test_ndarray_scatter.py core_tests/test_ndarray_ufunc.py
core_tests/test_ndarray_unary_op.py core_tests/test_nep50_examples.py core_tests/test_raw.py
core_tests/test_reduction.py core_tests/test_scan.py core_tests/test_structured.py
core_tests/test_syncdetect.py core_tests/test_ufunc_methods.py core_tests/test_userkernel.py
core_tests/fusion_tests/test_array.py core_tests/fusion_tests/test_misc.py
core_tests/fusion_tests/test_reduction.py core_tests/fusion_tests/test_routines.py
cuda_tests/test_compiler.py cuda_tests/test_device.py cuda_tests/test_driver.py
cuda_tests/test_graph.py cuda_tests/test_memory.py cuda_tests/test_memory_hook.py
cuda_tests/test_nvrtc.py cuda_tests/test_pinned_memory.py cuda_tests/test_profile.py
cuda_tests/test_runtime.py cuda_tests/test_stream.py
indexing_tests/test_generate.py indexing_tests/test_indexing.py indexing_tests/test_insert.py
indexing_tests/test_iterate.py creation_tests/test_basic.py creation_tests/test_ranges.py
manipulation_tests/test_join.py manipulation_tests/test_tiling.py
logic_tests/test_comparison.py logic_tests/test_truth.py math_tests/test_arithmetic.py
math_tests/test_rounding.py math_tests/test_sumprod.py sorting_tests/test_search.py
statistics_tests/test_order.py statistics_tests/test_meanvar.py
""".split()

#: By pytest mark.
BY_MARK = {
    "slow": "are marked as slow",
    "multi_gpu": "need several GPUs",
}

#: By what their failure says, a regular expression.
BY_MESSAGE = {
    "need a library of NVIDIA's beside CUDA's runtime": 'Failure finding "libcu',
    "launch blocks that wait for each other, which is not supported": "operand %envreg2",
    "load machine code: the device takes PTX": r"the module is machine code \(a cubin\)",
    # By CUDA's rules these two are faults of CuPy, though GPUs run them.
    "have some threads of a block return before a barrier of the others, which is reported": (
        r"cupy_inclusive_batch_scan_kernel, block \(.*\): threads .* wait at the barrier"
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
    "have nvcc compile, for which its own headers must be installed": [
        "core_tests/test_raw.py::*NVCC*",
        "core_tests/test_include.py::*::test_nvcc",
    ],
    "expect an older NVRTC": [
        "core_tests/test_raw.py::TestRaw::test_dynamical_parallelism_compile_failure*",
    ],
    "start another Python, which knows of no emulated GPU": [
        "core_tests/test_raw.py::TestRawPicklable::*",
    ],
}
