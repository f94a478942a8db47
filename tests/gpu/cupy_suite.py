"""Run CuPy's own tests on the emulated GPU, from the source package that it is built with.

    python -m tests.gpu.cupy_suite [--all] [FILE ...]

Prints a line per file: how many tests passed, failed, or were left out and why. A run of all files
is recorded in bench/results/cupy-tests.json. Without --all, CuPy's own sampling takes about one of
15 parameter sets of each test, always the same ones. FILE is a path below CuPy's tests/cupy_tests.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import fnmatch
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import build, device
from .cupy_left_out import BY_FILE

#: Where a run of all files is recorded.
RESULT = Path(__file__).parents[2] / "bench" / "results" / "cupy-tests.json"
#: Seconds that a file may take.
LIMIT = 1800


@dataclass
class Outcome:
    """How the tests of a file, or of several, ended."""

    passed: int
    failed: list[str]
    left_out: Counter[str]  # by reason

    def __str__(self) -> str:
        total = self.passed + len(self.failed)
        text = f"{total} run, {self.passed} passed"
        if self.left_out:
            reasons = "; ".join(f"{count} {why}" for why, count in self.left_out.most_common())
            text += f", {self.left_out.total()} left out ({reasons})"
        return text + "".join(f"\n  FAILED {name}" for name in self.failed)


def run(file: str, everything: bool = False) -> Outcome:
    """Run a file of CuPy's tests in a process of its own.

    Parameters
    ----------
    file : str
        Its path below CuPy's tests/cupy_tests.
    everything : bool
        Run all of its tests, not a sample.

    Raises
    ------
    MissingError
        If the emulated GPU or CuPy's source package is not there.
    RuntimeError
        With pytest's output, if it did not finish.
    """
    if not device.real_gpu():
        build.build()
    repository = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": repository}
    environment.pop("PYTEST_ADDOPTS", None)
    if not everything:
        environment.update(CUPY_TEST_RANDOM_SUBSAMPLE="1", _CUPY_TEST_SUBSAMPLE_SEED="0")
    with tempfile.TemporaryDirectory(prefix="cupy-tests-") as name:
        result = Path(name) / "result.json"
        environment.update(CUPY_SUITE_RESULT=str(result), TMPDIR=name)
        command = [
            sys.executable,
            *"-m tests.gpu -m pytest -p tests.gpu.plugin -p tests.gpu.cupy_plugin".split(),
        ]
        command += ["-p", "no:cacheprovider", "-q", "--tb=short", f"cupy_tests/{file}"]
        done = subprocess.run(
            command,
            cwd=build.cupy_source() / "tests",
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        if not result.exists():
            raise RuntimeError(
                f"CuPy's {file} did not come to its end:\n{done.stdout}{done.stderr}"
            )
        found = json.loads(result.read_text())
    if found["failed"]:
        print(done.stdout)
    return Outcome(found["passed"], found["failed"], Counter(found["left_out"]))


def files() -> tuple[list[str], dict[str, list[str]]]:
    """Return the files of CuPy's tests to run, and those that are left out, by reason."""
    root = build.cupy_source() / "tests" / "cupy_tests"
    found = sorted(str(path.relative_to(root)) for path in root.rglob("test_*.py"))
    left_out = {
        reason: [file for file in found if any(fnmatch.fnmatch(file, one) for one in patterns)]
        for reason, patterns in BY_FILE.items()
    }
    for reason, out in left_out.items():
        found = [file for file in found if file not in out]
        print(f"{len(out)} files left out, {reason}: {', '.join(BY_FILE[reason])}")
    return found, left_out


def outcome_of(file: str, everything: bool) -> Outcome:
    """Run a file; one that does not finish counts as a failure."""
    try:
        return run(file, everything)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        print(error)
        return Outcome(0, [f"{file}: did not come to its end"], Counter())


def main() -> None:
    """Run the files that the command line names, or all that are not left out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", metavar="FILE")
    parser.add_argument("--all", action="store_true", help="all tests of a file, not a sample")
    arguments = parser.parse_args()
    named, left_out = (arguments.files, None) if arguments.files else files()
    sample = "all" if arguments.all else "about one of 15, always the same"
    recorded = json.loads(RESULT.read_text()) if left_out is None and RESULT.exists() else {}
    by_file = recorded.get("files", {}) if recorded.get("parameter sets") == sample else {}
    failed = False
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as executor:
        outcomes = executor.map(lambda file: outcome_of(file, arguments.all), named)
        for file, outcome in zip(named, outcomes, strict=True):
            print(f"{file}: {outcome}", flush=True)
            by_file[file] = dict(vars(outcome), left_out=dict(outcome.left_out.most_common()))
            failed = failed or bool(outcome.failed)
    whole = total(by_file)
    if left_out is None and not recorded:
        print(f"all of these: {whole}")
        sys.exit(failed)
    print(f"all: {whole}")
    kept = {reason: len(out) for reason, out in left_out.items()} if left_out else None
    document = {
        "made by": "python -m tests.gpu.cupy_suite",
        "CuPy": build.CUPY,
        "parameter sets": sample,
        **vars(whole),
        "left_out": dict(whole.left_out.most_common()),
        "files left out": kept or recorded["files left out"],
        "files": by_file,
    }
    RESULT.write_text(json.dumps(document, indent=1) + "\n")
    print(f"wrote {RESULT}")
    sys.exit(failed)


def total(by_file: dict[str, Any]) -> Outcome:
    """Return the sums of what the files gave."""
    whole = Outcome(0, [], Counter())
    for outcome in by_file.values():
        whole.passed += outcome["passed"]
        whole.failed += outcome["failed"]
        whole.left_out.update(outcome["left_out"])
    return whole


if __name__ == "__main__":
    try:
        main()
    except build.MissingError as error:
        print(f"CuPy's own tests are left out: {error}")
