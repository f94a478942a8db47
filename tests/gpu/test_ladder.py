"""The SGEMM ladder's kernels compute the product."""

import numpy as np
import pytest

from . import build, ptx
from .ladder import STEPS, TEXT
from .machine_api import Machine


@pytest.fixture(scope="module")
def machine():
    return Machine(str(build.build().library), 0)


@pytest.fixture(scope="module")
def module(machine):
    return machine.module(ptx.compiled(TEXT, "ladder.cu"))


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.kernel)
def test_product(machine, module, step):
    m, n, k = 128, 256, 64  # several blocks side by side, several tiles of k
    generator = np.random.default_rng(0)
    # Whole numbers, whose sums are exact.
    a = generator.integers(-8, 9, (m, k)).astype(np.float32)
    b = generator.integers(-8, 9, (k, n)).astype(np.float32)
    c = machine.empty((m, n), np.float32)
    arrays = machine.array(a), machine.array(b), c
    module.run(step.kernel, step.grid(m, n), step.threads, *arrays, np.int32(n), np.int32(k))
    assert (c.values == a @ b).all()
