"""Time what one does first: `make train` with an empty kernel cache, and `make test`.

python -m bench.networks.start --rounds 5 --suite 1

A round trains the speedrun on MNIST with an empty cache, then again with the filled one; a round of
the suite runs `make test` with an empty cache. Nothing else should run meanwhile: the machine's
load before each is recorded, too. Results go to bench/results/start-cpu.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.machine import machine

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "bench" / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="cold and warm trainings")
    parser.add_argument("--suite", type=int, default=0, help="runs of the test suite")
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "start-cpu.json"
    document = json.loads(path.read_text()) if path.exists() else {}
    if options.rounds:
        rounds = [trainings() for _ in range(options.rounds)]
        document["train"] = {
            state: summarise([found[state] for found in rounds]) for state in ("cold", "warm")
        }
    if options.suite:
        document["suite"] = summarise([suite() for _ in range(options.suite)])
    document["machine"] = machine()
    path.write_text(json.dumps(document, indent=2) + "\n")
    print(f"wrote {path}")


def trainings() -> dict[str, dict[str, Any]]:
    """Train with an empty cache, then with the filled one; return the times."""
    with tempfile.TemporaryDirectory() as cache:
        return {state: training(cache, state) for state in ("cold", "warm")}


def training(cache: str, state: str) -> dict[str, Any]:
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        words = "--recipe speedrun --device cpu --dataset mnist --quiet --runs".split()
        command = [sys.executable, "-m", "cnn", "train", *words, folder, "--json", str(results)]
        start = time.perf_counter()
        subprocess.run(command, env=environment(cache), check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        found = json.loads(results.read_text())
    taken = {name: found[name] for name in ("setup_seconds", "train_seconds", "test_accuracy")}
    taken |= {"seconds": seconds, "libraries": len(list(Path(cache).rglob("*.so"))), "load": load}
    print(state, ", ".join(f"{name} {value:.4g}" for name, value in taken.items()), flush=True)
    return taken


def suite() -> dict[str, Any]:
    """Run `make test` with an empty cache; return its time, without that of installing."""
    subprocess.run(["make", "--silent", ".venv/test"], cwd=REPOSITORY, check=True)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        done = subprocess.run(
            ["make", "test"],
            cwd=REPOSITORY,
            env=environment(cache),
            capture_output=True,
            text=True,
        )
        seconds = time.perf_counter() - start
        libraries = len(list(Path(cache).rglob("*.so")))
    if done.returncode != 0:
        sys.exit(f"make test ended with status {done.returncode}:\n{done.stdout[-4000:]}")
    tests = int(re.findall(r"(\d+) passed", done.stdout)[-1])
    print(f"suite {seconds:.0f} s, {tests} tests, {libraries} libraries", flush=True)
    return {"seconds": seconds, "tests": tests, "libraries": libraries, "load": load}


def environment(cache: str) -> dict[str, str]:
    """Return this process' environment with a cache of its own."""
    kept = {name: value for name, value in os.environ.items() if name != "KERNELS_CACHE_DIR"}
    return {**kept, "XDG_CACHE_HOME": cache}


def summarise(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return each number's median, smallest and largest, and the rounds."""
    medians = {name: statistics.median(found[name] for found in rounds) for name in rounds[0]}
    spans = {
        name: [min(found[name] for found in rounds), max(found[name] for found in rounds)]
        for name in rounds[0]
    }
    return {"median": medians, "least_and_most": spans, "rounds": rounds}


if __name__ == "__main__":
    main()
