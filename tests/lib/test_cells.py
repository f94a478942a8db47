"""The count of kernels that ran, which the processes of pytest-xdist share."""

import re
import subprocess
import sys

from tests.lib.fresh_python import REPOSITORY, environment


def cells(*options):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    command += ["-k", "relu and cpu", "tests/kernels/test_elementwise.py"]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    return int(re.search(r"^(\d+) cells", done.stdout, re.MULTILINE)[1])


def test_processes_add_their_cells_up():
    alone = cells()
    assert alone == cells("--numprocesses=2", "--benchmark-disable") > 0
