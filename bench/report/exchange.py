"""What the processes of a training exchange in a step, beside the step's lower bound on a GPU."""

from __future__ import annotations

import json
from pathlib import Path

from bench.networks.definitions import INPUT_SHAPE, NETWORKS
from cnn import Sequential
from tests.gpu.profile import STEP

#: Bytes a second from a GPU, one way: NVLink 4 of an H100 (NVIDIA H100 Tensor Core GPU
#: Architecture: 900 GB/s, both ways together), and a network of 400 Gb/s.
NVLINK, NETWORK = 450e9, 50e9


def vector_bytes(network: str) -> int:
    """Return the bytes of what is added up: float32 gradients, running statistics, and the loss."""
    model = Sequential(NETWORKS[network].layers(), INPUT_SHAPE, "cpu")
    return 4 * (model.gradient_buffer.size + model.state_buffer.size + 1)


def sent(size: int, processes: int) -> float:
    """Return the bytes that each process sends to add up as many vectors of `size` bytes."""
    return 2 * (processes - 1) / processes * size


def rows(results: Path) -> list[list[str]]:
    """Return the table's rows: the training steps of the profile, whose batch is a shard here."""
    path = results / "profile-h100.json"
    found = []
    for row in json.loads(path.read_text())["rows"] if path.exists() else []:
        step = STEP.fullmatch(row["row"])
        if step is None:
            continue
        network, images, precision = step.group("network", "batch", "precision")
        size = vector_bytes(network)
        found.append(
            [
                f"{network}, {precision or 'float32'}",
                images,
                f"{row['bound']['seconds'] * 1e6:,.0f}",
                *(f"{sent(size, processes) / 1e6:.2f}" for processes in (2, 8, 64)),
                f"{sent(size, 8) / NVLINK * 1e6:.1f}",
                f"{sent(size, 64) / NETWORK * 1e6:.0f}",
            ]
        )
    return found


HEAD = [
    "step on an H100",
    "images of a shard",
    "bound, µs",
    "MB sent by each of 2",
    "of 8",
    "of 64 GPUs",
    "8 by NVLink, µs",
    "64 by a network of 400 Gb/s, µs",
]
