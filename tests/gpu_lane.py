"""Run the tests on a GPU, then a part of them under compute-sanitizer; write the counts as JSON.

    make gpu
    make gpu GPU_PYTHON=python3 RESULTS=/tmp/results

Fails where there is no GPU, where compute-sanitizer is missing or does not report a planted fault,
and where a test fails. Ends within nine minutes and needs no network.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np

from kernels.runtime import cuda

TESTS = Path(__file__).resolve().parent
REPOSITORY = TESTS.parent
BUDGET_SECONDS = 520  # of nine minutes

#: Every public function twice: all kernels, at sizes of several blocks.
FAST = ["tests/test_repeatability.py", "-k", "cuda and twice", "-p", "without_pool"]
FAULT_STATUS = 86
# The padding parts arrays that would otherwise lie side by side. CUDA calls that return an error
# are CuPy's to raise or to ignore.
TOOLS = {
    "memcheck": (["--padding", "64", "--report-api-errors", "no"], "write_past_end"),
    "racecheck": ([], "missing_barrier"),
}


def main() -> int:
    """Run every step, write the results and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=REPOSITORY / "bench" / "results")
    parser.add_argument("--commit", help="what is tested, where the folder is no git checkout")
    options = parser.parse_args()
    reason = cuda.unavailable()
    if reason is not None:
        print(f"make gpu: there is no GPU to test on: {reason}", file=sys.stderr)
        return 1
    started = time.monotonic()
    deadline = started + BUDGET_SECONDS
    steps = {"suite": run_tests([], ["tests", "-k", "cuda"], deadline)}
    for tool in TOOLS:
        steps[tool] = run_tool(tool, deadline)
    document = {
        **machine(),
        "commit": options.commit or commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "seconds": round(time.monotonic() - started),
        "steps": steps,
    }
    name = re.sub(r"[^a-z0-9]+", "-", document["device"].lower()).strip("-")
    path = options.results / f"gpu-tests-{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")
    for step, result in steps.items():
        print(f"{step}: {', '.join(f'{key} {value}' for key, value in result.items())}")
    print(f"wrote {path}")
    return 0 if all(result["outcome"] == "passed" for result in steps.values()) else 1


def run_tool(tool: str, deadline: float) -> dict[str, Any]:
    """Run the fast tests under a tool of compute-sanitizer that has first reported a fault."""
    # CUDA's own folder is seldom on PATH.
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/cuda/bin"])
    program = shutil.which("compute-sanitizer", path=path)
    if program is None:
        return {"outcome": "compute-sanitizer is neither on PATH nor in /usr/local/cuda/bin"}
    options, fault = TOOLS[tool]
    prefix = [program, "--tool", tool, "--error-exitcode", str(FAULT_STATUS), *options]
    command = [*prefix, sys.executable, str(TESTS / "sanitizer_faults.py"), fault, "cuda"]
    status, report = run(command, deadline, shown=False)
    if status is None:
        return {"outcome": "out of time"}
    if status != FAULT_STATUS or fault not in report:
        print(report)
        return {"outcome": f"the planted fault {fault} was not reported (status {status})"}
    return run_tests(prefix, FAST, deadline)


def run_tests(prefix: list[str], arguments: list[str], deadline: float) -> dict[str, Any]:
    """Run pytest, under a tool where a prefix is given, and return outcome and counts."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
        counts_file = Path(folder) / "counts.xml"
        words = [sys.executable, *"-m pytest -q -p no:cacheprovider".split()]
        status = run([*prefix, *words, f"--junitxml={counts_file}", *arguments], deadline)[0]
        counts = read_counts(counts_file)
    seconds = round(time.monotonic() - started)
    if status is None:
        outcome = "out of time"
    elif status == FAULT_STATUS:
        outcome = "errors reported"
    elif status != 0:
        outcome = f"failed with status {status}"
    else:
        outcome = "passed" if counts["passed"] else "no test ran"
    return {"outcome": outcome, **counts, "seconds": seconds}


def read_counts(path: Path) -> dict[str, int]:
    """Return how many tests passed, failed and were skipped, from pytest's JUnit file."""
    if not path.exists():  # pytest did not come to its end
        return {"passed": 0, "failed": 0, "skipped": 0}
    suite = next(ElementTree.parse(path).iter("testsuite"))
    failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    skipped = int(suite.get("skipped", 0))
    return {
        "passed": int(suite.get("tests", 0)) - failed - skipped,
        "failed": failed,
        "skipped": skipped,
    }


def run(command: list[str], deadline: float, shown: bool = True) -> tuple[int | None, str]:
    """Return a command's exit status, or None where time ran out, and its output if not shown."""
    folders = [str(REPOSITORY), str(TESTS), os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, folders))},
        stdout=None if shown else subprocess.PIPE,
        stderr=None if shown else subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output = process.communicate(timeout=max(deadline - time.monotonic(), 0))[0]
    except subprocess.TimeoutExpired:
        return None, ""
    finally:
        if process.poll() is None:  # out of time, or interrupted
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return process.returncode, output or ""


def machine() -> dict[str, Any]:
    """Return what the results depend on."""
    import cupy

    runtime = cupy.cuda.runtime
    return {
        "device": runtime.getDeviceProperties(0)["name"].decode(),
        "compute_capability": cupy.cuda.Device(0).compute_capability,
        "driver": driver(),
        "cuda_driver": runtime.driverGetVersion(),
        "cuda_runtime": runtime.runtimeGetVersion(),
        "cupy": cupy.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def driver() -> str:
    """Return the driver's version, as nvidia-smi has it."""
    return printed(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"])


def commit() -> str:
    """Return the commit that is checked out, with "-dirty" where files differ from it."""
    words = "describe --always --abbrev=40 --exclude=* --dirty".split()
    return printed(["git", "-C", str(REPOSITORY), *words])


def printed(command: list[str]) -> str:
    """Return the line that a command prints, or "unknown" where it cannot be asked."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"


if __name__ == "__main__":
    sys.exit(main())
