"""Planned steps: recorded once per batch size, then replayed without running Python code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from itertools import pairwise

import numpy as np

from kernels.lowlevel import (
    Arena,
    Array,
    Augmentation,
    Launch,
    PendingSums,
    Progress,
    Proof,
    Recording,
    Rehearsal,
    Table,
    accumulator,
    cast,
    count_batch,
    gather_batch,
    precision,
    scale_gradient,
    update_loss_scale,
)

from .augment import Augment
from .course import Course
from .fused import DenseLoss
from .fusion import fuse
from .layers import Layer
from .recordable import arrays_of, own, recordable, restore, unchanged
from .training import Training

_MOST_STEPS = 1024  # per replay: a CUDA graph of so many has some ten thousand launches


def obstacle(training: Training, images: Array) -> str | None:
    """Return why steps on these images cannot be planned, or None if they can."""
    parts = [
        *training.model.layers,
        training.loss,
        training.optimizer,
        training.augment,
        training.ema,
    ]
    for part in parts:
        # A step launches the maps of an `Augment`, and calls no augmentation of one's own.
        known = type(part) is Augment if part is training.augment else recordable(part)
        if part is not None and not known:
            return f"{getattr(part, '__name__', type(part).__name__)} is not recordable"
    dtypes = ("uint8", *training.model.target.dtypes)
    if images.dtype.name not in dtypes or not images.dtype.isnative:
        return f"images of {images.dtype} are not gathered by a kernel"
    return None


def replays(course: Course, steps_per_replay: int) -> Iterator[range]:
    """Yield the steps of an epoch, counted from 0, as one range per replay.

    The first step has a range of its own, since it may have to be recorded; so has a last step of
    fewer images. The other ranges end at multiples of `steps_per_replay`. Their lengths are few and
    the same in every epoch: each length needs a CUDA graph.
    """
    steps = course.steps_per_epoch
    whole = course.images // course.batch_size
    for begin, end in pairwise(
        sorted({0, 1, *range(steps_per_replay, steps, steps_per_replay), whole, steps})
    ):
        for first in range(begin, end, _MOST_STEPS):
            yield range(first, min(first + _MOST_STEPS, end))


class Plan:
    """The steps of one `Trainer.fit`, which must hold the model's lock during each step.

    Values that differ from step to step (the order of the images, counters, the optimizer's
    scalars) are written to the device before each epoch, always to the same memory. The first step
    of each batch size is recorded while it runs, in two parts: up to the loss, and the rest; each
    `Kernel` adds its launch to the `Recording`. Later steps of that size replay both, on `cuda` as
    two CUDA graphs, which `Target.replayer` makes. `replay_many` replays several steps without
    checking the loss, on `cuda` as one graph.

    Parameters
    ----------
    training : Training
        One for which `obstacle` returns None. Its model, optimizer and average change in place.
    images, labels : array
        The data set on the model's device; labels of int64.
    steps : int
        Largest number of steps in an epoch.

    Attributes
    ----------
    progress : Progress
        Counters and sums of the current epoch, on the device.
    arena : Arena
        Memory of the arrays that live within a step.
    """

    def __init__(self, training: Training, images: Array, labels: Array, steps: int) -> None:
        self._training, self._images, self._labels = training, images, labels
        self._target = target = training.model.target
        self.progress = Progress(target.zeros((3,), np.int64), target.zeros((2,), np.float64))
        self.arena = Arena(target)
        self._order = target.zeros((len(labels),), np.int64)
        # The gradient must be scaled before it is rounded: then the loss is not fused.
        scaled = training.narrow is not None and training.loss_scale is not None
        self._layers = fuse(training.network, None if scaled else training.loss)
        self._recordings: dict[int, tuple[Recording, Recording]] = {}
        self._many: dict[tuple[int, int], Launch] = {}  # by rows and steps
        self._drawing: list[Layer] = []
        self._steps = self._taken = 0
        self._row = self._rows = 0  # next row of the tables, and number of rows filled
        optimizer, ema = training.optimizer, training.ema
        self._augmentation = None
        if training.augment is not None:
            ranges = training.augment.rotate, training.augment.shift, training.augment.zoom
            self._augmentation = Augmentation(*ranges, training.seed, training.steps)
        self._rates = self._table(steps, optimizer.scalars(1, 1.0))
        if ema is not None:
            self._shares = self._table(steps, ema.scalars(1))

    def begin_epoch(self, order: Array, factors: Iterable[float]) -> None:
        """Start an epoch: set the counters to 0 and write what its steps read.

        Parameters
        ----------
        order, factors
            As `Steps.begin_epoch` takes them.
        """
        optimizer, ema = self._training.optimizer, self._training.ema
        steps = enumerate(factors, optimizer.steps + 1)
        self._rows = self._fill(self._rates, (optimizer.scalars(*step) for step in steps))
        if ema is not None:
            shares = range(ema.steps + 1, ema.steps + self._rows + 1)
            self._fill(self._shares, map(ema.scalars, shares))
        self._taken = self._row = 0
        self._order[...] = order
        self.progress.counters[1] = 0
        self.progress.counters[2] = -1  # a step is counted before it reads its row of the tables
        self.progress.totals[...] = 0

    def step(self, rows: int, check: Callable[[], None] = lambda: None) -> None:
        """Train on the next `rows` images of the epoch.

        Parameters
        ----------
        rows : int
            Size of the batch.
        check : callable
            Called after the batch's loss is added to `progress`, before the weights change.

        Raises
        ------
        ValueError
            If fewer images are left in the epoch, or no factor for this step.
        """
        self._check_left(rows, 1)
        if rows in self._recordings:
            forward, backward = self._recordings[rows]
            forward.replay()
            self._count_draws(1)
            check()
            backward.replay()
        else:
            self._recordings[rows] = self._record(rows, check)
        self._count(rows, 1)

    def replay_many(self, rows: int, steps: int) -> None:
        """Train on the next `steps` batches of `rows` images each, by one replay.

        `step` must have taken a batch of that size before.

        Raises
        ------
        ValueError
            If fewer images are left in the epoch, or fewer factors.
        """
        self._check_left(rows, steps)
        if (rows, steps) not in self._many:
            forward, backward = self._recordings[rows]
            launches = [*forward.launches, *backward.launches]
            self._many[rows, steps] = self._target.replayer(launches * steps)
        with self._target.on(self.arena.stream):
            self._many[rows, steps]()
        self._count_draws(steps)
        self._count(rows, steps)

    def _check_left(self, rows: int, steps: int) -> None:
        left = (len(self._labels) - self._taken) // steps
        if not 1 <= rows <= left:  # the kernel that gathers them does not check
            raise ValueError(f"rows: got {rows}, expected 1 to {left}, what the epoch has left")
        if self._row + steps > self._rows:
            raise ValueError(f"steps: got {steps} after {self._row}, expected {self._rows} in all")

    def _count_draws(self, steps: int) -> None:
        for layer in self._drawing:
            layer.draws += steps

    def _count(self, rows: int, steps: int) -> None:
        self._steps += steps
        self._row += steps
        self._taken += rows * steps
        self._training.optimizer.steps += steps
        if self._training.ema is not None:
            self._training.ema.steps += steps

    def _record(self, rows: int, check: Callable[[], None]) -> tuple[Recording, Recording]:
        """Run a step's Python code; return the recordings up to the loss and of the rest."""
        state = self._state()
        proof, inputs = Proof(self.arena.target, state), [*state, *self._inputs()]
        forward, backward = (  # the step is counted between them
            Recording(self.arena, inputs, self.progress.counters, self._steps + counted)
            for counted in (0, 1)
        )
        self._take(rows, check, forward, backward)
        proof.check([forward, backward])
        return forward, backward

    def rehearse(self, rows: int, rehearsal: Rehearsal) -> None:
        """Run a step's Python code on `rows` images without its launches; nothing changes."""
        self._state()
        with unchanged(self._every_layer()):
            self._take(rows, lambda: None, rehearsal, rehearsal)

    def _take(
        self, rows: int, check: Callable[[], None], forward: Recording, backward: Recording
    ) -> None:
        """Run a step's Python code; `forward` records it up to the loss, `backward` the rest."""
        training, network = self._training, self._training.network
        layers = {id(layer): layer for layer in self._every_layer()}
        before = {key: dict(vars(layer)) for key, layer in layers.items()}
        with precision(training.rounding), forward:
            x, labels = self._batch(rows)
            dy = self._loss_gradient(x, labels)
        self._drawing = [
            layer for key, layer in layers.items() if layer.draws > before[key].get("draws", 0)
        ]
        for layer in self._drawing:  # their other attributes are restored below
            before[id(layer)]["draws"] = layer.draws
        check()
        trained = [index for index, layer in enumerate(self._layers) if layer.parameters]
        with precision(training.rounding), backward:
            scale_gradient(dy, training.loss_scale)
            dy = cast(dy, network.dtype)
            pending = self._pending()
            for layer in reversed(self._layers[min(trained, default=len(self._layers)) :]):
                with pending.collecting() if pending and own(layer) else nullcontext():
                    dy = layer.backward(dy)
                # Drop what forward kept: the remaining layers reuse its memory.
                restore(layer, before[id(layer)])
            self._end(pending)
        for key, layer in layers.items():
            restore(layer, before[key])

    def _end(self, pending: PendingSums | None) -> None:
        """Launch what follows the gradients in a step: the updates of weights and their average."""
        training, network = self._training, self._training.network
        weights, gradients = training.model.parameter_buffer, network.gradient_buffer
        unscale = update_loss_scale(gradients, training.loss_scale)
        copies = () if training.narrow is None else (network.parameter_buffer,)
        more = {} if pending is None else {"pending": pending}
        training.optimizer.update(weights, gradients, self._rates, unscale, *copies, **more)
        if training.ema is not None:
            training.ema.move(weights, self._shares)

    def _pending(self) -> PendingSums | None:
        """Return what takes up sums of gradients for the optimizer, if that can add them up.

        It can where nothing looks at the gradients before it.
        """
        training, target = self._training, self._target
        if target.in_lanes or training.loss_scale is not None or not own(training.optimizer):
            return None
        return PendingSums(target, training.network.gradient_buffer)

    def _every_layer(self) -> list[Layer]:
        return [*self._training.network.layers, *self._layers]

    def _state(self) -> list[Array]:
        """Return all arrays that a step may change; allocate those that the first step would.

        They include all arrays in attributes of the training's parts: a kernel may write there.
        """
        training, model = self._training, self._training.model
        training.optimizer.begin(model.parameter_buffer)
        arrays = [model.parameter_buffer, training.network.gradient_buffer, *self.progress]
        if training.narrow is not None:
            arrays.append(training.narrow.parameter_buffer)
        arrays += [model.state_buffer, *training.optimizer.state.values()]
        if training.ema is not None:
            training.ema.begin(model.parameter_buffer)
            arrays.append(training.ema.average)
        if training.loss_scale is not None:
            arrays.append(training.loss_scale)
        parts = [training.loss, training.optimizer, *self._every_layer()]
        return arrays + arrays_of(parts, type(model.parameter_buffer))

    def _inputs(self) -> list[Array]:
        """Return the arrays that a step only reads: the data and the tables."""
        data = [self._images, self._labels, self._order, self._rates.rows]
        return data if self._training.ema is None else [*data, self._shares.rows]

    def _batch(self, rows: int) -> tuple[Array, Array]:
        """Return the next images, as the model takes them, and their labels."""
        model = self._training.network
        scaled = self._images.dtype.kind == "u"  # floating images are taken as they are
        return gather_batch(
            self._target,
            self._images,
            self._labels,
            self._order,
            self.progress.counters,
            (rows, *model.input_shape),
            model.dtype,
            model.pixel_mean if scaled else 0.0,
            model.pixel_std if scaled else 1.0,
            self._augmentation,
        )

    def _loss_gradient(self, x: Array, labels: Array) -> Array:
        """Run forward, count losses and hits, and return the gradient of the loss.

        It is the gradient by the outputs; by the logits, if the last layer and the loss are fused.
        """
        for layer in self._layers:
            if isinstance(layer, DenseLoss):
                return layer.loss_gradient(x, labels, self.progress)
            x = layer.forward(x, training=True)
        x = cast(x, self._training.model.dtype)
        loss, dy = self._training.loss(x, labels)
        count_batch(self._target, loss, x, labels, self.progress)
        return dy

    def _table(self, steps: int, row: tuple[float, ...]) -> Table:
        """Return an empty table with a row per step, as wide as `row`."""
        wide = accumulator(self._training.model.dtype)
        return Table(self._target.zeros((steps, len(row)), wide), self.progress.counters[2:])

    def _fill(self, table: Table, rows: Iterable[tuple[float, ...]]) -> int:
        """Write the first rows of a table in place, and return how many."""
        row_type = np.dtype((table.rows.dtype, table.rows.shape[1:]))
        values = np.fromiter(rows, row_type)
        table.rows[: len(values)] = self._target.array(values)
        return len(values)
