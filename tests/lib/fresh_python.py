"""Running scripts in a new interpreter, and compilers that are wrapped or broken."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

#: Compiles one kernel and the thread pool, runs them, and prints "[0. 2.]".
RELU = "import kernels, numpy; print(kernels.relu(numpy.array([-1, 2], numpy.float32)))"
RELU_SAYS = "[0. 2.]\n"
#: Put before a script: gives its user no home folder, by neither environment nor passwd.
NO_HOME = """
import os, pwd
for variable in ("HOME", "XDG_CACHE_HOME"):
    os.environ.pop(variable, None)
def nobody(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")
pwd.getpwuid = nobody
"""


def environment(**changes: object) -> dict[str, str]:
    """Return this process' environment without the project's variables, and with changes."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("KERNELS_") and name not in ("CXX", "MNIST_DIR", "PYTHONPATH")
    }
    set_here = {"PYTHONPATH": REPOSITORY, **changes}
    return kept | {name: str(value) for name, value in set_here.items()}


def start(*arguments: str, **changes: object) -> subprocess.Popen[str]:
    """Start Python in a process group of its own; names in capitals are environment variables."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd="/",  # not the checkout: -c looks for modules there first
        env=environment(**changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(*arguments: str, **changes: object) -> subprocess.CompletedProcess[str]:
    """Run Python and return the finished process."""
    process = start(*arguments, **changes)
    try:
        out, err = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def output(script: str, **changes: object) -> str:
    """Return a script's output; it must succeed, with nothing on standard error."""
    done = run("-W", "error", "-c", script, **changes)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def error(script: str, **changes: object) -> str:
    """Return the message of the KernelError that a script ends with: one line."""
    done = run("-c", script, **changes)
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    name, _, message = last.partition(": ")
    assert name.endswith("KernelError"), done.stderr
    return message


def program(path: Path, body: str) -> Path:
    """Write an executable shell script."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


class CountedCompiler:
    """A compiler that counts its compilations and the queries of its identity."""

    def __init__(self, folder: Path, real: str = "c++") -> None:
        self._log = folder / "calls"
        self.path = program(folder / "counted-c++", f'echo "$*" >> {self._log}\nexec {real} "$@"')

    def calls(self) -> tuple[int, int]:
        """Return (compilations, queries) since the last time."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        self._log.unlink(missing_ok=True)
        queries = sum(" -dM " in f" {line} " for line in lines)
        return len(lines) - queries, queries
