"""Loads of a whole struct: the padding behind its members is read, but not used."""

import numpy as np
import pytest

from . import build
from .machine_api import Machine, MachineError

#: Stores 12 of 16 bytes, loads all of them, and adds some of the words.
TEXT = """
.version 8.8
.target sm_90
.address_size 64
.visible .entry f(.param .u64 x, .param .u64 y)
{{
    .reg .b32 %r<6>;
    .reg .b64 %rd<3>;
    .shared .align 16 .b8 block[16];
    ld.param.u64 %rd1, [x];
    ld.param.u64 %rd2, [y];
    mov.b32 %r1, 1;
    st.{place}.v2.b32 [{at}], {{%r1, %r1}};
    st.{place}.b32 [{at}+8], %r1;
    ld.{place}.v4.b32 {{%r1, %r2, %r3, %r4}}, [{at}];
    add.s32 %r5, %r1, {last};
    st.global.b32 [%rd2], %r5;
    ret;
}}
"""


@pytest.fixture(scope="module")
def machine():
    return Machine(str(build.build().library), 1)


def run(machine, place, last):
    x, y = machine.empty(4, np.int32), machine.empty(1, np.int32)
    at = "block" if place == "shared" else "%rd1"
    machine.module(TEXT.format(place=place, at=at, last=last)).run("f", 1, 1, x, y)
    return y.values[0]


@pytest.mark.parametrize("place", ["global", "shared"])
def test_padding_may_be_loaded(machine, place):
    assert run(machine, place, "%r3") == 2


@pytest.mark.parametrize("place", ["global", "shared"])
def test_padding_may_not_be_used(machine, place):
    with pytest.raises(MachineError) as fault:
        run(machine, place, "%r4")
    assert fault.value.kind == "unwritten"
