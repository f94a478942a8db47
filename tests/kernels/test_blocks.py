"""Tests of the sizes of blocks on `cpu`: by the machine's caches, and by a table of the user's."""

import json

import numpy as np
import pytest

from kernels.runtime import KernelError, blocks, targets
from kernels.runtime.blocks import Blocks, Caches
from kernels.runtime.cpu import CpuTarget
from tests.invariants.test_repeatability import digest
from tests.lib.calls import CALLS, PLANNED

KiB, MiB = 2**10, 2**20
SAPPHIRE_RAPIDS = Caches(48 * KiB, 2 * MiB, 105 * MiB)
#: Sizes that nobody would choose: sums in several panels, nothing cached, everything streamed.
TINY = Blocks(BK=32, near_bytes=64, stream_bytes=1)
#: Calls of the kernels whose text or arguments contain a size.
SIZED = (
    *("conv2d", "conv2d_backward", "dense", "dense_backward", "softmax", "softmax_cross_entropy"),
    *("relu", "avg_pool2d", "batch_norm", "affine_warp", "conv2d_pool", "dense_cross_entropy"),
    *("conv2d_moments", "winograd_moments"),
)


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Make a machine with some caches, as Linux describes it; they may be absent."""

    def make(found):
        monkeypatch.setattr(blocks.os, "sched_getaffinity", lambda _: {3, 5})
        sizes = [*(("Data", level, size) for level, size in enumerate(found or (), start=1))]
        for index, (kind, level, size) in enumerate([*sizes, ("Instruction", 1, 4 * KiB)]):
            folder = tmp_path / f"cpu3/cache/index{index}"
            folder.mkdir(parents=True)
            (folder / "level").write_text(f"{level}\n")
            (folder / "type").write_text(f"{kind if level == 1 else 'Unified'}\n")
            (folder / "size").write_text(f"{size // KiB}K\n")
        monkeypatch.setattr(blocks, "_SYSTEM", tmp_path)
        return blocks.caches()

    return make


@pytest.fixture
def table(tmp_path, monkeypatch):
    """The user's table, which is not there yet."""
    path = tmp_path / "folder" / "blocks.json"
    monkeypatch.setenv("KERNELS_BLOCKS", str(path))
    return path


@pytest.mark.parametrize(
    "found", [blocks.MEASURED, SAPPHIRE_RAPIDS, Caches(32 * KiB, 256 * KiB, 0)]
)
def test_caches_are_those_that_the_system_tells(system, found):
    assert system(found if found.L3 else found[:2]) == found


def test_caches_that_the_system_does_not_tell(system):
    assert system(None) == blocks.MEASURED


@pytest.mark.parametrize(
    "found, expected",
    [
        (blocks.MEASURED, Blocks(1024, 2**18, 2**24)),
        (SAPPHIRE_RAPIDS, Blocks(2048, 2**19, 2**24)),
        (Caches(32 * KiB, 512 * KiB, 8 * MiB), Blocks(512, 2**17, 2**22)),  # Zen 2, a laptop's
        (Caches(32 * KiB, 256 * KiB, 6 * MiB), Blocks(256, 2**16, 3 * 2**20)),  # Skylake
        (Caches(64 * KiB, 12 * MiB, 0), Blocks(4096, 3 * 2**20, 6 * 2**20)),  # no L3
        (Caches(8 * KiB, 64 * KiB, 0), Blocks(256, 2**14, 2**15)),
    ],
)
def test_other_caches_give_other_blocks(found, expected):
    assert blocks.from_caches(found) == expected


def test_kernels_are_compiled_with_the_blocks_of_the_machine(system, table):
    system(SAPPHIRE_RAPIDS)
    target = CpuTarget()
    assert target.constants == {"BM": 1, "BN": 96, "BK": 2048, "STREAM_BYTES": 2**24}
    assert target.near_bytes == 2**19


def test_blocks_of_the_table_are_used_on_its_machine_alone(system, table):
    system(SAPPHIRE_RAPIDS)
    assert blocks.keep(64, {"BK": 512}) == table
    assert blocks.keep(32, {"stream_bytes": 4096}) == table
    assert blocks.chosen(64) == Blocks(512, 2**19, 2**24)
    assert blocks.chosen(32) == Blocks(2048, 2**19, 4096)
    assert blocks.chosen(16) == Blocks(2048, 2**19, 2**24)
    name = "registers 512 bits, L1 48 KiB, L2 2048 KiB, L3 107520 KiB"
    assert json.loads(table.read_text())[name] == {"BK": 512}


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "is not a table of blocks: "),
        ("[]", "is not a table of blocks: "),
        ('{"a machine": {"BN": 48}}', "expected for each machine positive whole numbers named BK"),
        ('{"a machine": {"BK": 0}}', "expected for each machine positive whole numbers named BK"),
        ('{"a machine": {"BK": 512.0}}', "expected for each machine positive whole numbers"),
        ('{"a machine": {"BK": 128}}', "BK: got 128, expected at least 256"),
    ],
)
def test_a_table_that_is_none(table, text, message):
    table.parent.mkdir()
    table.write_text(text)
    with pytest.raises(KernelError, match=f"^{table}:? .*{message}"):
        blocks.chosen(64)


@pytest.mark.parametrize("name", SIZED)
def test_no_bit_depends_on_the_blocks(name, monkeypatch):
    """Else results would change when a user keeps a table."""
    call, bits = (CALLS | PLANNED)[name], []
    for sizes in (blocks.from_caches(blocks.MEASURED), TINY):
        target = CpuTarget()
        target.blocks = sizes
        monkeypatch.setattr(targets, "_CPU", target)
        bits.append(digest(call, target, np.float32))
    assert bits[0] == bits[1]
