"""What speed.py repeats runs, and has no fault."""

import pytest

from . import speed


@pytest.mark.parametrize("name", speed.INSTRUCTIONS)
def test_an_instruction(machine, name):
    speed.repeated(machine, name)(2)
