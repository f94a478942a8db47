"""Inference compared with PyTorch and ONNX Runtime, the same network, batches of 1 and 1024.

python -m pytest bench/networks/test_inference.py -k "speedrun and batch-1-"
"""

from __future__ import annotations

import contextlib
import time
from functools import partial
from importlib.util import find_spec
from typing import Any

import pytest

from bench.machine import threads
from bench.measure import IDLE_SECONDS, clock, measure, rounds_within, verify
from bench.networks.definitions import NETWORKS, describe
from bench.peers.worker import Worker

pytestmark = pytest.mark.benchmark(timer=clock)

SECONDS_PER_ROW = 6.0
CALLS = {1: 200, 1024: 2}  # in a sample
LOGITS_RTOL = 1e-4

OURS = "cnn"
PEERS = {
    "PyTorch": ["peers.worker_torch", "contiguous", "eager"],
    "PyTorch channels_last": ["peers.worker_torch", "channels_last", "eager"],
    "PyTorch compiled": ["peers.worker_torch", "channels_last", "compile"],
    "ONNX Runtime": ["peers.worker_onnx"],
}


def commands(target: Any, smoke: bool) -> dict[str, list[str]]:
    """Return how to start ours and each peer that is installed."""
    found = {OURS: ["peers.worker_cnn"]}
    for name, command in PEERS.items():
        needed = "onnxruntime" if "onnx" in command[0] else "torch"
        slow = "compile" in command  # to start
        if find_spec(needed) and not (slow and smoke):
            found[name] = command
    if target.name == "cuda":  # the wheel of onnxruntime runs only on the CPU
        found.pop("ONNX Runtime", None)
    return found


def sample(worker: Worker, batch_size: int, calls: int) -> float:
    """Return the seconds of a prediction, after a pause and an untimed prediction."""
    time.sleep(IDLE_SECONDS)
    worker.call("infer", batch_size=batch_size, calls=1)
    return worker.call("infer", batch_size=batch_size, calls=calls)


@pytest.mark.parametrize("batch_size", CALLS, ids=lambda size: f"batch-{size}-")
@pytest.mark.parametrize("network", NETWORKS)
def test_inference(network: str, batch_size: int, target, data_folder, smoke, benchmark):
    described = describe(network, data_folder)
    expected = None
    with contextlib.ExitStack() as stack:
        workers = {}
        for name, (module, *arguments) in commands(target, smoke).items():
            worker = Worker(module, threads(), target.name, str(data_folder), *arguments)
            workers[name] = stack.enter_context(worker)
            worker.call("load", described=described)
            outputs = worker.call("outputs", batch_size=batch_size)
            expected = expected or outputs
            verify(name, [outputs], [expected], LOGITS_RTOL)
        calls = 2 if smoke else CALLS[batch_size]
        samples = {
            name: partial(sample, worker, batch_size, calls) for name, worker in workers.items()
        }
        one_round = calls * sum(run() for run in samples.values())
        benchmark.extra_info |= {
            "row": f"inference {network}, batch {batch_size}",
            "network": network,
            "batch_size": batch_size,
            "threads": threads(),
            "images": batch_size,
        }
        measure(benchmark, samples, 2 if smoke else rounds_within(SECONDS_PER_ROW, one_round))
        benchmark.extra_info["memory_mib"] = {n: w.call("memory") for n, w in workers.items()}
