"""Count what kernels and training steps do on four emulated GPUs, and write it as JSON.

    make profile
    make profile ARGS="--gpu h100 --images 16 --only conv2d"

Nothing is timed. `bound` is a lower bound on a launch's time on that GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from . import device
from .bound import Bound, bound, bound_of_all, instructions, issued, residence, share
from .gpus import GPUS, Gpu

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "bench" / "results"
STEPS = [
    (network, batch, precision)
    for network, precision in (("speedrun", "fp32"), ("speedrun", "bf16"), ("batch-norm", "fp32"))
    for batch in (128, 512)
]

#: The rows of the steps, and how a row's name tells which.
STEP = re.compile(
    r"training step: (?P<network>[\w-]+), batch (?P<batch>\d+)(, (?P<precision>\w+))?"
)

#: What the results call the figures of a launch, of all its blocks and of that with the least.
FIGURES = {"all": "figures", "least": "least"}

ARITHMETIC = ("fma32", "add32", "mul32", "half", "fma64", "tensor")


def main() -> None:
    """Profile on every GPU asked for, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpu", action="append", choices=GPUS, help="may be given repeatedly")
    parser.add_argument("--images", type=int, default=1024, help="in a batch of kernels, at most")
    parser.add_argument("--elements", type=int, default=2**22, help="of flat arrays, at most")
    parser.add_argument("--batch", type=int, default=512, help="larger training steps are left out")
    parser.add_argument("--only", default="", help="rows whose name has this in it: others stay")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--here", choices=GPUS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        profile(options)
        return
    for gpu in options.gpu or GPUS:
        command = [sys.executable, "-m", "tests.gpu.profile", *sys.argv[1:], "--here", gpu]
        environment = {**os.environ, "EMULATED_GPU": gpu}
        subprocess.run(command, check=True, cwd=REPOSITORY, env=environment)


def profile(options: argparse.Namespace) -> None:
    """Profile on one GPU, in this process; the file is written anew after every row."""
    device.turn_on()
    if device.real_gpu():
        sys.exit("make profile: the GPU is a real one, which counts nothing")
    gpu = GPUS[options.here]
    path = options.results / f"profile-{options.here}.json"
    stays = options.only and path.exists()  # what is not asked for
    before = json.loads(path.read_text())["rows"] if stays else []
    rows = {row["row"]: row for row in before}
    counted = 0
    print(f"\n{gpu.name}: bounds, not times\n{HEADER}")
    for row in _rows(options, gpu):
        counted += 1
        rows[row["row"]] = row
        for line in lines(row, gpu):
            print(line, flush=True)
        body = ",\n".join(map(json.dumps, rows.values()))
        path.write_text(
            f'{{"made by": "make profile", "gpu": "{gpu.name}", "rows": [\n{body}\n]}}\n'
        )
    if not counted:
        sys.exit(f"make profile: --only: no row has {options.only!r} in its name")
    print(f"wrote {path}")


def _rows(options: argparse.Namespace, gpu: Gpu) -> Iterator[dict[str, Any]]:
    for network, batch, precision in STEPS:
        name = f"training step: {network}, batch {batch}"
        name += "" if precision == "fp32" else f", {precision}"
        able = precision == "fp32" or precision in gpu.tensor
        if options.only in name and batch <= options.batch and able:
            yield described(name, counted_step(network, batch, precision), gpu, {})
    for name, counted, about in counted_kernels(options):
        yield described(name, counted, gpu, about)


def rows_for(target: Any) -> Iterator[Any]:
    """Yield the benchmark's rows, and those of products of 16-bit arrays in the target's type."""
    from bench.kernels import rows

    yield from rows.rows()
    yield from rows.narrow_rows("bf16" if "bf16" in target.precisions else "fp16")


def counted_kernels(options: argparse.Namespace) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield rows: their names, what our call does, and what else the results say of it.

    That is what was made smaller, and the floating-point operations of a product.
    """
    from bench.kernels import contenders
    from kernels.runtime import choose_target

    contenders.torch = None  # no peers
    most = {"N": options.images, "count": options.elements}
    target, _ = choose_target("cuda")
    for row in rows_for(target):
        if options.only not in row.name:
            continue
        sizes = {key: min(value, most.get(key, value)) for key, value in row.sizes.items()}
        work = row.prepare(target, **sizes)
        ours = work.contenders[contenders.OURS]
        ours.run()  # what is done at the first call alone is not counted
        with device.counting() as counted:
            ours.run()
        about: dict[str, Any] = {}
        if work.operations:  # an input's gradient is counted with the filters'
            about["operations"] = work.operations * (2 if ours.less else 1)
        if changed := {k: [v, sizes[k]] for k, v in row.sizes.items() if sizes[k] != v}:
            about["scaled"] = changed
        yield row.name, counted, about


def counted_step(network: str, batch: int, precision: str = "fp32") -> dict[str, Any]:
    """Count a planned step of training: the second, which replays what the first recorded."""
    counts: list[dict[str, Any]] = []

    def counting(step: Callable[[], None]) -> None:
        with device.counting() as counted:
            step()
        counts.append(counted)

    planned_steps(network, batch, 2, counting, precision)
    return counts[1]


def planned_steps(
    network: str,
    batch: int,
    count: int,
    around: Callable[[Callable[[], None]], None],
    precision: str = "fp32",
) -> None:
    """Train for some steps, each of which `around` is to call; the first one records the others."""
    import cnn
    from bench.networks import definitions as networks
    from cnn.data.synthetic import synthetic_digits
    from cnn.plan import Plan

    recipe = networks.NETWORKS[network]
    model = cnn.Sequential(recipe.layers(), networks.INPUT_SHAPE, device="cuda", seed=0)
    trainer = recipe.trainer(model, precision=precision, seed=0)
    done = 0
    step = Plan.step

    def wrapped(self: Plan, rows: int, check: Callable[[], None] = lambda: None) -> None:
        nonlocal done
        around(lambda: step(self, rows, check))
        done += 1

    train, _ = synthetic_digits(count * batch, 10)
    with patch.object(Plan, "step", wrapped):
        trainer.fit(train, epochs=1, batch_size=batch)
    assert trainer.planned and done == count, trainer.obstacle


def described(
    name: str, counted: dict[str, Any], gpu: Gpu, about: dict[str, Any]
) -> dict[str, Any]:
    """Return a row of the results: the launches' figures and bounds, and those of all together.

    `about` is what `counted_kernels` says of it besides.
    """
    launches = []
    for launch in counted["launches"]:
        where = residence(launch, gpu)
        kept = {key: value for key, value in launch.items() if key not in ("all", "least")}
        for key, column in FIGURES.items():
            kept[column] = {figure: value for figure, value in launch[key].items() if value}
        kept |= {"occupancy": where.occupancy, "waves": short(where.waves)}
        kept |= {"tail": short(where.tail), "instructions": instructions(launch["all"])}
        kept |= {"issued": issued(launch["all"])}
        kept |= {"arithmetic": short(share(launch["all"], ARITHMETIC))}
        kept |= {"bound": _told(bound(launch, gpu)), "cold_bound": _told(bound(launch, gpu, True))}
        launches.append(kept)
    row = {"row": name, "launches": launches, "bytes": counted["bytes"]}
    row["bound"] = _told(bound_of_all(counted, gpu))
    return row | about


def counts(row: dict[str, Any]) -> dict[str, Any]:
    """Return what was counted, of a row of the results: the bounds can be taken again of it."""
    launches = [
        {**launch, **{key: Counter(launch[column]) for key, column in FIGURES.items()}}
        for launch in row["launches"]
    ]
    return {"launches": launches, "bytes": row["bytes"]}


def _told(it: Bound) -> dict[str, Any]:
    parts = {name: short(seconds) for name, seconds in it.parts.items() if seconds}
    return {"seconds": short(it.seconds), "by": it.by, "parts": parts}


def short(value: float) -> float:
    """Return a value rounded to four digits."""
    return float(f"{value:.4g}")


HEADER = (
    f"{'':46} {'bound us':>8} {'by':<12} {'cold us':>8} {'warp-instr.':>11} {'all us':>8} "
    f"{'arith.':>6} {'lanes':>5} {'sect/ld':>7} {'used':>5} {'MB':>7} {'confl.':>6} {'reg':>3} "
    f"{'occ.':>5} {'waves':>6}"
)


def lines(row: dict[str, Any], gpu: Gpu) -> list[str]:
    """Return a row as text: one line of all, and one a launch."""
    name = row["row"]
    for key, (wanted, taken) in row.get("scaled", {}).items():
        name += f" [{key} {taken} of {wanted}]"
    total = row["bound"]
    count = f"{len(row['launches'])} launches"
    first = f"{name:<46} {total['seconds'] * 1e6:8.2f} {total['by']:<12} {count}"
    return [first, *(_line(launch, gpu) for launch in row["launches"])]


def _line(launch: dict[str, Any], gpu: Gpu) -> str:
    figures = launch["figures"]
    seconds = launch["issued"] / (gpu.issue * gpu.multiprocessors * gpu.clock)
    grid = "x".join(str(n) for n in launch["grid"] if n > 1) or "1"
    block = "x".join(str(n) for n in launch["block"] if n > 1) or "1"
    loads, sectors = (figures.get(f"global_load_{n}", 0) for n in ("requests", "sectors"))
    stored = figures.get("global_store_sectors", 0)
    moved = 32 * (sectors + stored)
    used = sum(figures.get(f"global_{n}_bytes", 0) for n in ("load", "store"))
    wavefronts = figures.get("shared_wavefronts", 0)
    lanes = figures["active_lanes"] / 32 / launch["instructions"]
    words = [
        f"{'  ' + launch['kernel'] + ' ' + grid + ' of ' + block:<46}",
        f"{launch['bound']['seconds'] * 1e6:8.2f} {launch['bound']['by']:<12}",
        f"{launch['cold_bound']['seconds'] * 1e6:8.2f}",
        f"{launch['instructions']:11,} {seconds * 1e6:8.2f}",
        f"{launch['arithmetic']:6.0%}",
        f"{lanes:5.0%}",
        f"{sectors / loads:7.1f}" if loads else f"{'-':>7}",
        f"{used / moved:5.0%}" if moved else f"{'-':>5}",
        f"{launch['bytes']['touched'] / 1e6:7.2f}",
        f"{figures.get('shared_conflicts', 0) / wavefronts:6.0%}" if wavefronts else f"{'-':>6}",
        f"{launch['registers']:3} {launch['occupancy']:5.0%} {launch['waves']:6.2f}",
    ]
    return " ".join(words) + (f" {launch['spilled']} bytes spilled" if launch["spilled"] else "")


if __name__ == "__main__":
    main()
