"""PTX that the machine cannot run is refused, and the message says where and why."""

import pytest

from .machine_api import MachineError
from .one_instruction import kernel


def refused(machine, body):
    with pytest.raises(MachineError) as error:
        machine.module(kernel(body, 1))
    return str(error.value)


def test_an_unknown_instruction_is_named_with_its_line(machine):
    report = refused(machine, "wgmma.fence.sync.aligned;")
    assert "PTX line" in report and "of kernel f: wgmma.fence.sync.aligned: " in report
    assert "this instruction is not supported" in report


def test_an_unknown_modifier_is_named(machine):
    assert "its modifier .odd is not supported" in refused(machine, "add.odd.s32 %r1, %r1, %r1;")


def test_a_register_of_another_size_is_refused(machine):
    assert "is of another size" in refused(machine, "add.s64 %rd1, %r1, %rd1;")


def test_a_cubin_is_no_ptx(machine):
    with pytest.raises(MachineError, match="this is no PTX text"):
        machine.module("\x7fELF")
