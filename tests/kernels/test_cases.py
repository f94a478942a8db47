"""Every function of the table beside its oracle.

One test tries all sizes, of which most take less time than a test does; the reason of the one that
fails is the last line printed.
"""

import numpy as np
import pytest

from tests.cases import CASES
from tests.cases.check import check
from tests.lib.comparison import assert_close
from tests.lib.reference import finite_difference


@pytest.mark.parametrize("name", CASES)
def test_equals_the_oracle(target, dtype, name):
    for why, sizes in CASES[name].sizes.items():
        print(why)
        check(target, dtype, name, **sizes)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.gradients])
def test_gradients_equal_finite_differences(target, name):
    case, forward = CASES[name], CASES[name.removesuffix("_backward")]
    for sizes in (case.small, *case.differences):
        print(sizes)
        call, before = case.call(sizes), forward.call(sizes)
        gradients = call(call.arguments(target, np.float64))
        for argument, gradient in zip(case.gradients, gradients, strict=True):

            def loss(value, argument=argument, call=call, before=before):
                y = forward.expected(before, **{argument: value})[0]
                return (call.arrays["dy"] * y).sum()

            assert_close(gradient, finite_difference(loss, before.arrays[argument]), rtol=1e-6)
