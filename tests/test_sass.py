"""Instructions that kernels claim, looked for in their machine code."""

from pathlib import Path

import pytest

import nvrtc
from kernel_resources import ARCHITECTURES
from kernels.runtime import Source
from sass import has, instructions

DEVICE = Path(__file__).parent / "device"


def disassembled(name, arch):
    source = Source(f"{name}.cu", (DEVICE / f"{name}.cu").read_text(), ahead=False)
    text = nvrtc.specialised(source, "float32")
    return instructions(nvrtc.compiled(text, source.name, arch).cubin)


@pytest.mark.parametrize("arch", [arch for arch in ARCHITECTURES if arch != "sm_75"])
def test_mma_runs_on_tensor_cores(arch):
    found = disassembled("mma_product", arch)
    products = {
        entry: [opcode for opcode in opcodes if opcode.startswith("HMMA")]
        for entry, opcodes in found.items()
    }
    assert products == {"mma_fp16": ["HMMA.16816.F32"], "mma_bf16": ["HMMA.16816.F32.BF16"]}


def test_mma_is_refused_where_there_is_none():
    with pytest.raises(Exception, match=r"m16n8k16.* requires .*sm_80"):
        disassembled("mma_product", "sm_75")


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_loads_of_16_bytes_are_told_from_others(arch):
    found = disassembled("vector_copy", arch)
    assert has(found["vector_copy"], "LDG.E.128") and has(found["vector_copy"], "STG.E.128")
    assert has(found["scalar_copy"], "LDG.E") and has(found["scalar_copy"], "STG.E")
    for wanted in ("LDG.E.64", "LDG.E.128", "STG.E.64", "STG.E.128", "HMMA"):
        assert not has(found["scalar_copy"], wanted)


def test_an_instruction_is_known_by_whole_modifiers():
    assert has(["EXIT", "LDG.E.128.CONSTANT"], "LDG.E.128")
    assert not has(["LDG.E.128"], "LDG.E.1")
    assert not has(["LDG.E"], "LDG.E.128")
    assert not has([], "LDG.E")
