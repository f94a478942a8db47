"""The main loops of products multiply for a good part, by their machine code."""

import pytest

from tests.lib.main_loop import ARCHITECTURES, KINDS, loops

#: Multiply-adds of an FFMA and an HMMA of a warp, and the least share of these instructions.
LEAST = {"FP32": (32, 0.8), "bf16": (16 * 8 * 16, 0.18)}


@pytest.mark.slow  # compiles much
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_the_share_of_multiplications(arch, kind):
    tile = kind.tiles[0]
    each, least = LEAST[kind.name]
    found = {loop.product: loop for loop in loops(arch, kind, tile)}
    assert len(found) == 7
    for name, loop in found.items():
        assert loop.multiplications == tile.BM * tile.BN * tile.BK // (each * tile.warps), name
        assert loop.share >= least, loop
