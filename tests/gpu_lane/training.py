"""Trainings by the command line on the GPU: time and accuracy of the first and the second, bench.

python -m tests.gpu_lane.training
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import cnn.data
from cnn.__main__ import main as command_line
from cnn.data.synthetic import synthetic_digits

from .report import of_this_part

LEAST_ACCURACY = 0.98  # of the speedrun, as bench/networks/test_training.py has it

KEPT = ("dataset", "setup_seconds", "train_seconds", "images_per_second", "test_accuracy")


def main() -> int:
    """Train twice, the second time with every kernel in the cache; then `cnn bench`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, help="synthetic digits in place of the data set")
    options = parser.parse_args()
    if options.images is None:
        return trainings(LEAST_ACCURACY)
    few = synthetic_digits(options.images, options.images)
    with patch.object(cnn.data, "load", lambda *_, **__: few):
        return trainings(least_accuracy=0)


def trainings(least_accuracy: float) -> int:
    """Train and bench; return the exit status."""
    report = of_this_part()
    with tempfile.TemporaryDirectory() as name:
        results = Path(name) / "results.json"

        def cnn_(*words: str) -> dict[str, object] | None:
            status = command_line([*words, "--device", "cuda", "--json", str(results)])
            if status:
                report.problem(f"cnn {words[0]} ended with status {status}")
                return None
            found: dict[str, object] = json.loads(results.read_text())
            return found

        for run in ("first", "second"):
            trained = cnn_("train", "--quiet", "--runs", name, "--run", run)
            if trained is None:
                return report.status
            report.add("trainings", {key: trained[key] for key in KEPT})
            accuracy = trained["test_accuracy"]
            if not accuracy >= least_accuracy:
                report.problem(f"accuracy: {accuracy:.2%}, expected {least_accuracy:.0%} at least")
        if least_accuracy:
            report.note(bench=cnn_("bench"))
    return report.status


if __name__ == "__main__":
    sys.exit(main())
