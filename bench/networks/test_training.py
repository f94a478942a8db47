"""Training compared with PyTorch: images/s, peak memory and time to accuracy.

python -m pytest bench/networks/test_training.py -k "speedrun and 256 and 2-threads"

On a processor with AVX-512 there are also rows without it, for ours and for PyTorch: they stand for
processors whose widest registers are AVX2's.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.machine import threads
from bench.measure import WrongResult, clock, measure, verify
from bench.networks.definitions import NETWORKS, describe
from bench.peers.worker import Worker
from kernels.runtime import choose_target
from kernels.runtime.compiler import compiler

pytestmark = pytest.mark.benchmark(timer=clock)

ROUNDS = 5
STEPS_COMPARED = 3
LOSS_RTOL = 2e-3
IMAGES = 2048  # in a sample, or one batch if that is more
LEAST_ACCURACY = 0.98
SEEDS = 3

OURS = "cnn"
PYTORCH = {"PyTorch": ("contiguous", "eager"), "PyTorch channels_last": ("channels_last", "eager")}
COMPILED = {"PyTorch compiled": ("channels_last", "compile")}
GRAPH = {"PyTorch CUDA graph": ("channels_last", "graph")}
#: What tells PyTorch, and oneDNN within it, to do without AVX-512.
AVX2_PEERS = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}


@dataclass(frozen=True)
class Point:
    """A network, batch size, number of threads and perhaps an instruction set to train with."""

    network: str
    batch_size: int
    threads: int
    instructions: str | None = None  #: "AVX2", or None for all that the processor has

    @property
    def name(self) -> str:
        only = f"-{self.instructions}" if self.instructions else ""
        return f"{self.network}-batch-{self.batch_size}-{self.threads}-threads{only}"

    def environment(self, name: str) -> dict[str, str]:
        """Return the variables that limit a contender to the instruction set."""
        if self.instructions is None:
            return {}
        if name == OURS:
            return {"CXX": " ".join([*compiler().command, "-mno-avx512f"])}
        return AVX2_PEERS


def points(smoke: bool) -> list[Point]:
    most = threads()
    if smoke:
        return [Point(network, 32, most) for network in NETWORKS]
    sizes = {"speedrun": [32, 64, 128, 256, 512, 1024, 2048, 4096]}
    sizes["batch-norm"] = [32, 256, 1024, 4096]
    found = [Point(network, size, most) for network in sizes for size in sizes[network]]
    if most > 1:
        found += [Point(network, 256, 1) for network in sizes]
    if choose_target()[0].lanes(1) == 64:  # bytes of a register: AVX-512
        found += [Point(network, 256, most, "AVX2") for network in sizes]
    return found


def peers(target: Any, everything: bool) -> dict[str, list[str]]:
    """Return each peer's command; with `everything`, also of those that take long to start."""
    if not find_spec("torch"):
        return {}
    chosen = dict(PYTORCH)
    if everything:
        chosen |= COMPILED
    if target.name == "cuda":
        chosen |= GRAPH
    return {name: ["peers.worker_torch", *arguments] for name, arguments in chosen.items()}


def start(
    stack: contextlib.ExitStack,
    command: list[str],
    target: Any,
    folder: Path,
    threads: int,
    **environment: str,
) -> Worker:
    """Start a contender, which ends with the stack."""
    module, *arguments = command
    arguments = [target.name, str(folder), *arguments]
    return stack.enter_context(Worker(module, threads, *arguments, environment=environment))


def pytest_generate_tests(metafunc):
    if "point" in metafunc.fixturenames:
        found = points(metafunc.config.getoption("--smoke"))
        metafunc.parametrize("point", found, ids=lambda point: point.name)


def test_throughput(point: Point, target, data_folder, smoke, benchmark):
    everything = point.batch_size == 256 and point.threads == threads() and not smoke
    everything &= point.instructions is None
    commands = {OURS: ["peers.worker_cnn"], **peers(target, everything)}
    if point.network == "speedrun" and (everything or smoke):
        library, blas = ("CuPy", "cuBLAS") if target.name == "cuda" else ("NumPy", "BLAS")
        commands[f"{library} with {blas}"] = ["peers.worker_naive", "BLAS"]
        commands[f"naive {library}"] = ["peers.worker_naive", "naive"]
    described = describe(point.network, data_folder)
    expected = None
    with contextlib.ExitStack() as stack:
        workers = {}
        for name, command in commands.items():
            limits = point.environment(name)
            worker = start(stack, command, target, data_folder, point.threads, **limits)
            worker.call("load", described=described)
            losses = worker.call("losses", batch_size=point.batch_size, steps=STEPS_COMPARED)
            expected = expected or losses
            verify(name, [losses], [expected], LOSS_RTOL)
            workers[name] = worker

        count = point.batch_size if smoke else max(IMAGES, point.batch_size)
        counts = {name: point.batch_size if "naive" in name else count for name in workers}

        def sample(name: str) -> float:
            """Return the seconds for `count` images."""
            seconds = workers[name].call("train", batch_size=point.batch_size, count=counts[name])
            return seconds * count / counts[name]

        for name in workers:
            sample(name)  # not timed: warms caches
        benchmark.extra_info |= {
            "row": f"training {point.name}",
            "network": point.network,
            "batch_size": point.batch_size,
            "threads": point.threads,
            "images": count,
        }
        if point.instructions:
            benchmark.extra_info["instructions"] = point.instructions
        measure(benchmark, {n: lambda n=n: sample(n) for n in workers}, 2 if smoke else ROUNDS)
        benchmark.extra_info["memory_mib"] = {n: w.call("memory") for n, w in workers.items()}


def test_time_to_accuracy(target, data_folder, mnist, smoke, benchmark):
    """The whole speedrun recipe with several seeds: training seconds, and accuracy."""
    recipe = NETWORKS["speedrun"]
    steps = recipe.epochs * -(-len(mnist[0]) // recipe.batch_size)
    commands = {OURS: ["peers.worker_cnn"], **peers(target, everything=False)}
    accuracies: dict[str, list[float]] = {name: [] for name in commands}
    with contextlib.ExitStack() as stack:
        workers = {
            name: start(stack, command, target, data_folder, threads())
            for name, command in commands.items()
        }

        def sample(name: str) -> float:
            seed = len(accuracies[name])
            described = describe("speedrun", data_folder, seed, steps)
            workers[name].call("load", described=described)
            seconds, accuracy = workers[name].call(
                "accuracy", epochs=recipe.epochs, batch_size=recipe.batch_size
            )
            accuracies[name].append(accuracy)
            return seconds

        benchmark.extra_info |= {
            "row": "training speedrun, the whole recipe",
            "images": recipe.epochs * len(mnist[0]),
            "network": "speedrun",
            "batch_size": recipe.batch_size,
            "epochs": recipe.epochs,
            "threads": threads(),
        }
        samples = {name: lambda name=name: sample(name) for name in workers}
        measure(benchmark, samples, 1 if smoke else SEEDS)
        memory = {name: worker.call("memory") for name, worker in workers.items()}
    benchmark.extra_info |= {"memory_mib": memory, "accuracies": accuracies}
    for name, reached in accuracies.items():
        mean = float(np.mean(reached))
        if not (smoke or mean >= LEAST_ACCURACY):
            raise WrongResult(f"{name}: mean accuracy {mean:.2%} over {len(reached)} seeds")
