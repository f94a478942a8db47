"""Comparisons that cannot pass by accident, and poison for output buffers."""

import numpy as np
from numpy.typing import NDArray

from kernels.runtime.checks import floating


def _host(x) -> NDArray[np.float64]:
    """Return a NumPy or CuPy array, or a scalar, as float64 on the host."""
    return np.asarray(x.get() if hasattr(x, "get") else x).astype(np.float64)


def assert_close(actual, expected, *, rtol: float) -> None:
    """Assert |actual - expected| <= rtol * max|expected| for every element, over finite values.

    Shapes, positions of NaN and signed infinities must be equal, and an `actual` of zeros only
    passes where `expected` is all zeros. The message names the worst element.
    """
    actual, expected = _host(actual), _host(expected)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    if expected.size == 0:
        return

    def report(problem: str, badness) -> str:
        index = tuple(int(i) for i in np.unravel_index(np.argmax(badness), expected.shape))
        return f"{problem}; worst at {index}: {actual[index]!r}, expected {expected[index]!r}"

    finite = np.isfinite(expected)
    magnitude = np.where(finite, abs(expected), 0.0)
    if not actual.any() and expected.any():
        raise AssertionError(report("the result is all zeros", np.where(finite, magnitude, np.inf)))
    wrong_nan = np.isnan(actual) != np.isnan(expected)
    assert not wrong_nan.any(), report(f"{wrong_nan.sum()} NaN positions differ", wrong_nan)
    infinite = np.isinf(actual) | np.isinf(expected)
    wrong_infinity = infinite & (actual != expected)
    assert not wrong_infinity.any(), report("infinities differ", wrong_infinity)

    error = np.abs(np.where(finite, actual, 0.0) - np.where(finite, expected, 0.0))
    tolerance = rtol * max(magnitude.max(), np.finfo(np.float64).tiny)
    if not error.max() <= tolerance:
        problem = f"error {error.max():.3e} exceeds {tolerance:.3e} in {(error > tolerance).sum()}"
        raise AssertionError(report(f"{problem} of {error.size} elements", error))


def poison(shape, dtype) -> NDArray:
    """Return an array that no kernel would produce: NaN, or bytes 0xAB where dtype is not a float.

    For output buffers, so that a test sees elements that a kernel failed to write.
    """
    dtype = np.dtype(dtype)
    if floating(dtype):
        return np.full(shape, np.nan, dtype)
    return np.full(shape, np.frombuffer(b"\xab" * dtype.itemsize, dtype)[0], dtype)
