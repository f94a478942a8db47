"""Every kernel compiles for every architecture, with the registers and memory that are listed."""

import re
from pathlib import Path

import pytest

from kernels.runtime import Source
from tests.gpu.build import machine as build_machine
from tests.gpu.machine_api import Machine, MachineError
from tests.lib import nvrtc
from tests.lib.kernel_resources import (
    ARCHITECTURES,
    MORE_ON_ANOTHER_NVRTC,
    MORE_REGISTERS,
    OF_PIXEL_PAIRS,
    SOURCES,
    committed,
    faults,
    matrix,
)
from tests.lib.nvrtc import Resources

FAULTS = Path(__file__).parents[1] / "faults"


@pytest.fixture(scope="module")
def table():
    return committed()


@pytest.fixture(scope="module")
def machine():
    """What executes PTX on the emulated GPU."""
    return Machine(str(build_machine()))


MATRIX = [
    pytest.param(build, marks=pytest.mark.slow if build.slow else (), id=str(build))
    for build in matrix()
]


@pytest.mark.parametrize("build", MATRIX)
def test_a_build_stays_within_its_resources(build, table, machine):
    """Everything compiled, once for all tests: it takes longer than the rest."""
    compiled = build.compiled()
    check_resources(build, compiled.report, table)
    machine.module(compiled.ptx)  # raises an error that names an instruction it does not know
    if dict(build.types).get("PRECISION"):
        check_tensor_cores(build, compiled.ptx)


def check_resources(build, report, table):
    """No warning, stack frame or spill; shared memory is what the table lists.

    Registers may be a few more: 8 with the NVRTC that made the table, 32 with another, whose ptxas
    may unroll a loop that the first did not.
    """
    assert "warning" not in report.lower(), report
    assert nvrtc.architectures(report) == {build.arch}
    found = nvrtc.resources(report)
    assert set(found) == build.entries
    more = MORE_REGISTERS if nvrtc.version() == table.nvrtc else MORE_ON_ANOTHER_NVRTC
    wrong = {
        entry: problems
        for entry, resources in found.items()
        if (problems := faults(resources, table.cells.get((build.row(entry), build.arch)), more))
    }
    assert wrong == {}


def check_tensor_cores(build, ptx):
    """Products are mma, and from sm_80 on their operands come by asynchronous copies of 16 bytes.

    Pairs of pixels are put together in registers instead.

    test_sass.py shows which machine code these instructions become on each architecture.
    """
    parts = re.split(r"^\.visible \.entry (\w+)", ptx, flags=re.MULTILINE)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert set(found) == build.entries
    for entry, text in found.items():
        assert "mma.sync.aligned." in text, entry
        # Neither exponentials nor moments are products.
        others = build.source == "loss/dense_loss.cu"
        others |= entry in ("conv2d_forward", "one_channel_mma_forward")
        assert ("fma.rn.ftz.f32" in text) == others, entry
        if build.source in OF_PIXEL_PAIRS:
            continue
        copies = re.findall(r"cp\.async\.\w+\.shared\.global[^;]*, (\d+)[^;]*;", text)
        if build.arch == "sm_75":
            assert not copies and re.search(r"ld\.global\.[\w.]*v4\.", text), entry
        else:
            assert ("16" in copies) == build.vectors, entry
            assert "cp.async.commit_group" in text and "cp.async.wait_group" in text, entry


def test_every_text_is_compiled_by_make_test():
    """Architectures for which all conditions agree get the same text."""
    texts = {(build.source, *build.conditions()) for build in matrix()}
    assert texts == {(build.source, *build.conditions()) for build in matrix() if not build.slow}
    assert len(texts) > len(SOURCES)  # some do not agree


def test_table_lists_the_matrix_and_nothing_else(table):
    cells = {(build.row(entry), build.arch) for build in matrix() for entry in build.entries}
    assert set(table.cells) == cells


def test_table_itself_has_no_faults(table):
    """This holds for every line that `make resources` wrote."""
    assert not any(faults(cell, cell, MORE_REGISTERS) for cell in table.cells.values())


# --- what the tests above look for would be found


def test_an_instruction_that_the_emulated_gpu_lacks_is_named(machine):
    text = 'extern "C" __global__ void doubled(float *x) { x[0] += x[0]; }'
    ptx = nvrtc.compiled(text, "doubled.cu", "sm_90").ptx
    machine.module(ptx)
    with pytest.raises(MachineError, match=r"doubled.*twice\.f32"):
        machine.module(ptx.replace("add.ftz.f32", "twice.f32"))


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("local_array", {"64 bytes of stack frame"}),
        ("register_spill", {"bytes of stack frame", "bytes spilled"}),
        ("spill_in_call", {"bytes of stack frame", "bytes spilled"}),
    ],
)
def test_stack_frames_and_spills_are_found(name, expected, arch):
    source = Source(f"{name}.cu", (FAULTS / f"{name}.cu").read_text(), packaged=False)
    report = nvrtc.compiled(nvrtc.specialised(source, "float32"), source.name, arch).report
    (found,) = nvrtc.resources(report).values()
    problems = faults(found, found, MORE_REGISTERS)
    assert len(problems) == len(expected), report
    assert all(any(part in problem for problem in problems) for part in expected)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (Resources(40, 256, 0, 0), None),
        (Resources(48, 256, 0, 0), None),
        (Resources(49, 256, 0, 0), "49 registers, 40 in kernel_resources.json"),
        (Resources(40, 260, 0, 0), "260 bytes of shared memory, 256 in kernel_resources.json"),
        (Resources(20, 0, 8, 0), "8 bytes of stack frame"),
        (Resources(20, 0, 0, 4), "4 bytes spilled"),
    ],
)
def test_growth_is_found(found, expected):
    problems = faults(found, Resources(40, 256, 0, 0), more_registers=8)
    assert problems == ([] if expected is None else [expected])


def test_a_kernel_that_the_table_lacks_is_found():
    assert faults(Resources(40, 256, 0, 0), None, more_registers=8) == [
        "not in kernel_resources.json: run `make resources`"
    ]


def test_warnings_are_found():
    text = 'extern "C" __global__ void wasteful(float *x) { int unused; x[0] = 1; }'
    report = nvrtc.compiled(text, "wasteful.cu", "sm_90").report
    assert "warning" in report and "unused" in report
