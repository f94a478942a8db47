"""Train recipes with several seeds by the command line; write the runs and a summary as JSON.

python -m bench.networks.training --recipe speedrun --seeds 0 1 2

With --runs, the run folders stay there, and the same command goes on with those it finds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.machine import machine

RESULTS = Path(__file__).parents[1] / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", action="append", required=True, help="may be given repeatedly")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=Path, help="folder that keeps the runs (default: none)")
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"training-{options.device}.json"
    document = json.loads(path.read_text()) if path.exists() else {"recipes": {}}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.runs or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for recipe in options.recipe:
            runs = [train(recipe, seed, options.device, folder) for seed in options.seeds]
            models = [
                folder / name_of(recipe, seed) / "model.safetensors" for seed in options.seeds
            ]
            summary = summarise(runs) | ensemble(models, options.device, folder)
            measured = {"machine": machine(), "summary": summary, "runs": runs}
            document["recipes"][recipe] = measured
            path.write_text(json.dumps(document, indent=2) + "\n")
    print(f"wrote {path}")


def train(recipe: str, seed: int, device: str, folder: Path) -> dict[str, Any]:
    """Run a training, or go on with it, and return what it wrote, with its peak memory."""
    run = folder / name_of(recipe, seed)
    results = folder / f"{run.name}.json"
    if results.exists():
        return json.loads(results.read_text())
    new = f"--runs {folder} --run {run.name} --recipe {recipe} --seed {seed} --dataset mnist"
    words = f"--resume {run}" if run.exists() else f"{new} --device {device}"
    command = [sys.executable, "-m", "cnn", "train", *words.split(), "--quiet"]
    measured = [sys.executable, "-c", PEAK_MEMORY, *command, "--json", str(results)]
    done = subprocess.run(measured, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)  # the command has said why
    print(done.stdout.splitlines()[0], flush=True)
    peak_kib = int(done.stdout.splitlines()[-1])
    found = json.loads(results.read_text()) | {"peak_memory_mib": round(peak_kib / 1024)}
    results.write_text(json.dumps(found))
    return found


def name_of(recipe: str, seed: int) -> str:
    """Return the name of a run's folder."""
    return f"{recipe}-{seed}"


def ensemble(models: list[Path], device: str, folder: Path) -> dict[str, float]:
    """Return the test accuracy of the mean of the models' probabilities."""
    if len(models) < 2:
        return {}
    results = folder / "ensemble.json"
    command = [sys.executable, "-m", "cnn", "evaluate", *map(str, models), "--dataset", "mnist"]
    subprocess.run([*command, "--device", device, "--json", str(results)], check=True)
    return {"ensemble_test_accuracy": json.loads(results.read_text())["test_accuracy"]}


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


if __name__ == "__main__":
    main()
