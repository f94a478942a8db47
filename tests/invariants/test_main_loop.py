"""The main loops of FP32 products are multiply-adds for the most part, by their machine code."""

import pytest

from kernels.gemm.tiles import FMA
from tests.lib.main_loop import ARCHITECTURES, loops


@pytest.mark.slow  # compiles much
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_four_of_five_instructions_are_multiply_adds(arch):
    tile = FMA.tiles[0]
    found = {loop.name: loop for loop in loops(arch, tile)}
    assert len(found) == 7
    for name, loop in found.items():
        assert loop.ffma == tile.BM * tile.BN * tile.BK // (32 * tile.warps), name
        assert loop.share >= 0.8, loop
