"""Make a file for each suite and kind of machine in bench/results from pytest-benchmark's JSON.

python -m bench.report.condense raw.json
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import machine

RESULTS = Path(__file__).parents[1] / "results"

#: The files for each module's rows.
SUITES = {
    "test_kernels": "kernels",
    "test_training": "training-peers",
    "test_inference": "inference",
    "test_overhead": "overhead",
    "test_accelerate": "accelerate",
}


def spread(samples: list[float]) -> float:
    """Return half the distance between the quartiles, relative to the median."""
    low, middle, high = np.quantile(samples, [0.25, 0.5, 0.75])
    return float((high - low) / 2 / middle)


def row(ours: list[float], info: dict[str, Any]) -> dict[str, Any]:
    """Return a row's medians, noise and ratios; a ratio is of two samples of the same round."""
    samples = dict(info["samples"])
    peak = samples.pop("peak", None)
    result = {key: value for key, value in info.items() if key not in ("samples", "peak_work")}
    result |= {"rounds": len(ours), "seconds": statistics.median(ours), "noise": spread(ours)}
    result["peers"] = {}
    for name, theirs in samples.items():
        ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
        result["peers"][name] = {
            "seconds": statistics.median(theirs),
            "noise": spread(theirs),
            "ratio": statistics.median(ratios),
            "ratio_noise": spread(ratios),
        }
    if "images" in info:
        for timed in (result, *result["peers"].values()):
            timed["images_per_second"] = info["images"] / timed["seconds"]
    if result["peers"]:
        best = min(result["peers"], key=lambda name: result["peers"][name]["seconds"])
        result["best_peer"] = best
    if peak:
        work = result["operations" if info["bound"] == "arithmetic" else "bytes"]
        result["rate"] = work / result["seconds"]
        result["peak_rate"] = info["peak_work"] / statistics.median(peak)
        parts = [
            (work / our) / (info["peak_work"] / limit)
            for our, limit in zip(ours, peak, strict=True)
        ]
        result["part_of_peak"] = statistics.median(parts)
    return result


def line(row: dict[str, Any]) -> str:
    """Return a row as one line of text."""
    words = [f"{row['row']:<47}", f"{row['seconds'] * 1e3:10.3f} ms ±{row['noise']:4.0%}"]
    if "rate" in row:
        unit = "GFLOP/s" if row["bound"] == "arithmetic" else "GB/s"
        words.append(f"{row['rate'] / 1e9:7.1f} {unit:<7} {row['part_of_peak']:4.0%} of peak")
    if "images_per_second" in row:
        words.append(f"{row['images_per_second']:8,.0f} images/s")
    if row["peers"]:
        ratios = (f"{peer['ratio']:.2f}x {name}" for name, peer in row["peers"].items())
        words.append("  " + ", ".join(ratios))
    return " ".join(words)


def condense(raw: dict[str, Any], described: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Return the contents of each suite's file from the raw JSON and the machine's description."""
    commit = raw["commit_info"]
    about = {
        "machine": described,
        "commit": commit["id"][:12] + (" with changes" if commit["dirty"] else ""),
        "date": raw["datetime"],
        "clock": (
            "medians ± half the interquartile range of samples by time.perf_counter, warm caches"
        ),
    }
    documents: dict[str, dict[str, Any]] = {}
    for benchmark in raw["benchmarks"]:
        suite = SUITES[Path(benchmark["fullname"].partition("::")[0]).stem]
        document = documents.setdefault(suite, {**about, "rows": []})
        document["rows"].append(row(benchmark["stats"]["data"], benchmark["extra_info"]))
    return documents


def main() -> None:
    raw = json.loads(Path(sys.argv[1]).read_text())
    RESULTS.mkdir(exist_ok=True)
    described = machine()
    for suite, document in condense(raw, described).items():
        path = RESULTS / f"{suite}-{described['device']}.json"
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        print(f"{path}: {len(document['rows'])} rows")


if __name__ == "__main__":
    main()
