"""Tolerances, arrays and hypothesis strategies for the tests of the kernels."""

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

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


@st.composite
def windows(draw, pool=False):
    """Draw an image's (H, W), a kernel and the options of a window that fits it."""
    kernel, dilation = draw(_pairs(1, 4)), draw(_pairs(1, 3))
    extents = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    most = [extent - 1 if pool else 4 for extent in extents]
    form = draw(st.sampled_from(["int", "pair", "sides", "same", "valid"]))
    if form == "int":
        padding = draw(st.integers(0, min(most)))
        pads = (padding, padding), (padding, padding)
    elif form == "pair":
        padding = tuple(draw(st.integers(0, limit)) for limit in most)
        pads = tuple((side, side) for side in padding)
    elif form == "sides":
        padding = tuple(draw(st.tuples(*[st.integers(0, limit)] * 2)) for limit in most)
        pads = padding
    else:
        padding, pads = form, ((0, 0), (0, 0))
    stride = draw(_pairs(1, 4))
    options = {"stride": _short(stride), "padding": padding, "dilation": _short(dilation)}
    hanging = (0, 0)
    if pool:
        options["ceil_mode"] = draw(st.booleans())
        if draw(st.booleans()):
            options["stride"], stride = None, kernel
        if options["ceil_mode"]:  # the only window may be larger than the padded image
            hanging = tuple(step - 1 for step in stride)
    least = [
        1 if form == "same" else max(1, extent - before - after - over)
        for extent, (before, after), over in zip(extents, pads, hanging, strict=True)
    ]
    size = tuple(draw(st.integers(length, length + 6)) for length in least)
    return size, _short(kernel), options


def _pairs(least, most):
    return st.tuples(st.integers(least, most), st.integers(least, most))


def _short(pair):
    """Return an int where both of a pair are equal."""
    return pair[0] if pair[0] == pair[1] else pair
