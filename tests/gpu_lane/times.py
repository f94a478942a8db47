"""Measured times of kernels and training steps beside their bounds, the caches hot.

    python -m tests.gpu_lane.times

The bounds are made of what the emulated GPU counted, bench/results/profile-*.json. A launch is
timed in a graph that repeats it, by CUDA's events, and so is a training step; a call together with
the Python code that starts its launches. A time below its bound shows that the bound is wrong, and
fails.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kernels.runtime import cuda_target
from tests.gpu import gpus
from tests.gpu.bound import Bound, bound, bound_of_all
from tests.gpu.profile import RESULTS, STEP, counts, rows_for, short

from . import launches, steps
from .launches import Launch
from .report import Report, of_this_part

ROUNDS = 5


def main() -> int:
    """Time every row of the profile of this GPU until all are done or time is up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    parser.add_argument("--repeat", type=int, default=20, help="of a launch in a graph")
    parser.add_argument("--profiles", type=Path, default=RESULTS)
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    report = of_this_part()
    import cupy

    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    known = gpus.of_device(name.removesuffix(" (emulated)"))  # that of a rehearsal
    if known is None:
        report.problem(f"no rates are known of {name}: tests/gpu/gpus.py does not have it")
        return report.status
    gpu, counted_as = known
    profile = options.profiles / f"profile-{counted_as}.json"
    timing = Timing(report, gpu, options.repeat)
    for row in json.loads(profile.read_text())["rows"]:
        if options.only not in row["row"]:
            continue
        if time.monotonic() > end:
            report.add("left_out", row["row"])
        else:
            timing.row(row)
    if "rows" not in report.found:
        report.problem("nothing was timed")
    return report.status


class Timing:
    """Times rows and compares them with their bounds."""

    def __init__(self, report: Report, gpu: gpus.Gpu, repeat: int) -> None:
        self._report, self._gpu, self._repeat = report, gpu, repeat
        self._target = cuda_target()

    def row(self, row: dict[str, Any]) -> None:
        """Time a row of the profile: a step, or a call of the benchmark."""
        step = STEP.fullmatch(row["row"])
        if step:
            self._step(row, step["network"], int(step["batch"]), step["precision"] or "fp32")
        else:
            self._call(row)

    def _step(self, row: dict[str, Any], network: str, batch: int, precision: str) -> None:
        training = steps.Steps(network, batch, 1 + self._repeat, precision)
        seen: list[Launch] = []
        with launches.each(lambda launch: _done(launch, seen)):
            training.record()

        def step() -> None:
            training.rewind()
            training.replay(self._repeat)

        training.rewind()
        self._compare(row, seen, self._seconds(step) / self._repeat, training.stand_within)

    def _call(self, row: dict[str, Any]) -> None:
        from bench.kernels import contenders

        contenders.torch = None  # no peers
        (found,) = (one for one in rows_for(self._target) if one.name == row["row"])
        sizes = found.sizes | {key: taken for key, (_, taken) in row.get("scaled", {}).items()}
        work = found.prepare(self._target, **sizes)
        run = work.contenders[contenders.OURS].run
        seen: list[Launch] = []
        with launches.each(lambda launch: _done(launch, seen)):
            run()

        def calls() -> None:
            for _ in range(self._repeat):
                run()

        self._compare(row, seen, self._seconds(calls) / self._repeat, lambda: None)

    def _compare(
        self, row: dict[str, Any], seen: list[Launch], seconds: float, before: Callable[[], None]
    ) -> None:
        """Report a row's time and its launches', and those that are below their bounds."""
        counted = counts(row)
        own = {launch.entry for launch in seen}
        listed = [launch for launch in counted["launches"] if launch["kernel"] in own]
        if [(c["kernel"], tuple(c["grid"])) for c in listed] != [(s.entry, s.grid) for s in seen]:
            self._report.problem(f"{row['row']}: the profile is of other launches: make profile")
            return
        name = row["row"]
        timed = {"row": name, **self._judged(name, seconds, bound_of_all(counted, self._gpu))}
        timed["launches"] = []
        for launch, of_it in zip(seen, listed, strict=True):
            before()
            # CuPy's own launches are in no graph; of the package's, each waits for the one before.
            graph = self._target.replayer([launch.run] * self._repeat)
            took = self._seconds(graph) / self._repeat
            judged = self._judged(f"{name}: {launch.entry}", took, bound(of_it, self._gpu))
            timed["launches"].append({"kernel": launch.entry, **judged})
        self._report.add("rows", timed)

    def _judged(self, name: str, seconds: float, least: Bound) -> dict[str, Any]:
        if seconds < least.seconds:
            self._report.problem(
                f"{name}: {seconds * 1e6:.2f} us, below the bound of {least.seconds * 1e6:.2f} us "
                f"that comes from {least.by}"
            )
        return {
            "us": short(seconds * 1e6),
            "bound_us": short(least.seconds * 1e6),
            "by": least.by,
        }

    def _seconds(self, run: Callable[[], None]) -> float:
        """Return the median seconds between two events around a call, after a warm-up."""
        import cupy

        stream = cupy.cuda.get_current_stream()
        times = []
        for _ in range(1 + ROUNDS):
            begin, end = cupy.cuda.Event(), cupy.cuda.Event()
            begin.record(stream)
            run()
            end.record(stream)
            end.synchronize()
            times.append(cupy.cuda.get_elapsed_time(begin, end) / 1e3)
        return statistics.median(times[1:])


def _done(launch: Launch, seen: list[Launch]) -> None:
    launch.run()
    seen.append(launch)


if __name__ == "__main__":
    sys.exit(main())
