"""C's mathematical functions in a kernel of one's own, on every target."""

from __future__ import annotations

import ctypes
import ctypes.util
import re

import numpy as np
import pytest

from kernels.runtime import Source, Target
from kernels.runtime.program import PACKAGE
from tests.lib import nvrtc
from tests.lib.support import RTOL, host

HEADER = (PACKAGE / "dialect/math_cpu.cuh").read_text()
OF_ONE = re.findall(r"^OF_ONE\((\w+)\)", HEADER, re.MULTILINE)
OF_TWO = re.findall(r"^OF_TWO\((\w+)\)", HEADER, re.MULTILINE)
CALLS = [*(f"{name}(x)" for name in OF_ONE), *(f"{name}(x, y)" for name in OF_TWO)]
CALLS += ["fma(x, y, y)", "ldexp(x, 3)", "T(isnan(x))", "T(isinf(x))", "T(isfinite(x))"]
CALLS += ["T(signbit(-x))"]
NARROW = [*(f"{name}f(float(x))" for name in OF_ONE), *(f"{name}f(float(x), y)" for name in OF_TWO)]
NARROW += ["fmaf(float(x), y, y)", "ldexpf(float(x), 3)"]
X, Y = 1.25, -2.75  # of some functions NaN

SOURCE = Source(
    "functions.cu",
    '#include "dialect/dialect.cuh"\n'
    "KERNEL functions(const T *__restrict__ in, T *__restrict__ out) {\n"
    "    if (blockIdx.x || threadIdx.x) return;\n    const T x = in[0], y = in[1];\n"
    + "".join(f"    out[{i}] = {call};\n" for i, call in enumerate([*CALLS, *NARROW]))
    + "}\n",
    packaged=False,
)


def expected() -> list[float]:
    """Return what the C library says, in double."""
    library = ctypes.CDLL(ctypes.util.find_library("m"))
    values = []
    for name, *arguments in [*((n, X) for n in OF_ONE), *((n, X, Y) for n in OF_TWO)]:
        function = library[name]
        function.restype, function.argtypes = ctypes.c_double, [ctypes.c_double] * len(arguments)
        values.append(function(*arguments))
    functions, others = values, [X * Y + Y, X * 8]
    return [*functions, *others, 0, 0, 1, 1, *functions, *others]


# Kernels of float16 and bfloat16 calculate in float32; CUDA's functions of __half have other names.
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_they_are_the_c_librarys(target: Target, dtype: str) -> None:
    out = target.empty((len(CALLS) + len(NARROW),), dtype)
    out.fill(7)
    kernel = SOURCE.kernel("functions", target, np.dtype(dtype))
    kernel((1, 1, 1), target.threads, target.array(np.array([X, Y], dtype)), out)
    tolerance = np.where(np.arange(out.size) < len(CALLS), RTOL[np.dtype(dtype).name], 1e-5)
    close = np.isclose(host(out), expected(), rtol=tolerance, atol=0, equal_nan=True)
    assert close.all(), np.array([*CALLS, *NARROW])[~close]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cuda_has_each(dtype: str) -> None:
    nvrtc.compiled(nvrtc.specialised(SOURCE, dtype), "functions.cu", "sm_90")
