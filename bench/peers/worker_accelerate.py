"""Networks of PyTorch's layers, as they are or accelerated by the kernels.

python -m bench.peers.worker_accelerate KIND, with KIND "plain" or "accelerated".
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

import kernels.torch
from bench.peers.worker import serve

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}

state: Any = None


class Training:
    """A network, its optimizer, and one batch of random images."""

    def __init__(self, network: str, batch_size: int, layout: str) -> None:
        torch.manual_seed(0)
        make, shape = NETWORKS[network]
        self.network = make().to(memory_format=LAYOUTS[layout])
        if accelerated:
            kernels.torch.accelerate(self.network)
        images = torch.randn(batch_size, *shape)
        self.images = images.contiguous(memory_format=LAYOUTS[layout])
        self.labels = torch.arange(batch_size) % 10
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.01, momentum=0.9)

    def step(self) -> torch.Tensor:
        loss = functional.cross_entropy(self.network(self.images), self.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss


# The networks: as people write them.


def lenet() -> nn.Module:
    """LeNet-5 (LeCun et al., 1998), with ReLUs and max-pools."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )


class Block(nn.Module):
    """Two 3 x 3 convolutions and a way past them."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.relu = nn.ReLU(inplace=True)
        self.past = nn.Identity()
        if stride > 1:
            conv = nn.Conv2d(channels, filters, 1, stride, bias=False)
            self.past = nn.Sequential(conv, nn.BatchNorm2d(filters))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.past(x))


def resnet20() -> nn.Module:
    """ResNet-20 for CIFAR (He et al., 2015)."""
    stem = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
    blocks = [
        *(Block(16, 16, 1), Block(16, 16, 1), Block(16, 16, 1)),
        *(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1)),
        *(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1)),
    ]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 512),
        nn.ReLU(),
        nn.Linear(512, 256),
        nn.ReLU(),
        nn.Linear(256, 10),
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "LeNet": (lenet, (1, 28, 28)),
    "ResNet-20": (resnet20, (3, 32, 32)),
    "MLP": (mlp, (1, 28, 28)),
}


# Functions that the parent calls


def load(network: str, batch_size: int, layout: str) -> None:
    global state
    state = Training(network, batch_size, layout)


def losses(steps: int) -> list[float]:
    """Return the losses of the first steps."""
    return [state.step().item() for _ in range(steps)]


def train(steps: int) -> float:
    """Return the seconds of some steps."""
    start = time.perf_counter()
    for _ in range(steps):
        state.step()
    return time.perf_counter() - start


if __name__ == "__main__":
    accelerated = sys.argv[1] == "accelerated"
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    serve(load, losses, train)
