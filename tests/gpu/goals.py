"""The goals of the kernels on a GPU, beside what the counters show.

    python -m tests.gpu.goals

Everything comes from bench/results: profile-*.json of `make profile`, main-loops.json of
`python -m tests.lib.main_loop`, and loads-in-flight.json of `python -m tests.gpu.in_flight`.
Nothing was timed. What naive CuPy does instead is in README.md ("Beside CuPy").
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .bound import LAUNCH
from .gpus import GPUS, Gpu
from .in_flight import ARCH, FILE
from .profile import RESULTS, STEP

#: The GPUs that the goals are for.
MODELS = tuple(ARCH)

#: Bytes of loads that are to wait for a multiprocessor's memory together: 16 of 4 bytes in each of
#: 512 threads, which is twice what an H100's DRAM takes, 25 bytes per nanosecond and
#: multiprocessor for some 600 ns.
IN_FLIGHT = 16 * 4 * 512
#: Multiply-adds of an mma.sync in 16 bits: 16 x 8 x 16.
MMA = 16 * 8 * 16
#: The least bytes of a launch that this and the number of blocks are for: 2^20 elements of 4 bytes.
LARGE = 4 * 2**20

Row = dict[str, Any]


class Goal(NamedTuple):
    """What the rows of a profile are to show.

    Attributes
    ----------
    what : str
        What `value` returns.
    rows : str
        A regular expression for the rows' whole names.
    most : float
        The most that `value` should be.
    value : callable
        Returns it for a row and a GPU, or None if the goal does not concern the row.
    models : tuple of str
        The GPUs.
    """

    what: str
    rows: str
    most: float
    value: Callable[[Row, Gpu], float | None]
    models: tuple[str, ...] = MODELS


class Found(NamedTuple):
    """What one row shows on one GPU."""

    goal: Goal
    row: str
    model: str
    value: float

    @property
    def met(self) -> bool:
        """Whether it is as good as the goal, rounded as it is shown."""
        return round(self.value, 2) <= self.goal.most


def over_ffma(row: Row, gpu: Gpu) -> float:
    """Return the bound over the least time of a launch with the row's multiply-adds, in float32."""
    return _over(row, gpu, gpu.float32)


def over_mma(row: Row, gpu: Gpu) -> float:
    """Return the same for multiply-adds by mma.sync, in 16 bits."""
    return _over(row, gpu, gpu.tensor["bf16"] * gpu.mma_sync)


def _over(row: Row, gpu: Gpu, rate: float) -> float:
    least = row["operations"] / 2 / (rate * gpu.multiprocessors * gpu.clock)
    return float(row["bound"]["seconds"]) / max(least, LAUNCH)


def over_distinct_bytes(row: Row, gpu: Gpu) -> float | None:
    """Return the bytes in all sectors that are loaded and stored over the distinct ones."""
    if _is_product(row):
        return None
    distinct = sum(launch["bytes"][n] for launch in row["launches"] for n in ("read", "written"))
    return _in_sectors(row) / distinct


def over_used_bytes(row: Row, gpu: Gpu) -> float | None:
    """Return the bytes in these sectors over those of them that threads ask for."""
    if _is_product(row):
        return None
    return _in_sectors(row) / sum(_figure(row, f"global_{n}_bytes") for n in ("load", "store"))


def over_blocks(row: Row, gpu: Gpu) -> float | None:
    """Return the multiprocessors over the blocks of a large launch, where these are fewest."""
    if _is_product(row):
        return None
    blocks = [math.prod(launch["grid"]) for launch in row.get("launches", ()) if _is_large(launch)]
    return gpu.multiprocessors / min(blocks) if blocks else None


def over_loads_in_flight(row: Row, gpu: Gpu) -> float | None:
    """Return the loads that must wait together over those that do: reads need their share."""
    values = []
    for launch in row.get("launches", ()):
        read, written = launch["bytes"]["read"], launch["bytes"]["written"]
        if _is_large(launch) and "in flight" in launch:
            blocks = math.ceil(math.prod(launch["grid"]) / gpu.multiprocessors)
            threads = min(blocks, launch["resident"]) * math.prod(launch["block"])
            needed = IN_FLIGHT * read / (read + written)
            values.append(needed / (threads * launch["in flight"]))
    return max(values, default=None)


def over_least_wavefronts(row: Row, gpu: Gpu) -> float | None:
    """Return the accesses to shared memory, in clocks, over those without bank conflicts."""
    wavefronts = _figure(row, "shared_wavefronts")
    if "operations" not in row or not wavefronts:
        return None
    return wavefronts / (wavefronts - _figure(row, "shared_conflicts"))


def _is_product(row: Row) -> bool:
    return bool(STEP.fullmatch(row["row"])) or "operations" in row


def _is_large(launch: Row) -> bool:
    return bool(launch["bytes"]["touched"] >= LARGE)


def _in_sectors(row: Row) -> float:
    return 32 * sum(_figure(row, f"global_{n}_sectors") for n in ("load", "store"))


def _figure(row: Row, name: str) -> float:
    return float(sum(launch["figures"].get(name, 0) for launch in row["launches"]))


def instructions(row: Row, gpu: Gpu) -> float | None:
    """Return the instructions of a main loop over those that its multiplications leave time for."""
    if "multiplications" not in row:
        return None
    if row["tile"].endswith("FP32"):
        return float(row["instructions"] / row["multiplications"])
    schedulers_rate = gpu.tensor["bf16"] * gpu.mma_sync / gpu.issue  # multiply-adds per clock
    return float(row["instructions"] / (row["multiplications"] * MMA / schedulers_rate))


def launches(row: Row, gpu: Gpu) -> float:
    """Return the number of launches."""
    return len(row["launches"])


def microseconds(row: Row, gpu: Gpu) -> float:
    """Return the bound in microseconds."""
    return 1e6 * float(row["bound"]["seconds"])


OF_LOOP = "instructions in the main loop / multiply-adds"
OF_MMA_LOOP = "instructions in the main loop / clocks of its mma.sync"
OF_BANKS, OF_SECTORS = "shared-memory clocks / least", "bytes in sectors / bytes asked for"
OF_FFMA, OF_MMA = "bound / time of its FFMA", "bound / time of its mma.sync"
OF_BLOCKS = "multiprocessors / blocks"
OF_LOADS = "bytes of loads that must wait together / those that do"
OF_BYTES, OF_LAUNCHES, BOUND = "bytes moved / distinct bytes", "launches", "bound in microseconds"
SPEEDRUN = "training step: speedrun, batch "
GOALS = (
    Goal(OF_LOOP, r"main loop: .*, FP32", 1.25, instructions),
    Goal(OF_MMA_LOOP, r"main loop: .*, bf16", 1.4, instructions),
    Goal(OF_BANKS, r"(conv2d|dense) .*", 1, over_least_wavefronts),
    Goal(OF_FFMA, r"conv2d .*: ResNet .*(?<!bf16)", 1.25, over_ffma),
    Goal(OF_FFMA, r"conv2d .*: speedrun 2", 1.5, over_ffma),
    Goal(OF_MMA, r"(conv2d|dense) .*, bf16", 1.4, over_mma),
    Goal(OF_BYTES, r"(?!main loop).*", 1.15, over_distinct_bytes),
    Goal(OF_SECTORS, r"(?!main loop).*", 1.02, over_used_bytes),
    Goal(OF_BLOCKS, "(?!main loop).*", 1, over_blocks),
    Goal(OF_LOADS, ".*", 1, over_loads_in_flight),
    Goal(OF_LAUNCHES, SPEEDRUN + ".*", 10, launches),
    Goal(BOUND, SPEEDRUN + "512, bf16", 60, microseconds, ("h100",)),
    Goal(BOUND, SPEEDRUN + "512", 150, microseconds, ("h100",)),
)

# Why rows miss a goal, and what was tried.
NARROW = (
    "a narrow tile has fewer multiply-adds for each copy, read and barrier; "
    "stages of twice as many k were tried, and do not suffice"
)
FEW_MMA = (
    "a small tile has fewer products for each copy, read and barrier; "
    "the worst loops are those of filters' gradients, by the addresses of their copies"
)
FEW_TILES = "few tiles; by the estimate of division.py, to divide k would cost what it gains"
SUMS = "few tiles, and the sums of parts are a launch of their own"
OVERLAP = "windows overlap, and their pixels are read again, from L1"
TURNED = "rows of turned images begin inside a sector, and are read again, from L1"
LONG_ROWS = "registers cannot hold a row, which is read again, from L2"
GAMMA = "each row reads gamma (forward, beta too), from L1 or L2"
FROM_CACHES = {
    "max_pool2d: ResNet stem": OVERLAP,
    "max_pool2d gradient: ResNet stem": OVERLAP,
    "affine_warp: 1024 digits": TURNED,
    "softmax gradient: 256 x 32768": LONG_ROWS,
    "layer_norm: 8192 x 768": GAMMA,
    "layer_norm: 256 x 32768": GAMMA,
    "layer_norm gradient: 8192 x 768": f"{GAMMA}; the profile's 1,024 rows make 128 blocks of 8",
    "layer_norm gradient: 256 x 32768": f"{LONG_ROWS}; {GAMMA}",
}


def _main_loops(kind: str, why: str, tiles: str) -> dict[str, str]:
    """Return a reason for each tile, given as that of a block, of a warp, and slices if several."""
    names = (
        f"{block} by warps of {warp}" + "".join(f" in {number} slices" for number in slices)
        for block, warp, *slices in (tile.split("/") for tile in tiles.split())
    )
    return {f"main loop: {name}, {kind}": why for name in names}


MAIN_LOOPS = _main_loops(
    "FP32",
    NARROW,
    "64x64/32x32 128x32/32x32 128x24/64x24 256x16/64x16 128x16/32x16 32x32/32x16 32x16/32x16",
)
MAIN_LOOPS |= _main_loops("bf16", FEW_MMA, "64x64/32x32 128x32/32x32 32x32/32x32")
EVERYWHERE = FROM_CACHES | MAIN_LOOPS
#: The reasons, by GPU and row. A test holds that these miss a goal and no others do.
MISSED = {
    "h100": EVERYWHERE
    | _main_loops("bf16", FEW_MMA, "64x64/64x64/4 128x32/64x32")
    | {
        "conv2d forward: ResNet 64-128, stride 2": FEW_TILES,
        "conv2d forward: ResNet 256-64, 1x1": FEW_TILES,
        "conv2d weight gradient: ResNet 256-64, 1x1": FEW_TILES,
        "conv2d forward: batch-norm net 5, bf16": FEW_TILES,
        "conv2d forward: ResNet 128, bf16": FEW_TILES,
        "conv2d forward: ResNet 256, bf16": FEW_TILES,
        "conv2d forward: ResNet 64-128, stride 2, bf16": FEW_TILES,
        "conv2d forward: ResNet 256-64, 1x1, bf16": FEW_TILES,
        "conv2d gradients: batch-norm net 5, bf16": SUMS,
        "conv2d gradients: ResNet 64-128, stride 2, bf16": SUMS,
        "conv2d gradients: ResNet 256-64, 1x1, bf16": SUMS,
    },
    "a100": EVERYWHERE
    | {
        "conv2d forward: ResNet 256-64, 1x1, bf16": FEW_TILES,
        "conv2d gradients: ResNet 256-64, 1x1, bf16": SUMS,
        "dense gradients: speedrun 1, bf16": FEW_TILES,
    },
}


def found(results: Path = RESULTS) -> Iterator[Found]:
    """Yield what the rows show, goal by goal."""
    loops = json.loads((results / "main-loops.json").read_text())["loops"]
    loads = json.loads((results / FILE).read_text())["launches"]
    rows = {
        model: [
            _with_loads(
                row, [one for one in loads if (one["gpu"], one["row"]) == (model, row["row"])]
            )
            for row in json.loads((results / f"profile-{model}.json").read_text())["rows"]
        ]
        + _longest_loops(loops, ARCH[model])
        for model in MODELS
    }
    for goal in GOALS:
        for model in goal.models:
            for row in rows[model]:
                if re.fullmatch(goal.rows, row["row"]):
                    value = goal.value(row, GPUS[model])
                    if value is not None:
                        yield Found(goal, row["row"], model, value)


def _with_loads(row: Row, loads: list[Row]) -> Row:
    """Return a row of a profile with what each launch has in flight, if that is known."""
    if not loads:
        return row
    pairs = list(zip(row["launches"], loads, strict=True))
    assert all(launch["kernel"] == one["kernel"] for launch, one in pairs), row["row"]
    return {**row, "launches": [{**launch, "in flight": one["bytes"]} for launch, one in pairs]}


def _longest_loops(loops: list[Row], arch: str) -> list[Row]:
    """Return a row for each tile: the product with the most instructions for a multiply-add."""
    own = [loop for loop in loops if loop["arch"] == arch]
    tiles = dict.fromkeys(loop["tile"] for loop in own)
    longest = [
        min((loop for loop in own if loop["tile"] == tile), key=lambda loop: float(loop["share"]))
        for tile in tiles
    ]
    return [{"row": f"main loop: {loop['tile']}", **loop} for loop in longest]


def main() -> None:
    """Print a table of every goal, and how many of its values meet it."""
    values = list(found())
    for goal in GOALS:
        of_goal = [one for one in values if one.goal is goal]
        met = sum(one.met for one in of_goal)
        print(f"{goal.what}, at most {goal.most:g}: {met} of {len(of_goal)} met")
        print(f"  {'':48}" + "".join(f"{GPUS[model].name:>16}" for model in goal.models))
        for row in dict.fromkeys(one.row for one in of_goal):
            shown = {one.model: one for one in of_goal if one.row == row}
            cells = "".join(f"{_cell(shown.get(model)):>16}" for model in goal.models)
            missed = [model for model, one in shown.items() if not one.met]
            why = {MISSED[model].get(row, ""): None for model in missed}
            print(f"  {row:48}{cells}  {'; '.join(why)}".rstrip())
        print()


def _cell(one: Found | None) -> str:
    return "-" if one is None else f"{one.value:.2f} {'met   ' if one.met else 'missed'}"


if __name__ == "__main__":
    main()
