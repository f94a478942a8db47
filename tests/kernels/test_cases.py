"""Every function that is in the table beside its oracle, on all its sizes."""

import numpy as np
import pytest

from tests.cases import CASES, TRIED
from tests.cases.check import check
from tests.lib.comparison import assert_close
from tests.lib.reference import finite_difference


@pytest.mark.parametrize("name, why", TRIED)
def test_equals_the_oracle(target, dtype, name, why):
    check(target, dtype, name, **CASES[name].sizes[why])


DIFFERENCES = [
    (name, sizes)
    for name, case in CASES.items()
    if case.gradients
    for sizes in (case.small, *case.differences)
]


@pytest.mark.parametrize("name, sizes", DIFFERENCES)
def test_gradients_equal_finite_differences(target, name, sizes):
    case, forward = CASES[name], CASES[name.removesuffix("_backward")]
    call, before = case.call(sizes), forward.call(sizes)
    gradients = call(call.arguments(target, np.float64))
    for argument, gradient in zip(case.gradients, gradients, strict=True):

        def loss(value, argument=argument):
            y = forward.expected(before, **{argument: value})[0]
            return (call.arrays["dy"] * y).sum()

        assert_close(gradient, finite_difference(loss, before.arrays[argument]), rtol=1e-6)
