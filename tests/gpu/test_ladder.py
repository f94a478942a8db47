"""The SGEMM ladder's kernels compute the product, and their bounds are ordered as their times."""

import itertools

import numpy as np
import pytest

from . import build, device, ptx
from .bound import bound
from .gpus import A6000
from .ladder import LIBRARY, STEPS, TEXT, extrapolated
from .machine_api import Machine


@pytest.fixture(scope="module")
def machine():
    return Machine(str(build.build().library), 0)


@pytest.fixture(scope="module")
def module(machine):
    return machine.module(ptx.compiled(TEXT, "ladder.cu"))


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.kernel)
def test_every_step_multiplies(machine, module, step):
    m, n, k = 128, 256, 64  # several blocks side by side, several tiles of k
    generator = np.random.default_rng(0)
    # Whole numbers, whose sums are exact.
    a = generator.integers(-8, 9, (m, k)).astype(np.float32)
    b = generator.integers(-8, 9, (k, n)).astype(np.float32)
    c = machine.empty((m, n), np.float32)
    arrays = machine.array(a), machine.array(b), c
    module.run(step.kernel, step.grid(m, n), step.threads, *arrays, np.int32(n), np.int32(k))
    assert (c.values == a @ b).all()


# --- the bounds against what was measured

SIZE = 4096  # the worklog's 4092, rounded up to whole tiles
#: Of the blocks that are counted. In 64 every kernel has passes of a whole number of instructions,
#: of which an access to shared memory is some sixteenths.
KS = (64, 128)


@pytest.fixture
def count(emulated):
    """Count a launch of a step."""
    kernels = emulated.RawModule(code=TEXT, options=("-std=c++17",))

    def counted(step, m, n, k):
        a, b = (emulated.ones(shape, np.float32) for shape in ((m, k), (k, n)))
        arguments = a, b, emulated.empty((m, n), np.float32), np.int32(n), np.int32(k)
        with device.counting() as counts:
            kernels.get_function(step.kernel)(step.grid(m, n), (step.threads,), arguments)
        (launch,) = counts["launches"]
        return launch

    return counted


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.kernel)
def test_counts_are_extrapolated_to_the_last(count, step):
    tile = step.tile
    counts = {k: count(step, tile, tile, k) for k in KS}
    whole = count(step, 256, 256, 256)
    found = extrapolated(step, counts, 256)
    for figures in ("all", "least", "longest_warp", "grid"):
        assert found[figures] == whole[figures]
    assert all(found["bytes"][key] == whole["bytes"][key] for key in ("read", "written"))


def test_bounds_are_in_the_order_of_what_was_measured(count):
    """And none is slower: they are the least time that a launch takes.

    Steps that were measured within a quarter of each other, the 5th to the 7th and the 7th and the
    8th, need not be in order: they differ in barriers and in copies that other warps hide.
    """
    bounds = {}
    for step in STEPS:
        counts = {k: count(step, step.tile, step.tile, k) for k in KS}
        seconds = bound(extrapolated(step, counts, SIZE), A6000).seconds
        bounds[step] = 2 * SIZE**3 / seconds / 1e9
        assert bounds[step] > step.published, step.kernel
    assert bounds[STEPS[-1]] > LIBRARY
    for slower, faster in itertools.combinations(STEPS, 2):
        if faster.published > 1.25 * slower.published:
            assert bounds[faster] > 1.1 * bounds[slower], (slower.kernel, faster.kernel)
