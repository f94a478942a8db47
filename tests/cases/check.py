"""A comparison of a function with its oracle, on any sizes."""

import numpy as np

from tests.cases import CASES
from tests.lib.comparison import assert_close


def check(target, dtype, name, *, given=None, **sizes):
    """Compare every result, and every array updated in place; return them as NumPy arrays.

    Arrays in `given` replace those of the sizes.
    """
    case = CASES[name]
    call = case.call(sizes)
    call.arrays.update(given or {})
    results = call(call.arguments(target, dtype))
    for found, wanted in zip(results, case.expected(call, dtype), strict=True):
        if wanted.dtype.kind in "iu":  # places and masks
            assert found.dtype == wanted.dtype
            np.testing.assert_array_equal(found, wanted)
        elif found.dtype == np.uint8:  # pixels, rounded to the nearest
            assert abs(found - wanted.clip(0, 255)).max(initial=0) <= 0.5 + 1e-3
            assert found.any() or wanted.max(initial=0) < 0.5
        else:
            assert_close(found, wanted, rtol=case.tolerance(dtype))
    floating = any(array.dtype.kind not in "iu" for array in call.arrays.values())
    assert results[0].dtype.kind in "iu" or results[0].dtype == (dtype if floating else np.float32)
    return results
