"""Tolerances and arrays for the tests of the kernels, and for the benchmarks."""

import ml_dtypes
import numpy as np

#: Sources that only `cpu` launches, though they compile for a GPU, too.
CPU_ONLY = ("conv/conv2d_pool.cu", "common/reduce.cu")
#: Floating types that a GPU takes and a CPU does not.
NARROW = ("float16", "bfloat16")

#: Relative to the largest reference value: rounding of sums over a few thousand terms.
RTOL = {"float32": 2e-5, "float64": 1e-12}
# Of the narrow types: arguments are rounded, and results once, to half a unit of the last place.
RTOL |= {"float16": 2**-10, "bfloat16": 2**-7}


def unit_roundoff(dtype):
    """Return the largest relative error of a number rounded to a floating type."""
    return float(ml_dtypes.finfo(dtype).eps) / 2


#: Around the eight channels that a cpu kernel takes at a time, with a tail of one and of seven.
CHANNELS = [1, 7, 8, 9, 24, 33]


def host(array):
    """Return a NumPy or CuPy array as a NumPy one, of its own dtype."""
    return array.get() if hasattr(array, "get") else array


def numbers(array):
    """Return an array as float64, which holds every value of every type, for exact comparisons."""
    return host(array).astype(np.float64)


def normal(seed, *shape, dtype=np.float64):
    """Return normally distributed values: a function of the arguments alone."""
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)
