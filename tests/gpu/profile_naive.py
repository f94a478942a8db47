"""Count our kernels and CuPy side by side on the emulated GPU, to bench/results/naive-*.json.

    make profile-naive
    make profile-naive ARGS="--only conv2d"

Nothing is timed. Naive CuPy is array functions: `naive.py` of bench/peers and, where that has none,
the benchmark's peer "CuPy". If that calls cuBLAS, what it does at least is another peer. To count
CuPy takes minutes, so it is counted again only if it does something else on one image than it did;
delete the file to count all of it again. $EMULATED_GPU names the GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import device
from .bound import bound_of_all, instructions
from .cublas import counting_products
from .gpus import GPUS, Gpu
from .profile import RESULTS, counted_step

#: The largest batch and the largest flat array, and the smallest.
MOST, LEAST = {"N": 128, "count": 2**20}, {"N": 1, "count": 1000}

#: Rows of the benchmark, at shapes of its networks.
ROWS = (
    "conv2d forward: speedrun 1",
    "conv2d weight gradient: speedrun 1",
    "conv2d forward: speedrun 2",
    "conv2d gradients: speedrun 2",
    "dense forward: speedrun 1",
    "dense gradients: speedrun 1",
    "max_pool2d: speedrun 1",
    "max_pool2d gradient: speedrun 1",
    "batch_norm: 14x14, 32 channels",
    "batch_norm gradient: 14x14, 32 channels",
    "softmax: 4096 x 1000",
    "softmax_cross_entropy: 256 x 10",
    "relu: 16M",
    "relu gradient: 16M",
    "sgd: speedrun",
    "adam: speedrun",
    "normalize: 16384 digits",
    "affine_warp: 1024 digits",
)

NAIVE, BLAS = "naive CuPy", "CuPy with cuBLAS"

Sizes = dict[str, int]
Counts = dict[str, float]


class Pair(NamedTuple):
    """A row: its name and sizes, and what counts ours and the peers on given sizes."""

    name: str
    sizes: Sizes
    ours: Callable[[Sizes], Counts]
    peers: Callable[[Sizes], dict[str, Counts]]


def main() -> None:
    """Count all rows asked for; the others stay in the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="rows whose name has this in it: others stay")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    device.turn_on()
    if device.real_gpu():
        sys.exit("make profile-naive: the GPU is a real one, which counts nothing")
    model = os.environ.get("EMULATED_GPU", "h100")
    gpu, path = GPUS[model], options.results / f"naive-{model}.json"
    print(f"{gpu.name}: counts and bounds, not times\n{heading()}")
    if not compare(pairs(gpu, options.only), path, gpu.name):
        sys.exit(f"make profile-naive: --only: no row has {options.only!r} in its name")
    print(f"wrote {path}")


def compare(found: Iterator[Pair], path: Path, gpu: str) -> int:
    """Count pairs, and return how many; the file is written anew after every one."""
    counted = 0
    recorded = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = {row["row"]: row for row in recorded}
    for pair in found:
        counted += 1
        same = {"row": pair.name, "sizes": pair.sizes}
        same["peers on least"] = pair.peers(limited(pair.sizes, LEAST))
        before = rows.get(pair.name, {})
        stays = same.items() <= before.items()
        peers = before["peers"] if stays else pair.peers(pair.sizes)
        rows[pair.name] = {**same, "ours": pair.ours(pair.sizes), "peers": peers}
        print(line(rows[pair.name]), flush=True)
        body = ",\n".join(map(json.dumps, rows.values()))
        path.write_text(
            f'{{"made by": "make profile-naive", "gpu": "{gpu}", "rows": [\n{body}\n]}}\n'
        )
    return counted


def limited(sizes: Sizes, most: Sizes) -> Sizes:
    """Return sizes none of which is larger than that of `most`."""
    return {key: min(value, most.get(key, value)) for key, value in sizes.items()}


def pairs(gpu: Gpu, only: str = "", most: Sizes = MOST) -> Iterator[Pair]:
    """Yield the rows whose name has `only` in it, on sizes up to `most`."""
    from bench.kernels import contenders, gradients, rows
    from kernels.runtime import choose_target
    from tests.cases import CASES

    step = "training step: speedrun"
    if only in step:
        yield Pair(
            step,
            {"N": most["N"]},
            lambda sizes: totals(counted_step("speedrun", sizes["N"]), gpu),
            lambda sizes: counted_peer_steps("speedrun", sizes["N"], gpu),
        )
    contenders.torch = None  # no other peers
    target, _ = choose_target("cuda")
    case, shape = CASES["conv2d_backward"], "speedrun 2"
    both = gradients.both(case, shape, case.timed[shape])
    table = {row.name: row for row in (*rows.rows(), both)}

    def prepare(row: Any, sizes: Sizes) -> Any:
        return row.prepare(target, **sizes)

    def ours(row: Any, sizes: Sizes) -> Counts:
        work = prepare(row, sizes)
        return counted_second(row.name, work, work.contenders[contenders.OURS], gpu)

    def peers(row: Any, sizes: Sizes) -> dict[str, Counts]:
        work = prepare(row, sizes)
        with counting_products() as products:
            of_cupy = counted_first(row.name, work, work.contenders["CuPy"], gpu)
        if NAIVE not in work.contenders:
            return {NAIVE: of_cupy}
        found = {NAIVE: counted_first(row.name, work, work.contenders[NAIVE], gpu)}
        return found | ({BLAS: products.added_to(of_cupy)} if products.launches else {})

    for row in (table[name] for name in ROWS if only in name):
        yield Pair(row.name, limited(row.sizes, most), partial(ours, row), partial(peers, row))


def counted_first(name: str, work: Any, contender: Any, gpu: Gpu) -> Counts:
    """Count a call, whose result is refused if it is wrong."""
    from bench.measure import verify

    results: list[Any] = []
    counts = _counted(lambda: results.append(contender.run()), gpu)
    verify(name, contender.read(*results), work.expected, work.rtol)
    return counts


def counted_second(name: str, work: Any, contender: Any, gpu: Gpu) -> Counts:
    """Count a call after the first one."""
    counted_first(name, work, contender, gpu)
    return _counted(contender.run, gpu)


def counted_peer_steps(network: str, batch: int, gpu: Gpu) -> dict[str, Counts]:
    """Count a step of a training by each peer, without augmentation or averaged weights."""
    import cupy

    from bench.networks import definitions
    from bench.peers import naive, numpy_calls
    from cnn.data.synthetic import synthetic_digits

    naive.xp = numpy_calls.xp = cupy
    data, _ = synthetic_digits(batch, 10)
    images, labels = cupy.asarray(data.images), cupy.asarray(data.labels)
    mean, std = images.mean(), images.std()
    with tempfile.TemporaryDirectory() as folder:
        described = definitions.describe(network, Path(folder))
        weights = dict(np.load(described["weights"]))
    settings = described["optimizer"][1]
    options = settings["lr"], settings["momentum"], described["label_smoothing"]

    def count(products: Any) -> Counts:
        training = naive.Network(described["layers"], weights, products)
        return _counted(
            lambda: training.step(naive.grey_images(images, mean, std), labels, *options), gpu
        )

    with counting_products() as products:
        with_blas = count(numpy_calls)
    return {NAIVE: count(naive), BLAS: products.added_to(with_blas)}


def _counted(call: Callable[[], Any], gpu: Gpu) -> Counts:
    with device.counting() as counted:
        call()
    return totals(counted, gpu)


def totals(counted: dict[str, Any], gpu: Gpu) -> Counts:
    """Return launches, the bytes that each touches, instructions of warps, and seconds of bound."""
    launches = counted["launches"]
    return {
        "launches": len(launches),
        "bytes": sum(one["bytes"]["read"] + one["bytes"]["written"] for one in launches),
        "instructions": sum(instructions(one["all"]) for one in launches),
        "bound": float(f"{bound_of_all(counted, gpu).seconds:.4g}"),
    }


def heading() -> str:
    """Return the names of what `line` says of a row."""
    from bench.report.of_kernels import COUNTED

    return f"{'naive CuPy / ours':<39}" + "".join(f"{name:>25}" for name, *_ in COUNTED.values())


def line(row: dict[str, Any]) -> str:
    """Return a row as one line of text: what naive CuPy does / what ours do."""
    from bench.report.of_kernels import COUNTED

    cells = (
        f"{row['peers'][NAIVE][key] / unit:{form}} / {row['ours'][key] / unit:{form}}"
        for key, (_, unit, form) in COUNTED.items()
        if key in row["ours"]
    )
    return f"{row['row']:<39}" + "".join(f"{cell:>25}" for cell in cells)


if __name__ == "__main__":
    main()
