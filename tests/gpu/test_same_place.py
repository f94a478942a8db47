"""Lanes of a warp that store to the same place of shared memory by one instruction."""

import numpy as np
import pytest

from . import build
from .machine_api import Machine, MachineError

TEXT = """
.version 8.8
.target sm_90
.address_size 64
.visible .entry f(.param .u64 y)
{{
    .reg .b32 %r<4>;
    .reg .b64 %rd<2>;
    .shared .align 8 .b8 block[8];
    ld.param.u64 %rd1, [y];
    mov.u32 %r1, %tid.x;
    mov.b32 %r2, 3;
    st.shared.v2.b32 [block], {{%r2, {second}}};
    bar.sync 0;
    ld.shared.v2.b32 {{%r2, %r3}}, [block];
    add.s32 %r2, %r2, %r3;
    st.global.b32 [%rd1], %r2;
    ret;
}}
"""


@pytest.fixture(scope="module")
def machine():
    return Machine(str(build.build().library), 1)


def run(machine, second, threads):
    y = machine.empty(1, np.int32)
    machine.module(TEXT.format(second=second)).run("f", 1, threads, y)
    return y.values[0]


def test_the_same_value_may_be_stored(machine):
    assert run(machine, "%r2", 32) == 6


def test_another_value_is_a_race(machine):
    with pytest.raises(MachineError, match="write of 4 bytes.*races with thread") as fault:
        run(machine, "%r1", 32)
    assert fault.value.kind == "race"


def test_two_warps_race_with_the_same_value_too(machine):
    with pytest.raises(MachineError) as fault:
        run(machine, "%r2", 64)
    assert fault.value.kind == "race"
