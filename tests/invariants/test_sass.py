"""Instructions that kernels claim, looked for in their machine code."""

from pathlib import Path

import pytest

from kernels.runtime import Source
from tests.lib import nvrtc
from tests.lib.kernel_resources import ARCHITECTURES, SOURCES, TEXTS
from tests.lib.sass import has, instructions, text

DEVICE = Path(__file__).parents[1] / "device"
#: `make test` looks at one architecture of each text, as test_kernel_resources.py does.
ALL = [pytest.param(a, marks=() if a in TEXTS else pytest.mark.slow) for a in ARCHITECTURES]


def disassembled(name, arch, **constants):
    source = Source(f"{name}.cu", (DEVICE / f"{name}.cu").read_text(), packaged=False)
    text = nvrtc.specialised(source, "float32", **constants)
    return instructions(nvrtc.compiled(text, source.name, arch).cubin)


@pytest.mark.parametrize("arch", ALL[1:])
@pytest.mark.parametrize(
    ("precision", "product"),
    [
        ("fp16", "HMMA.16816.F32"),
        ("bf16", "HMMA.16816.F32.BF16"),
        ("tf32", "HMMA.1688.F32.TF32"),
    ],
)
def test_mma_runs_on_tensor_cores(arch, precision, product):
    found = disassembled("mma_product", arch, PRECISION=precision)["mma_product"]
    assert [opcode for opcode in found if opcode.startswith("HMMA")] == [product]


def test_mma_of_turing_takes_fp16_in_two_halves():
    found = disassembled("mma_product", "sm_75", PRECISION="fp16")["mma_product"]
    assert [opcode for opcode in found if opcode.startswith("HMMA")] == ["HMMA.1688.F32"] * 2


@pytest.mark.parametrize("precision", ["bf16", "tf32"])
def test_mma_is_refused_where_there_is_none(precision):
    with pytest.raises(Exception, match="bf16 and tf32 products need sm_80"):
        disassembled("mma_product", "sm_75", PRECISION=precision)


@pytest.mark.parametrize("arch", ALL)
def test_asynchronous_copies_pass_by_the_registers(arch):
    found = disassembled("async_copies", arch)
    copies = {
        entry: {opcode for opcode in opcodes if opcode.startswith(("LDG", "STS"))}
        for entry, opcodes in found.items()
    }
    if arch == "sm_75":
        assert not any(has(found[entry], "LDGSTS") for entry in found)
        assert has(copies["copy_wide"], "LDG.E.128") and has(copies["copy_narrow"], "LDG.E")
    else:
        # The barrier that a wait is for, and the copies; nothing is loaded or stored besides.
        assert copies["copy_wide"] == {"LDGDEPBAR", "LDGSTS.E.128.ZFILL"}
        assert copies["copy_narrow"] == {"LDGDEPBAR", "LDGSTS.E"}
        assert all(has(opcodes, "DEPBAR.LE") for opcodes in found.values())


@pytest.mark.parametrize("arch", ALL)
def test_loads_of_16_bytes_are_told_from_others(arch):
    found = disassembled("vector_copy", arch)
    assert has(found["vector_copy"], "LDG.E.128") and has(found["vector_copy"], "STG.E.128")
    assert has(found["scalar_copy"], "LDG.E") and has(found["scalar_copy"], "STG.E")
    for wanted in ("LDG.E.64", "LDG.E.128", "STG.E.64", "STG.E.128", "HMMA"):
        assert not has(found["scalar_copy"], wanted)


@pytest.mark.parametrize("arch", ALL)
@pytest.mark.parametrize(
    ("source", "entry"),
    [
        ("pooling/pool.cu", "max_pool2d_forward"),
        ("pooling/pool.cu", "avg_pool2d_forward"),
        ("norm/batchnorm_pool.cu", "batch_norm_pool_forward"),
    ],
)
def test_the_first_window_of_a_thread_is_divided_as_an_int(source, entry, arch):
    compiled = nvrtc.compiled(nvrtc.specialised(SOURCES[source], "float32"), source, arch)
    assert "div_s64" not in text(compiled.cubin)[entry]


def test_an_instruction_is_known_by_whole_modifiers():
    assert has(["EXIT", "LDG.E.128.CONSTANT"], "LDG.E.128")
    assert not has(["LDG.E.128"], "LDG.E.1")
    assert not has(["LDG.E"], "LDG.E.128")
    assert not has([], "LDG.E")
