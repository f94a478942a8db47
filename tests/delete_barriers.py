"""Delete every __syncthreads() of the kernels in turn, and see which test of `simt` notices.

    python tests/delete_barriers.py

Prints a table and ends with status 1 if a barrier survives: it is then either not needed, or no
call in calls.py has the shape that needs it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
#: Every public function once or twice, augmented batches, and the moments of results, which are
#: read from an array: that no race check looks at. On blocks of many threads.
CHOSEN = ["tests/test_repeatability.py", "tests/test_batch.py", "tests/test_moments.py"]
CHOSEN += ["-k", "simt and (float32 and (twice or augmented) or large_mean)"]

#: Which files the kernels of each test are made of; see launched.py.
LAUNCHED = "launched.json"

_BARRIER = re.compile(r"__syncthreads\(\);")
_DEFINITION = re.compile(r"(#define|void) __syncthreads\(\)")


@dataclass(frozen=True)
class Barrier:
    """One __syncthreads(): its file inside `kernels`, its line from 1 and its column from 0."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"kernels/{self.file}:{self.line}"


@dataclass(frozen=True)
class Verdict:
    """What became of the tests without a barrier; `test` is None where none failed."""

    barrier: Barrier
    test: str | None
    message: str = ""


def barriers(kernels: Path) -> list[Barrier]:
    """Return every barrier in a kernels folder, the words' own definitions left out."""
    found = []
    for path in sorted([*kernels.glob("*.cu"), *kernels.glob("include/*.cuh")]):
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            code = line.partition("//")[0]
            if _DEFINITION.search(code):
                continue
            columns = [match.start() for match in _BARRIER.finditer(code)]
            assert len(columns) == code.count("__syncthreads"), f"{path}:{number}: {line}"
            name = str(path.relative_to(kernels))
            found += [Barrier(name, number, column) for column in columns]
    return found


def run_without(
    barrier: Barrier | None, repository: Path, cache: Path, chosen: Sequence[str] = CHOSEN
) -> Verdict:
    """Run the chosen tests on a copy of the kernels that lacks a barrier, or on a whole one.

    The cache of compiled kernels may be shared: its keys are hashes of the texts. Which files the
    kernels of each test are made of is written there, too.
    """
    with tempfile.TemporaryDirectory(prefix="barriers-") as folder:
        copy = Path(folder)
        for name in ("kernels", "tests"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(repository / name, copy / name, ignore=ignored)
        shutil.copy(repository / "pyproject.toml", copy)
        if barrier:
            delete(barrier, copy / "kernels")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        command += ["-p", "launched", *chosen]
        changes = {
            "PYTHONPATH": os.pathsep.join([folder, str(copy / "tests")]),
            "LAUNCHED": str(copy / "launched.json") if barrier else str(cache / LAUNCHED),
            "KERNELS_CACHE_DIR": str(cache),
            "COLUMNS": "1000",  # the width at which pytest cuts its summary off
        }
        done = subprocess.run(
            command, cwd=copy, env=os.environ | changes, capture_output=True, text=True
        )
    if done.returncode == 0:
        return Verdict(barrier, None)
    failed = re.search(r"^FAILED (\S+) - (.*)$", done.stdout, re.MULTILINE)
    # Any other end, as of a compiler that fails, says nothing about the barrier.
    assert done.returncode == 1 and failed, done.stdout + done.stderr
    return Verdict(barrier, failed[1], failed[2])


def delete(barrier: Barrier, kernels: Path) -> None:
    """Delete a barrier from a copy, leaving every other line where it is."""
    path = kernels / barrier.file
    lines = path.read_text().splitlines(keepends=True)
    line = lines[barrier.line - 1]
    rest = _BARRIER.sub("", line[barrier.column :], count=1)
    lines[barrier.line - 1] = line[: barrier.column] + rest
    path.write_text("".join(lines))


def try_all(repository: Path, cache: Path) -> list[Verdict]:
    """Try every barrier; the tests must pass while all of them are there."""
    whole = run_without(None, repository, cache)
    assert whole.test is None, f"with every barrier there, {whole.test} fails: {whole.message}"
    # A test whose kernels have no line of the barrier's file gives what it gave.
    files = json.loads((cache / LAUNCHED).read_text())

    def verdict(barrier: Barrier) -> Verdict:
        chosen = [test for test, parts in files.items() if barrier.file in parts]
        return run_without(barrier, repository, cache, chosen) if chosen else Verdict(barrier, None)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as executor:
        return list(executor.map(verdict, barriers(repository / "kernels")))


def main() -> int:
    """Print the table and return the exit status."""
    with tempfile.TemporaryDirectory(prefix="barriers-cache-") as cache:
        verdicts = try_all(REPOSITORY, Path(cache))
    for verdict in verdicts:
        caught = f"caught by {verdict.test}: {verdict.message}" if verdict.test else "SURVIVED"
        print(f"{verdict.barrier}  {caught}")
    survivors = sum(verdict.test is None for verdict in verdicts)
    print(f"{len(verdicts)} barriers, {survivors} survived")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
