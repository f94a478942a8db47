"""Steps of a training whose batches are cut into shards, each on its own up to the gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from kernels.lowlevel import Array, PendingSums, Proof, Recording, Rehearsal, precision

from .course import Course
from .divergence import UNKNOWN_ORIGIN, origin
from .exchange import Exchange
from .parallel.world import World
from .plan import Plan
from .step import find_gradients, next_batch, update
from .training import Training


class ShardPlan(Plan):
    """A `Plan` that replays the gradients of each shard, and then the update of the weights.

    Parameters
    ----------
    training, images, labels
        As `Plan` takes them.
    course : Course
        Its shards are numbered through all steps; random numbers depend on that number.
    own : range
        The shards of each step that this process takes.
    """

    def __init__(
        self, training: Training, images: Array, labels: Array, course: Course, own: range
    ) -> None:
        super().__init__(training, images, labels, course.steps_per_epoch)
        self._course, self._own = course, own
        self._first_step = training.steps
        if self._augmentation is not None:
            offset = training.steps * course.shards
            self._augmentation = self._augmentation._replace(offset=offset)
        self._update: Recording | None = None

    def begin_epoch(self, order: Array, factors: Iterable[float]) -> None:
        """Start an epoch: write what its steps read, and the counters of each shard."""
        super().begin_epoch(order, factors)
        done = self._training.steps - self._first_step
        self._counters: list[tuple[int, int, int]] = []
        for step in range(self._rows):
            first = step * self._course.batch_size
            shards = self._course.cut(min(self._course.batch_size, len(self._labels) - first))
            self._counters += [
                # A shard is counted before the step reads its row of the tables.
                ((done + step) * len(shards) + shard, first + shards[shard].start, step - 1)
                for shard in self._own
            ]
            self._counters.append((0, 0, step))  # of the update
        self._on_device = self._target.array(np.array(self._counters, np.int64))

    def gradients(self, shard: int, rows: int) -> Array:
        """Fill the gradients of a shard of the next step, and return its mean loss."""
        self._steps = self._set_counters(shard - self._own.start)
        self.progress.totals[...] = 0
        if rows in self._recordings:
            for recording in self._recordings[rows]:
                recording.replay()
        else:
            self._recordings[rows] = self._record(rows, lambda: None)
        return self.progress.totals[0] / rows

    def update(self) -> None:
        """End the step: change the weights and their average by the gradients."""
        self._set_counters(len(self._own))
        if self._update is None:
            self._update = self._record_update()
        else:
            self._update.replay()
        self._row += 1
        self._training.optimizer.steps += 1
        if self._training.ema is not None:
            self._training.ema.steps += 1

    def rehearse(self, rows: int, rehearsal: Rehearsal) -> None:
        """Run a step's Python code on `rows` images without its launches; nothing changes."""
        super().rehearse(rows, rehearsal)
        with precision(self._training.rounding), rehearsal:
            super()._end(None)

    def _set_counters(self, place: int) -> int:
        """Set the counters for a shard of this process, or for the update; return the first."""
        index = self._row * (len(self._own) + 1) + place
        self.progress.counters[...] = self._on_device[index]
        return self._counters[index][0]

    def _record_update(self) -> Recording:
        state = self._state()
        proof = Proof(self.arena.target, state)
        recording = Recording(self.arena, [*state, *self._inputs()])
        with precision(self._training.rounding), recording:
            super()._end(None)
        proof.check([recording])
        return recording

    def _end(self, pending: PendingSums | None) -> None:
        """Do nothing: the other shards' gradients are missing yet."""

    def _pending(self) -> PendingSums | None:
        """Return None: gradients are added up before the optimizer looks at them."""
        return None


class ShardedSteps:
    """Takes the steps of one `Trainer.fit` shard by shard.

    Parameters
    ----------
    training : Training
        Its counters of steps and images are the caller's.
    world : World
        The processes among which the shards are divided.
    course : Course
        Length of the training, and number of shards.
    images, labels : array
        The data set on the model's device; labels of int64.
    planned : bool
        Whether to record and replay launches.
    """

    def __init__(
        self,
        training: Training,
        world: World,
        course: Course,
        images: Array,
        labels: Array,
        planned: bool,
    ) -> None:
        self._training, self._world, self._course = training, world, course
        self._images, self._labels = images, labels
        self._exchange = Exchange(training, world, course)
        own = self._exchange.own
        self.plan = ShardPlan(training, images, labels, course, own) if planned else None
        self._drawing: set[int] = set()  # positions of the layers that draw random numbers

    def begin_epoch(self, order: Array, factors: Iterable[float]) -> None:
        """Write what the planned steps of an epoch read."""
        if self.plan is not None:
            self.plan.begin_epoch(order, factors)

    def take(
        self, chosen: Array, steps: int, factor: float, check: Callable[[Array], None]
    ) -> None:
        """Train on the chosen images, which are one batch."""
        training = self._training
        with precision(training.rounding):
            loss = self._exchange.step(
                len(chosen), lambda shard, rows: self._gradients(shard, chosen[rows])
            )
            for position in self._drawing:
                training.network.layers[position].draws += self._course.shards
            training.loss_sum += loss.astype(np.float64) * len(chosen)
            check(training.loss_sum)
            if self.plan is not None:
                self.plan.update()
            else:
                update(training, factor)

    def origin(self, chosen: Array, step: int) -> str:
        """Return where the first value that is not finite was in a step, after `check` of it."""
        shards, found = self._course.cut(len(chosen)), []
        for shard in self._exchange.own:
            rows = chosen[shards[shard]]
            if len(rows):
                x = next_batch(self._training, self._images, rows, step * len(shards) + shard)
                found.append(origin(self._training.network, x, len(shards) - shard))
        of_all = [text for texts in self._world.gather(found) for text in texts]
        return next((text for text in of_all if text != UNKNOWN_ORIGIN), UNKNOWN_ORIGIN)

    def _gradients(self, shard: int, chosen: Array) -> Array:
        with self._numbered(shard):
            if self.plan is not None:
                return self.plan.gradients(shard, len(chosen))
            number = self._training.steps * self._course.shards + shard
            x = next_batch(self._training, self._images, chosen, number)
            return find_gradients(self._training, x, self._labels[chosen])

    @contextmanager
    def _numbered(self, shard: int) -> Iterator[None]:
        """Let layers draw the random numbers of a shard in a ``with`` block."""
        layers = self._training.network.layers
        for layer in layers:
            layer.draws += shard
        before = [layer.draws for layer in layers]
        try:
            yield
        finally:
            for position, (layer, draws) in enumerate(zip(layers, before, strict=True)):
                if layer.draws > draws:
                    self._drawing.add(position)
                layer.draws = draws - shard
