"""Training and evaluating a model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kernels.lowlevel import Array, precision

from . import checks, training_state
from .agreement import check_agreement, check_weights
from .augment import Augment
from .course import Course
from .data.dataset import Dataset, pixel_statistics
from .divergence import TrainingDivergedError
from .ema import EMA
from .evaluation import check_outputs, checked, evaluate
from .fresh_statistics import update_batch_norm
from .host import to_host
from .losses import Loss
from .model import Sequential
from .optimizers import Optimizer
from .parallel.world import World
from .plan import obstacle, replays
from .progress import Bar
from .rehearsal import prepare
from .runs import Run, interval
from .schedules import Schedule
from .sharded import ShardedSteps
from .steps import PlainSteps, PlannedSteps, Steps
from .training import Training


class Trainer(Training):
    """A `Training` with `fit`, which minimises the loss over the model's parameters.

    Parameters
    ----------
    model : Sequential
        Changed in place.
    optimizer : Optimizer
        Such as ``SGD(0.1, momentum=0.9)``.
    loss : Loss, optional
        `default_loss` of the model by default.
    schedule : Schedule, optional
        Factor of the learning rate at each step of one `fit`; `Constant` by default.
    augment : Augment, optional
        Changes each batch of training images at random. One of your own is called with a batch, its
        seed and its number, as `Augment` is, and returns uint8 images for uint8 images.
    precision : {"fp32", "tf32", "bf16", "fp16"}
        Precision of matrix products and convolutions in training steps; all but "fp32" need a
        float32 model and a GPU that has them, see `kernels.lowlevel.precision`. Parameters and sums
        stay float32. With "bf16" and "fp16", activations and gradients have that type, and layers
        use rounded copies of the parameters; with a layer, loss or optimizer of your own, only the
        operands of products are rounded. With "fp16", gradients are scaled, and steps whose
        gradients overflow are skipped.
    seed : int
        Seeds the order of the images and the augmentation; in [0, 2**64).
    ema : EMA, optional
        Moving average of the weights. `evaluate` measures it, and the model holds it when `fit`
        returns.
    plan : bool
        Whether to record each step once and replay it, where possible. If False, every step calls
        every layer; the results are equal up to rounding.
    run : Run, optional
        Run folder; `fit` writes the loss curve there and, after every epoch, a checkpoint. Of
        several processes, one has it.
    shards : int, optional
        Parts into which each batch is cut; by default as many as there are processes. Each part has
        batch-norm statistics and random numbers of its own. Gradients, and running statistics, are
        those of all parts, averaged in a fixed order.
    world : World, optional
        Processes that share the parts of each batch: an equal number each. All call the same
        methods with equal settings and data, and get the same results. See `cnn.parallel`.
    fresh_statistics : bool
        Whether the last epoch ends with `update_batch_norm` of the training images, which are not
        augmented for it.

    Attributes
    ----------
    planned : bool
        Whether the last `fit` replayed its steps.
    obstacle : str or None
        Why it did not, such as a layer that is not `recordable`; None if it did.
    history, train_seconds, images_seen, steps, course, loss_scale
        See `Training`.

    Raises
    ------
    TypeError, ValueError
        If an argument has another type or is out of range, or the model's device and dtype do not
        support the precision.

    Notes
    -----
    The same seeds, data and number of shards give the same bits on one machine, in any number of
    processes.
    """

    def __init__(
        self,
        model: Sequential,
        optimizer: Optimizer,
        loss: Loss | None = None,
        schedule: Schedule | None = None,
        augment: Augment | None = None,
        precision: str = "fp32",
        seed: int = 0,
        ema: EMA | None = None,
        plan: bool = True,
        run: Run | None = None,
        shards: int | None = None,
        world: World | None = None,
        fresh_statistics: bool = False,
    ) -> None:
        super().__init__(
            model, optimizer, loss, schedule, augment, precision, seed, ema, fresh_statistics
        )
        self.plan = checks.flag("plan", plan)
        self.planned = False
        self.obstacle: str | None = None
        self.run: Run | None = None if run is None else checks.instance("run", run, Run)
        self.world: World = World() if world is None else checks.instance("world", world, World)
        self.shards: int = self.world.size if shards is None else checks.count("shards", shards)
        checks.multiple("shards", self.shards, self.world.size, "processes")
        self._restored = False

    def fit(
        self,
        data: Any,
        epochs: int = 1,
        batch_size: int = 256,
        validation: Any = None,
        progress: bool = False,
    ) -> list[dict[str, Any]]:
        """Train, and return `history`.

        Parameters
        ----------
        data : Dataset or pair (images, labels)
            Images (N, H, W, C) or (N, H, W), uint8 or floating; labels (N,), any integer dtype.
            uint8 images set the model's `pixel_mean` and `pixel_std`, unless these are set already,
            to others than 0 and 255.
        epochs : int
            Passes over the data, each in another random order.
        batch_size : int
            Images per step; the last step of an epoch takes the rest.
        validation : the same as data, optional
            Evaluated after every epoch.
        progress : bool
            Show a progress bar on standard error or, if that is no terminal, a line per epoch.

        Raises
        ------
        TypeError, ValueError
            If data or parameters do not fit, a step would leave a `BatchNorm` one value per
            channel, the optimizer has the state of another model, or processes disagree.
        FileExistsError
            If the run's folder has the checkpoints of another training.
        KernelError
            If the kernels cannot be compiled.
        TrainingDivergedError
            If a loss is not finite, of a step or of the validation, or if weights are not at the
            end of an epoch. On a GPU losses, too, are checked then.
        KeyboardInterrupt
            On Ctrl-C; on a GPU perhaps only at the end of an epoch. Model, `history` and
            `train_seconds` stay as they are then.

        Notes
        -----
        After `restore`, an unfinished training continues: data, epochs and batch_size must be the
        same as before, and finished epochs are not trained again.
        """
        dataset = checked(self.model, "data", data)
        held_out = None
        if validation is not None:
            check_outputs(self.model)
            held_out = checked(self.model, "validation", validation)
        epochs = checks.count("epochs", epochs)
        batch_size = checks.count("batch_size", batch_size)
        progress = checks.flag("progress", progress)
        asked = Course.of(dataset, epochs, batch_size, self.shards, self.steps)
        asked.check_shards()
        asked.check_statistics(self.model)
        with self.model.target.on():
            self.optimizer.begin(self.model.parameter_buffer)
        course = self._continued(asked)
        with nullcontext() if self.run is None else self.run.held():
            if self.run is not None and not self._restored:
                self.run.check_own(self)
            # Ctrl-C may come as a recording ends, and leave it on: then only in this context.
            copy_context().run(self._fit, course, dataset, held_out, progress)
        return self.history

    def _fit(
        self, course: Course, dataset: Dataset, held_out: Dataset | None, progress: bool
    ) -> None:
        """Train what is left of the course."""
        target = self.model.target
        images = target.array(dataset.images)
        labels = target.array(dataset.labels, np.int64)
        check_agreement(self.world, self, course, dataset, held_out)
        steps = self._steps(images, labels, course)
        prepare(self, steps.plan, images, course.sizes, held_out)
        # Not before: a `fit` that is refused changes nothing.
        self.course = course
        if dataset.images.dtype.kind == "u" and not self.model.has_pixel_statistics:
            with target.on():
                self.model.pixel_mean, self.model.pixel_std = pixel_statistics(dataset.images)
        steps_per_replay = self._steps_per_replay(course, watched=progress or self.run is not None)
        if self.run is not None:
            self.run.begin(self)
        self._restored = False
        bar = Bar(course.epochs * len(dataset), course.done * len(dataset), enabled=progress)
        # The model holds the weights here, and the moving average outside `fit`.
        with target.on(), bar, self._trained_weights():
            if self.narrow is not None:
                self.narrow.refresh()  # weights and statistics may have changed since
            while not course.finished:
                start = time.perf_counter()
                loss, rate = self._epoch(steps, course, steps_per_replay, bar)
                seconds = time.perf_counter() - start
                self._check_finite(loss)
                check_weights(self.world, self)
                with self._average():
                    if self.fresh_statistics and course.done + 1 == course.epochs:
                        with self._counted_time():
                            # A shard at a time, as in a step, since memory suffices for that.
                            shard = -(-course.batch_size // self.shards)
                            update_batch_norm(self.model, images, shard)
                    record = self._record(loss, seconds, len(dataset), rate, held_out)
                    # Not before: a `save` after an interruption takes what is not done as begun.
                    self.history.append(record)
                    course.done, course.reached = course.done + 1, self.steps
                    bar.end_epoch(f"epoch {course.done}/{course.epochs}", self)
                    if self.run is not None:
                        self.run.epoch(self)

    def save(self, path: str | Path) -> None:
        """Write model and state of the training to a safetensors file.

        All random numbers depend on seeds and counters alone, so a trainer that restores the file
        continues bit for bit, on the same device. If `fit` was interrupted within an epoch, the
        file has the weights of that step, but the next `fit` trains all its epochs from there; a
        `Run` writes checkpoints at the ends of epochs. `Sequential.load` reads the model from the
        file, even if `restore` refuses a loss or schedule of your own.

        Raises
        ------
        TypeError
            If a layer's settings cannot be saved; see `Layer.settings`.
        OSError
            If the file cannot be written; a file that was there is then unchanged.
        """
        with self.model.lock:
            # Within an epoch, perhaps of another thread, the average is not in the model.
            within = self.ema is not None and self.ema.entered
            with self._average() if within else nullcontext():
                training_state.save(self, path)

    def restore(self, path: str | Path) -> None:
        """Read what `save` wrote; the next `fit` continues that training if it was not finished.

        A loss, schedule, optimizer or augmentation of your own must be a dataclass of numbers and
        strings, or a function that uses no variables of other functions: only these can be
        compared with those of the file.

        Raises
        ------
        CheckpointError
            If the file is damaged or of another version, or if architecture, optimizer, loss,
            schedule, augmentation, average, precision or seed differ or cannot be compared; nothing
            is changed then.
        OSError
            If it cannot be read.
        """
        with self.model.lock, self.model.target.on():
            training_state.restore(self, path)
        self._restored = self.course is not None and not self.course.finished
        self.loss_count = 0

    def evaluate(self, data: Any, batch_size: int = 1024) -> dict[str, float]:
        """Return {"loss": mean loss, "accuracy": fraction of right classes} of the model.

        Raises
        ------
        TypeError, ValueError
            If the data do not fit; see `fit`.
        """
        return evaluate(self.model, data, self.loss, batch_size, self.world)

    def _continued(self, course: Course) -> Course:
        """Return the course that was restored, which the one asked for must continue, or that."""
        if self._restored and self.course is not None:
            course.check_continues(self.course)
            return self.course
        return course

    def _epoch(
        self, steps: Steps, course: Course, steps_per_replay: int, bar: Bar
    ) -> tuple[float, float]:
        """Train for an epoch; return its mean loss and its last learning rate."""
        batch_size = course.batch_size
        first = course.done * course.steps_per_epoch
        order = self._order(course.images)
        self.loss_sum = self.model.target.zeros((), np.float64)
        self.loss_count = 0
        every_step = range(first, first + course.steps_per_epoch)
        steps.begin_epoch(order, (self._factor(step, course) for step in every_step))
        for replay in replays(course, steps_per_replay):
            chosen = order[replay.start * batch_size : replay.stop * batch_size]
            factor = self._factor(first + replay[-1], course)
            with self.model.lock, self._counted_time():
                course.reached = -1  # Ctrl-C may come after the weights change, before the count
                steps.take(chosen, len(replay), factor, partial(self._check_on_cpu, steps, chosen))
                self._count(len(replay), len(chosen))
            bar.advance(len(chosen), f"epoch {course.done + 1}/{course.epochs}", self)
            if self.run is not None:
                self.run.step(self, float(self.optimizer.lr * factor))
        with self._counted_time():
            loss = self.running_loss  # waits for the device
        self._check(steps, chosen[-batch_size:], loss, self.steps - 1)
        return loss, float(self.optimizer.lr * factor)

    def _check_on_cpu(self, steps: Steps, chosen: Array, loss: Array) -> None:
        """Check the loss of the current step, except on a GPU, where reading it waits."""
        if self.model.target.name != "cuda":
            self._check(steps, chosen, loss, self.steps)

    def _check(self, steps: Steps, chosen: Array, loss: Array, step: int) -> None:
        """Raise TrainingDivergedError if the loss of a step, counted from 0, is not finite."""
        if not math.isfinite(loss):
            with precision(self.rounding):
                found = steps.origin(chosen, step)
            raise self._diverged(float(loss), step + 1, found)

    def _check_finite(self, loss: float) -> None:
        """Raise TrainingDivergedError if weights are not finite after an epoch."""
        if np.isfinite(to_host(self.model.parameter_buffer)).all():
            return
        arrays = self.model.parameters.items()
        name = next(name for name, array in arrays if not np.isfinite(to_host(array)).all())
        raise self._diverged(loss, self.steps, name)

    def _diverged(self, loss: float, step: int, origin: str) -> TrainingDivergedError:
        last = None if self.run is None else self.run.latest
        return TrainingDivergedError(loss, step, origin, last)

    def _count(self, steps: int, images: int) -> None:
        self.loss_count += images
        self.images_seen += images
        self.steps += steps

    def _steps(self, images: Array, labels: Array, course: Course) -> Steps:
        """Choose the way to take the steps: planned ones, unless there is an obstacle."""
        self.obstacle = obstacle(self, images) if self.plan else "plan is False"
        self.planned = self.obstacle is None
        if course.shards > 1:
            return ShardedSteps(self, self.world, course, images, labels, self.planned)
        if self.planned:
            return PlannedSteps(self, images, labels, course)
        return PlainSteps(self, images, labels)

    def _factor(self, step: int, course: Course) -> float:
        """Return the schedule's factor as a Python number."""
        return float(checks.number(0)("schedule", self.schedule(step, course.steps)))

    def _steps_per_replay(self, course: Course, watched: bool) -> int:
        """Return the number of steps per replay; loss and Ctrl-C are seen only between replays."""
        if not self.planned or course.shards > 1 or self.model.target.name != "cuda":
            return 1
        steps = course.steps_per_epoch
        # Capturing a graph costs as much as launching each of its kernels once. So the graph of a
        # whole epoch pays only if another epoch replays it; that of a few steps pays within one.
        return interval(steps) if watched or course.epochs == course.done + 1 else steps

    def _record(
        self, loss: float, seconds: float, images: int, rate: float, validation: Dataset | None
    ) -> dict[str, Any]:
        """Return an epoch's entry in `history`; evaluate if there are validation data."""
        record = {
            "epoch": len(self.history) + 1,
            "train_loss": loss,
            "seconds": seconds,
            "images_per_second": images / seconds,
            "learning_rate": rate,
        }
        if validation is not None:
            found = evaluate(self.model, validation, self.loss, world=self.world)
            if not math.isfinite(found["loss"]):
                raise self._diverged(found["loss"], self.steps, "the validation")
            record |= {f"validation_{name}": value for name, value in found.items()}
        return record

    def _order(self, count: int) -> Array:
        """Draw the order of an epoch's images."""
        generator = np.random.default_rng((self.seed, self.images_seen))
        return self.model.target.array(generator.permutation(count))

    @contextmanager
    def _counted_time(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.train_seconds += time.perf_counter() - start

    def _trained_weights(self) -> AbstractContextManager[None]:
        """Let the model hold its weights in a ``with`` block: outside it holds their average."""
        if self.ema is None:
            return nullcontext()
        return self._exchanged(self.ema.enter, self.ema.leave)

    def _average(self) -> AbstractContextManager[None]:
        """Let the model hold the average of its weights, if there is one, in a ``with`` block."""
        if self.ema is None:
            return nullcontext()
        return self._exchanged(self.ema.swap, self.ema.swap)

    @contextmanager
    def _exchanged(
        self, before: Callable[[Array], None], after: Callable[[Array], None]
    ) -> Iterator[None]:
        with self.model.lock:
            before(self.model.parameter_buffer)
        try:
            yield
        finally:
            with self.model.lock:
                after(self.model.parameter_buffer)
