"""Starting several processes by the ``mpiexec`` of an MPI that pip installed."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .fresh_python import environment

#: MPICH's: others have no `:` between programs, or do not run as root.
MPIEXEC = shutil.which("mpiexec", path=str(Path(sys.executable).parent))

needs_mpi = pytest.mark.skipif(
    MPIEXEC is None or importlib.util.find_spec("mpi4py") is None,
    reason="there is no MPI in this environment: pip install 'cnn-kernels[mpi]'",
)


def run(*programs: list[object], cwd: Path, timeout: float = 300) -> tuple[int, str, str]:
    """Run Python with the arguments of each process; return status, output and errors."""
    words = [str(MPIEXEC)]
    for number, arguments in enumerate(programs):
        words += [":"] * (number > 0) + ["-n", "1", sys.executable, *map(str, arguments)]
    done = subprocess.run(
        words, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=timeout
    )
    return done.returncode, done.stdout, done.stderr
