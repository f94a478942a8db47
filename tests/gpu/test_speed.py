"""What speed.py repeats runs, and has no fault."""

import pytest

from . import build, speed
from .machine_api import Machine


@pytest.fixture(scope="module")
def machine():
    return Machine(str(build.build().library))


@pytest.mark.parametrize("name", speed.INSTRUCTIONS)
def test_an_instruction(machine, name):
    speed.repeated(machine, name)(2)
