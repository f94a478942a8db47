"""Adding up what the shards of a batch give: gradients, running statistics, loss."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from kernels.lowlevel import Array, accumulator

from .course import Course
from .parallel.world import World
from .training import Training

# A loss that is not finite ends the training with a better message than NumPy's warnings.
_silent = partial(np.errstate, over="ignore", invalid="ignore")


class Exchange:
    """Averages over the shards of a batch, each weighted by its share of the rows.

    What is averaged is one vector per shard: the gradients, the change of the layers' state
    (running statistics), and the loss. Each shard starts from the same state.

    Parameters
    ----------
    training : Training
        Its gradients and state are replaced by their averages.
    world : World
        The processes, each of which has as many shards.
    course : Course
        Says how batches are cut.

    Attributes
    ----------
    own : range
        The shards of this process.
    """

    def __init__(self, training: Training, world: World, course: Course) -> None:
        share = course.shards // world.size
        self.own = range(world.rank * share, (world.rank + 1) * share)
        self._world, self._course = world, course
        self._gradients = training.network.gradient_buffer
        self._state = training.model.state_buffer
        self._before = self._state.copy()
        target = training.model.target
        sizes = self._gradients.size, self._state.size, 1
        piece = -(-sum(sizes) // world.size)
        dtype = accumulator(training.model.dtype)
        self._parts = target.zeros((share, world.size, piece), dtype)
        ends = np.cumsum(sizes).tolist()
        self._places = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]

    def step(self, rows: int, gradients: Callable[[int, slice], Array]) -> Array:
        """Take this process's shards of a batch; return the mean loss of all, an array ().

        Parameters
        ----------
        rows : int
            Of the batch.
        gradients : callable
            Takes a shard and its rows, fills the gradients and returns the mean loss.
        """
        self._before[...] = self._state
        pieces = self._course.cut(rows)
        for shard, vector in zip(self.own, self._parts.reshape(len(self.own), -1), strict=True):
            share = (pieces[shard].stop - pieces[shard].start) / rows
            if share == 0:
                vector[...] = 0
                continue
            loss = gradients(shard, pieces[shard])
            of_gradients, of_state, of_loss = (vector[place] for place in self._places)
            with _silent():
                np.multiply(self._gradients, share, out=of_gradients, dtype=vector.dtype)
                np.subtract(self._state, self._before, out=of_state, dtype=vector.dtype)
                of_state *= share
                of_loss[...] = loss * share
            self._state[...] = self._before
        with _silent():
            mean = self._world.sum(self._parts).reshape(-1)
        in_gradients, in_state, in_loss = (mean[place] for place in self._places)
        self._gradients[...] = in_gradients
        self._state += in_state
        return in_loss[0, ...]
