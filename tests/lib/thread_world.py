"""Several processes' parts of a training, in threads of this one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from cnn.parallel.world import World


class ThreadWorld(World):
    def __init__(self, rank: int, values: list[Any], barrier: threading.Barrier) -> None:
        self.rank, self.size = rank, len(values)
        self._values, self._barrier = values, barrier

    def gather(self, value: Any) -> list[Any]:
        self._values[self.rank] = value
        self._barrier.wait(60)
        values = list(self._values)
        self._barrier.wait(60)
        return values

    def _all_to_all(self, parts: Any) -> Any:
        return np.stack([theirs[self.rank] for theirs in self.gather(parts.copy())])

    def _all_gather(self, piece: Any) -> Any:
        return np.stack(self.gather(piece))


def in_threads(size: int, work: Callable[[World], Any]) -> list[Any]:
    """Return what `work` returns, or raises, in each of so many worlds that belong together."""
    values, barrier = [None] * size, threading.Barrier(size)

    def run(rank: int) -> Any:
        try:
            return work(ThreadWorld(rank, values, barrier))
        except Exception as error:
            return error

    with ThreadPoolExecutor(size) as threads:
        return list(threads.map(run, range(size)))
