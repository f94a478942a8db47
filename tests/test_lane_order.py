"""No result depends on the order in which lanes and blocks run: that would be a race."""

import numpy as np
import pytest

from calls import CALLS, PLANNED
from kernels.runtime import numpy_arrays_on
from kernels.runtime.simt import SimtTarget

EVERY = CALLS | PLANNED


@pytest.mark.parametrize("call", EVERY.values(), ids=EVERY.keys())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_function_gives_the_same_bits_in_every_order(call, dtype):
    results = []
    for order, seed in (("forward", 0), ("reverse", 0), ("random", 1), ("random", 2)):
        target = SimtTarget()
        target.order, target.seed = order, seed
        with numpy_arrays_on(target):
            results.append(call(call.arguments(target, np.dtype(dtype))))
    for others in results[1:]:
        for first, other in zip(results[0], others, strict=True):
            assert first.tobytes() == other.tobytes()
