"""A child process for each contender: it has its own memory, threads and libraries.

The parent sends a JSON line {"call": name, ...arguments} and waits for the answer, so that
contenders take turns: one computes while the others sleep.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]


class Worker:
    """The parent's end: a context, whose exit ends the process.

    The child runs a module of this checkout's benchmarks, with the packages of `tree` and more
    variables in its `environment`.
    """

    def __init__(
        self,
        module: str,
        threads: int,
        *arguments: str,
        tree: Path = REPOSITORY,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        count = str(threads)
        whole = os.environ | {
            "KERNELS_THREADS": count,
            "OMP_NUM_THREADS": count,
            "OPENBLAS_NUM_THREADS": count,
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
            **environment,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"bench.{module}", *arguments],  # looks in its folder first
            cwd=tree,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=whole,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def call(self, name: str, /, **arguments: Any) -> Any:
        """Return what the child's function returns for these arguments."""
        self._process.stdin.write(json.dumps({"call": name, **arguments}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self._process.args[2]} ended in {name}, see its message above")
        return json.loads(answer)


def serve(*functions: Callable[..., Any]) -> None:
    """Answer the parent's calls of these functions and `memory` until it closes the pipe."""
    by_name = {function.__name__: function for function in (*functions, memory)}
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes elsewhere
    for line in sys.stdin:
        arguments = json.loads(line)
        answer = by_name[arguments.pop("call")](**arguments)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def memory() -> float:
    """Return this process's largest resident set so far, in MiB.

    Not from getrusage: on Linux, that includes the parent's.
    """
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
