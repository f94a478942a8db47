"""Try everything on a GPU within eight minutes, what is worth most first; write results as JSON.

    make gpu
    make gpu GPU_PYTHON=python3 RESULTS=/tmp/results COMMIT=abc123
    make gpu REHEARSE=h100        on the emulated GPU, small sizes

The file is written anew after every part, so that a run that is cut short loses nothing. Fails
where there is no GPU, where compute-sanitizer is missing or does not report a planted fault, and
where a part fails or does not end in time. Needs no network.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from . import report

REPOSITORY = Path(__file__).resolve().parents[2]
BUDGET_SECONDS = 470  # of eight minutes

PYTEST = "pytest -q -p no:cacheprovider -p tests.gpu_lane.counts"
#: What waits for the host most of the time: several processes share the GPU.
WORKERS = f" -n {min(8, os.cpu_count() or 1)}" if importlib.util.find_spec("xdist") else ""


class Part(NamedTuple):
    """What is run: a module with its arguments, for how long, and the smaller form of it."""

    words: str
    seconds: int
    rehearsal: str


#: In order of worth.
PARTS = {
    "smoke": Part("tests.gpu_lane.smoke", 60, "tests.gpu_lane.smoke"),
    "bits": Part(
        "tests.gpu_lane.bits --seconds 80",
        100,
        "tests.gpu_lane.bits --only dense --batch 2 --seconds 30",
    ),
    "times": Part(
        "tests.gpu_lane.times --seconds 60",
        80,
        "tests.gpu_lane.times --only odd --repeat 2 --seconds 30",
    ),
    "suite": Part(
        f"{PYTEST}{WORKERS} tests -k cuda", 130, f"{PYTEST} tests/kernels/test_dense.py -k cuda"
    ),
    "memcheck": Part(
        "tests.gpu_lane.sanitizer memcheck",
        50,
        "tests.gpu_lane.sanitizer memcheck --emulated --only dense",
    ),
    "racecheck": Part(
        "tests.gpu_lane.sanitizer racecheck",
        50,
        "tests.gpu_lane.sanitizer racecheck --emulated --only dense",
    ),
    "training": Part("tests.gpu_lane.training", 60, "tests.gpu_lane.training --images 8"),
}


def main() -> int:
    """Run every part, write the results and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=REPOSITORY / "bench" / "results")
    parser.add_argument("--commit", help="what is tested, where the folder is no git checkout")
    parser.add_argument("--rehearse", metavar="GPU", help="an emulated one: h100, a100, ...")
    options = parser.parse_args()
    python = [sys.executable, "-m"]
    if options.rehearse:
        os.environ["EMULATED_GPU"] = options.rehearse
        python += ["tests.gpu", "-m"]
    commands = {
        name: (
            [*python, *(part.rehearsal if options.rehearse else part.words).split()],
            part.seconds,
        )
        for name, part in PARTS.items()
    }
    head = {
        "commit": options.commit or commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }
    if options.rehearse:
        head["rehearsal"] = "on an emulated GPU: no time here is a GPU's"
    return run_parts(commands, head, options.results)


def run_parts(
    commands: dict[str, tuple[list[str], float]],
    head: dict[str, Any],
    folder: Path,
    budget: float = BUDGET_SECONDS,
) -> int:
    """Run commands in order, each within its seconds, and write what they found after each.

    Parameters
    ----------
    commands : dict
        By the parts' names, what to run and for how many seconds at most. The first tells the
        device; where it fails, nothing else is run, nor is anything written.
    head : dict
        What the results begin with.
    folder : Path
        Of the results.
    budget : float
        Seconds for all together.
    """
    started = time.monotonic()
    parts: dict[str, dict[str, Any]] = {}
    path: Path | None = None
    for name, (command, seconds) in commands.items():
        left = started + budget - time.monotonic()
        if left <= 0:
            parts[name] = {"outcome": "not begun: out of time"}
        else:
            print(f"--- {name}", flush=True)
            parts[name] = run_part(command, min(seconds, left))
        if path is None:
            if "device" not in parts[name]:
                return 1
            device = re.sub(r"[^a-z0-9]+", "-", parts[name]["device"].lower()).strip("-")
            path = folder / f"gpu-{'rehearsal-' if 'rehearsal' in head else ''}{device}.json"
            folder.mkdir(parents=True, exist_ok=True)
        spent = {"seconds": round(time.monotonic() - started)}
        path.write_text(json.dumps({**head, **spent, "parts": parts}, indent=1) + "\n")
        print(f"--- {name}: {parts[name]['outcome']}", flush=True)
    print(f"wrote {path}")
    return 0 if all(part["outcome"] == "passed" for part in parts.values()) else 1


def run_part(command: list[str], seconds: float) -> dict[str, Any]:
    """Run one part to its end or for some seconds; return what it found, and the outcome."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gpu-") as name:
        file = Path(name) / "report.json"
        status = run(command, seconds, {report.VARIABLE: str(file)})
        found = report.read(file)
    problems = found.get("problems", [])
    if status is None:
        outcome = "out of time"
    elif problems:
        outcome = f"{len(problems)} problems" if problems[1:] else problems[0]
    else:
        outcome = f"failed with status {status}" if status else "passed"
    return {"outcome": outcome, "seconds": round(time.monotonic() - started, 1), **found}


def run(command: list[str], seconds: float, environment: dict[str, str]) -> int | None:
    """Return a command's exit status, None where time ran out: all that it started is ended."""
    folders = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    path = {"PYTHONPATH": os.pathsep.join(filter(None, folders))}
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env={**os.environ, **path, **environment}, start_new_session=True
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:  # out of time, or interrupted
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def commit() -> str:
    """Return the commit that is checked out, with "-dirty" where files differ from it."""
    words = "describe --always --abbrev=40 --exclude=* --dirty".split()
    try:
        done = subprocess.run(
            ["git", "-C", str(REPOSITORY), *words], capture_output=True, text=True
        )
    except OSError:
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"


if __name__ == "__main__":
    sys.exit(main())
