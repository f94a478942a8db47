"""PyTorch's networks and layers beside the same after `kernels.torch.accelerate`.

python -m pytest bench/networks/test_accelerate.py -k "LeNet"

The rows of single layers are on both sides of each rule in `kernels/torch/rules.py`: there the
kernels are timed even where the rules leave a layer to PyTorch.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

from bench.machine import threads
from bench.measure import clock, measure, rounds_within, verify
from bench.peers.worker import Worker
from bench.report import condense

pytestmark = [
    pytest.mark.benchmark(timer=clock),
    pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed"),
]

ROUNDS = 7
SECONDS_PER_LAYER = 0.5
STEPS_COMPARED = 3
LOSS_RTOL = 1e-3
LEAST_RATIO = 0.9  # of a layer that is replaced: 1, less what other work on the machine takes
NORMS_RTOL = 1e-4
LAYOUTS = ("contiguous", "channels_last")
NETWORKS = [("LeNet", 64), ("LeNet", 256), ("ResNet-20", 64), ("MLP", 256)]
SAMPLE_IMAGES = {"LeNet": 1024, "ResNet-20": 64, "MLP": 2048}

#: Arguments of the layer, and the shape of its input.
LAYERS: dict[str, list[tuple[list[Any], list[int]]]] = {
    "Conv2d": [
        ([16, 16, 3, 1, 1], [64, 16, 32, 32]),
        ([16, 16, 3, 1, 1], [8, 16, 16, 16]),  # few products
        ([32, 32, 3, 1, 1], [64, 32, 16, 16]),
        ([64, 64, 3, 1, 1], [64, 64, 8, 8]),
        ([64, 64, 3, 1, 1], [8, 64, 56, 56]),
        ([128, 128, 3, 1, 1], [32, 128, 16, 16]),
        ([256, 256, 3, 1, 1], [32, 256, 8, 8]),
        ([256, 512, 3, 1, 1], [16, 256, 8, 8]),  # many channels
        ([3, 16, 3, 1, 1], [64, 3, 32, 32]),  # few channels
        ([32, 64, 3, 2, 1], [64, 32, 16, 16]),  # stride
        ([64, 64, 1], [64, 64, 16, 16]),
        ([32, 64, 5], [64, 32, 12, 12]),
    ],
    "MaxPool2d": [
        ([2], [64, 64, 32, 32]),
        ([2], [256, 24, 24, 24]),
        ([2], [64, 64, 8, 8]),  # few values
        ([2], [64, 16, 10, 10]),
    ],
    "Conv2d + ReLU + MaxPool2d": [
        ([1, 6, 5, 1, 2], [64, 1, 28, 28]),
        ([1, 6, 5, 1, 2], [8, 1, 28, 28]),  # few products
        ([6, 16, 5], [64, 6, 14, 14]),
        ([1, 32, 3], [64, 1, 28, 28]),
        ([32, 64, 3], [64, 32, 13, 13]),
        ([3, 32, 5, 1, 2], [64, 3, 32, 32]),
        ([32, 32, 5, 1, 2], [64, 32, 16, 16]),
        ([64, 128, 3, 1, 1], [64, 64, 16, 16]),
        ([128, 256, 3, 1, 1], [32, 128, 8, 8]),
        ([256, 512, 3, 1, 1], [32, 256, 8, 8]),  # many channels
        ([128, 128, 5, 1, 2], [32, 128, 16, 16]),
    ],
}
ROWS = [(kind, *row) for kind in LAYERS for row in LAYERS[kind]]


@pytest.fixture(scope="module")
def networks():
    """Two processes that train."""
    with (
        Worker("peers.worker_accelerate", threads(), "accelerated") as ours,
        Worker("peers.worker_accelerate", threads(), "plain") as theirs,
    ):
        yield {"accelerated": ours, "PyTorch": theirs}


@pytest.fixture(scope="module")
def single_layers():
    """Two processes that compute a layer."""
    with (
        Worker("peers.worker_layers", threads(), "kernels") as ours,
        Worker("peers.worker_layers", threads(), "plain") as theirs,
    ):
        yield {"kernels": ours, "PyTorch": theirs}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("network, batch_size", NETWORKS)
def test_networks(network: str, batch_size: int, layout: str, networks, smoke, benchmark):
    losses = {}
    for name, worker in networks.items():
        worker.call("load", network=network, batch_size=batch_size, layout=layout)
        losses[name] = worker.call("losses", steps=STEPS_COMPARED)
        verify(name, [losses[name]], [losses["accelerated"]], LOSS_RTOL)
    steps = 1 if smoke else max(1, SAMPLE_IMAGES[network] // batch_size)
    benchmark.extra_info |= {
        "row": f"{network}, batch {batch_size}, {layout}",
        "network": network,
        "batch_size": batch_size,
        "layout": layout,
        "threads": threads(),
        "images": steps * batch_size,
    }
    samples = {n: lambda w=w: w.call("train", steps=steps) for n, w in networks.items()}
    measure(benchmark, samples, 2 if smoke else ROUNDS)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind, arguments, shape", ROWS, ids=lambda value: str(value))
def test_layers(kind: str, arguments, shape, layout: str, single_layers, smoke, benchmark):
    for worker in single_layers.values():
        worker.call("load", kind=kind, arguments=arguments, shape=shape, layout=layout)
    ours, theirs = (worker.call("norms") for worker in single_layers.values())
    verify("kernels", [ours], [theirs], NORMS_RTOL)
    samples = {name: lambda w=w: w.call("seconds") for name, w in single_layers.items()}
    one_round = sum(run() for run in samples.values())
    benchmark.extra_info |= {
        "row": f"{kind} {arguments} of {shape}, {layout}",
        "layer": kind,
        "arguments": arguments,
        "shape": shape,
        "layout": layout,
        "replaced": single_layers["PyTorch"].call("replaced"),
    }
    rounds = 2 if smoke else rounds_within(SECONDS_PER_LAYER, one_round, most=15)
    measure(benchmark, samples, rounds)
    if benchmark.extra_info["replaced"] and not smoke:
        timed = condense.row(benchmark.stats.stats.data, benchmark.extra_info)
        ratio = timed["peers"]["PyTorch"]["ratio"]
        assert ratio >= LEAST_RATIO, f"replaced, but {ratio:.2f} times as fast as PyTorch's"
