"""What a training needs to go on bit for bit, in one file with its model."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, is_dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import checkpoint
from .checkpoint import CheckpointError

if TYPE_CHECKING:
    from .trainer import Trainer


@dataclass
class Course:
    """How far a `fit` has come.

    Attributes
    ----------
    epochs, batch_size : int
        As `fit` was given them.
    data : str
        Name of the data set.
    images : int
        In the data set.
    done : int
        Finished epochs.
    reached : int
        The trainer's steps at the end of the last of them.
    """

    epochs: int
    batch_size: int
    data: str
    images: int
    done: int = 0
    reached: int = 0

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch, the last perhaps of fewer images."""
        return -(-self.images // self.batch_size)

    @property
    def smallest_step(self) -> int:
        """Images of an epoch's last step."""
        return self.images - (self.steps_per_epoch - 1) * self.batch_size

    @property
    def steps(self) -> int:
        """Steps of all epochs."""
        return self.epochs * self.steps_per_epoch

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self.done == self.epochs


def check_continues(saved: Course, course: Course) -> None:
    """Raise ValueError unless a `fit` goes on with the one that was saved."""
    for name in ("epochs", "batch_size", "data", "images"):
        found, expected = getattr(course, name), getattr(saved, name)
        if found != expected:
            what = "the number of images" if name == "images" else name
            raise ValueError(
                f"{what}: got {found!r}, expected {expected!r} as in the training restored"
            )


def save(trainer: Trainer, path: str | Path) -> None:
    """Write a trainer's model and state; the file appears whole or not at all."""
    arrays = {f"optimizer.{name}": array for name, array in trainer.optimizer.state.items()}
    if trainer.ema is not None and trainer.ema.average is not None:
        arrays["weights"] = trainer.ema.average  # between two `fit`, the model has the average
    if trainer.loss_scale is not None:
        arrays["loss_scale"] = trainer.loss_scale
    # An epoch that was interrupted cannot go on: what there is is a start for another training.
    between_epochs = trainer.course is not None and trainer.course.reached == trainer.steps
    training = {
        "settings": _settings(trainer),
        "course": asdict(trainer.course) if trainer.course and between_epochs else None,
        "optimizer_steps": trainer.optimizer.steps,
        "ema_steps": 0 if trainer.ema is None else trainer.ema.steps,
        "steps": trainer.steps,
        "images_seen": trainer.images_seen,
        "train_seconds": trainer.train_seconds,
        "history": trainer.history,
        "draws": [[layer.seed, layer.draws] for layer in trainer.model.layers],
    }
    model = trainer.model
    checkpoint.write(
        path,
        checkpoint.Content(
            checkpoint.architecture(model),
            checkpoint.to_numpy(checkpoint.arrays_of(model)),
            training,
            checkpoint.to_numpy(arrays),
        ),
    )


def restore(trainer: Trainer, path: str | Path) -> None:
    """Give a trainer the model and the state in a file; it is changed only if all of them fit."""
    content = checkpoint.read(path)
    training, model = content.training, trainer.model
    if training is None:
        raise CheckpointError(f"{path} is a model without its training: that cannot go on")
    _check_architecture(path, content.architecture, checkpoint.architecture(model))
    for name, expected in _settings(trainer).items():
        found = training["settings"].get(name)
        if found != expected:
            raise CheckpointError(
                f"{path} was saved by a training with {name} {found}, expected {expected}"
            )
    checkpoint.fill(model, content, path)
    arrays = {name: model.target.array(a) for name, a in content.training_arrays.items()}
    # In place where there is an array already: others may hold its address.
    if trainer.ema is not None:
        trainer.ema.steps = training["ema_steps"]
        if trainer.ema.average is None:
            trainer.ema.average = model.parameter_buffer.copy()
        trainer.ema.average[...] = arrays.pop("weights", model.parameter_buffer)
    if trainer.loss_scale is not None:
        trainer.loss_scale[...] = arrays.pop("loss_scale")
    optimizer = trainer.optimizer
    optimizer.steps = training["optimizer_steps"]
    for array in optimizer.state.values():
        array[...] = 0
    for name, array in arrays.items():
        state = name.removeprefix("optimizer.")
        if state in optimizer.state:
            optimizer.state[state][...] = array
        else:
            optimizer.state[state] = array
    trainer.steps = training["steps"]
    trainer.images_seen = training["images_seen"]
    trainer.train_seconds = training["train_seconds"]
    trainer.history[:] = training["history"]
    trainer.course = None if training["course"] is None else Course(**training["course"])
    for layer, (seed, draws) in zip(model.layers, training["draws"], strict=True):
        layer.seed, layer.draws = seed, draws


def _check_architecture(path: str | Path, saved: dict[str, Any], ours: dict[str, Any]) -> None:
    ours = json.loads(json.dumps(ours))  # tuples are lists, as in the file
    differences = [
        (f"layer {position}", *pair)
        for position, pair in enumerate(zip_longest(saved["layers"], ours["layers"]))
    ] + [(name, saved[name], ours[name]) for name in ("input_shape", "dtype")]
    for what, found, expected in differences:
        if found != expected:
            raise CheckpointError(
                f"{path} is of another architecture: {what} is {_layer(found)}, "
                f"expected {_layer(expected)}"
            )


def _layer(described: Any) -> str:
    """Return [name, settings] of a layer as one writes it, and anything else as it is."""
    if described is None:
        return "missing"
    if not (isinstance(described, list) and isinstance(described[0], str)):
        return str(described)
    name, settings = described
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in settings.items())})"


def _settings(trainer: Trainer) -> dict[str, str]:
    """Return what must be the same for a training to go on, in words."""
    return {
        name: repr(value)
        if value is None or isinstance(value, (int, str)) or is_dataclass(value)
        else getattr(value, "__qualname__", type(value).__qualname__)
        for name in ("optimizer", "loss", "schedule", "augment", "ema", "precision", "seed")
        for value in [getattr(trainer, name)]
    }
