"""Planned training steps of the benchmark's networks, on images drawn at random."""

from __future__ import annotations

from typing import Any

import numpy as np

import cnn
from bench.networks.definitions import INPUT_SHAPE, NETWORKS
from cnn.plan import Plan

__all__ = ["NETWORKS", "Steps", "record"]


class Steps:
    """A planned training whose every step takes a whole batch.

    Parameters
    ----------
    network : str
        One of `NETWORKS`.
    batch : int
        Images a step.
    count : int
        Steps, at most.
    precision : str
        As `cnn.Trainer` takes it.
    """

    def __init__(self, network: str, batch: int, count: int, precision: str = "fp32") -> None:
        recipe = NETWORKS[network]
        model = cnn.Sequential(recipe.layers(), INPUT_SHAPE, device="cuda", seed=0)
        self._trainer = recipe.trainer(model, precision=precision, seed=0)
        random = np.random.default_rng(0)
        images = random.integers(256, size=(count * batch, *INPUT_SHAPE), dtype=np.uint8)
        labels = random.integers(10, size=count * batch)
        self._target = self._trainer.model.target
        self._count, self._batch = count, batch
        self._order = self._target.array(np.arange(len(labels)))
        if self._trainer.narrow is not None:
            self._trainer.narrow.refresh()
        self.plan = Plan(self._trainer, *map(self._target.array, (images, labels)), count)
        self.rewind()

    def rewind(self) -> None:
        """Begin again with the first image."""
        self.plan.begin_epoch(self._order, [0.01] * self._count)

    def stand_within(self) -> None:
        """Begin again, but with the first step counted: each of its launches can be repeated."""
        self.rewind()
        self.plan.progress.counters[2] = 0

    def record(self) -> None:
        """Take the first step by its Python code; what was recorded is replayed and compared."""
        self.plan.step(self._batch)

    def replay(self, steps: int) -> None:
        """Take steps in one replay, which is one graph."""
        self.plan.replay_many(self._batch, steps)


def record(network: str, batch: int) -> Any:
    """Take one step and record it."""
    Steps(network, batch, 1).record()
