"""Train recipes with several seeds by the command line; write the runs and a summary as JSON.

python -m bench.networks.training --recipe speedrun --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", action="append", required=True, help="may be given repeatedly")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"training-{options.device}.json"
    document = json.loads(path.read_text()) if path.exists() else {"recipes": {}}
    document["machine"] = machine()
    for recipe in options.recipe:
        runs = [train(recipe, seed, options.device) for seed in options.seeds]
        document["recipes"][recipe] = {"summary": summarise(runs), "runs": runs}
        path.write_text(json.dumps(document, indent=2) + "\n")


def train(recipe: str, seed: int, device: str) -> dict[str, Any]:
    """Run a training and return what it wrote, with its peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        words = f"--recipe {recipe} --seed {seed} --device {device} --dataset mnist --quiet"
        command = [sys.executable, "-m", "cnn", "train", *words.split()]
        command += ["--runs", folder, "--json", str(results)]
        measured = [sys.executable, "-c", PEAK_MEMORY, *command]
        done = subprocess.run(measured, check=True, capture_output=True, text=True)
        print(done.stdout.splitlines()[0], flush=True)
        peak_kib = int(done.stdout.splitlines()[-1])
        return json.loads(results.read_text()) | {"peak_memory_mib": round(peak_kib / 1024)}


# Runs a command and prints the largest resident set of any of its processes.
PEAK_MEMORY = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""


def summarise(runs: list[dict[str, Any]]) -> dict[str, float]:
    accuracies = [run["test_accuracy"] for run in runs]
    return {
        "seeds": len(runs),
        "mean_test_accuracy": statistics.mean(accuracies),
        "lowest_test_accuracy": min(accuracies),
        "standard_deviation": statistics.stdev(accuracies) if len(runs) > 1 else 0.0,
        "median_train_seconds": statistics.median(run["train_seconds"] for run in runs),
        "median_images_per_second": statistics.median(run["images_per_second"] for run in runs),
        "peak_memory_mib": max(run["peak_memory_mib"] for run in runs),
    }


def machine() -> dict[str, str]:
    """Return what the timings depend on."""
    cpu = next(
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    info = subprocess.run(
        [sys.executable, "-m", "cnn", "info"], check=True, capture_output=True, text=True
    ).stdout
    told = dict(
        line.split(maxsplit=1) for line in info.splitlines() if not line.startswith("cache")
    )
    return {"cpu": cpu, "system": platform.system(), **told}


if __name__ == "__main__":
    main()
