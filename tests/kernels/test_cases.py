"""Every function that is in the table beside its oracle, on all its sizes."""

import numpy as np
import pytest

from tests.cases import CASES, TRIED
from tests.lib.comparison import assert_close
from tests.lib.reference import finite_difference
from tests.lib.support import RTOL


@pytest.mark.parametrize("name, why", TRIED)
def test_equals_the_oracle(target, dtype, name, why):
    case = CASES[name]
    call = case.call(case.sizes[why])
    results = call(call.arguments(target, dtype))
    assert results[0].dtype == dtype
    expected = case.expected(call.cast(dtype))
    for found, wanted in zip(results, expected, strict=True):
        assert_close(found, wanted, rtol=case.rounding * RTOL[dtype.name])


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.gradients])
def test_gradients_equal_finite_differences(target, name):
    case, forward = CASES[name], CASES[name.removesuffix("_backward")]
    call, arrays = case.call(case.small), forward.arrays(**case.small)
    gradients = call(call.arguments(target, np.float64))
    for argument, gradient in zip(case.gradients, gradients, strict=True):

        def loss(value, argument=argument):
            y = forward.expected({**arrays, argument: value})[0]
            return (call.arrays["dy"] * y).sum()

        assert_close(gradient, finite_difference(loss, arrays[argument]), rtol=1e-6)
