"""Saving a training with its model in one file, and restoring it to continue bit for bit."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields, replace
from itertools import zip_longest
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from . import checks
from .course import Course
from .formats import checkpoint
from .formats.checkpoint import CheckpointError
from .host import to_host
from .recordable import own
from .training import Training

#: Attributes of a training that must be equal to the saved ones; see `described`.
_SETTINGS = (
    "optimizer",
    "loss",
    "schedule",
    "augment",
    "ema",
    "precision",
    "seed",
    "fresh_statistics",
)


def save(training: Training, path: str | Path) -> None:
    """Write a training with its model, which holds the average of its weights if there is one.

    The file appears whole or not at all.
    """
    arrays = {f"optimizer.{name}": array for name, array in training.optimizer.state.items()}
    if training.ema is not None and training.ema.average is not None:
        arrays["weights"] = training.ema.average  # exchanged: see `EMA.swap`
    if training.loss_scale is not None:
        arrays["loss_scale"] = training.loss_scale
    # A `fit` that was interrupted within an epoch cannot be continued: then no course is saved.
    course = training.course
    between_epochs = course is not None and course.reached == training.steps
    state = {
        "settings": settings(training),
        "course": asdict(course) if course and between_epochs else None,
        "optimizer_steps": training.optimizer.steps,
        "ema_steps": 0 if training.ema is None else training.ema.steps,
        "steps": training.steps,
        "images_seen": training.images_seen,
        "train_seconds": training.train_seconds,
        "history": training.history,
        "draws": [[layer.seed, layer.draws] for layer in training.model.layers],
    }
    content = training.model.content()
    on_host = {name: to_host(array) for name, array in arrays.items()}
    checkpoint.write(path, replace(content, training=state, training_arrays=on_host))


def restore(training: Training, path: str | Path) -> None:
    """Set a training and its model to what a file holds; see `Trainer.restore`."""
    content = checkpoint.read(path)
    state, model = content.training, training.model
    if state is None:
        raise CheckpointError(f"{path} is a model without its training: that cannot go on")
    _check_architecture(path, content.architecture, model.architecture())
    saved = {"fresh_statistics": described(False), **state["settings"]}  # older files lack it
    for name in _SETTINGS:
        _check_setting(path, name, saved.get(name), getattr(training, name))
    course = _course(path, state)
    if len(state["draws"]) != len(model.layers):
        raise CheckpointError(f"{path} is damaged: its training has draws of other layers")
    _check_arrays(path, training, state, content.training_arrays)
    model.fill(content, path)
    arrays = {name: model.target.array(a) for name, a in content.training_arrays.items()}
    # Arrays that exist are filled in place: recorded launches hold their addresses.
    ema, optimizer = training.ema, training.optimizer
    if ema is not None:
        ema.begin(model.parameter_buffer)
        assert ema.average is not None
        ema.steps = state["ema_steps"]
        ema.average[...] = arrays.pop("weights", model.parameter_buffer)
        ema.left(model.parameter_buffer)
    if training.loss_scale is not None:
        training.loss_scale[...] = arrays.pop("loss_scale")
    optimizer.begin_anew(model.parameter_buffer)
    optimizer.steps = state["optimizer_steps"]
    for name, array in arrays.items():
        slot = name.removeprefix("optimizer.")
        if slot in optimizer.state:
            optimizer.state[slot][...] = array
        else:
            optimizer.state[slot] = array
    training.steps = state["steps"]
    training.images_seen = state["images_seen"]
    training.train_seconds = state["train_seconds"]
    training.history[:] = state["history"]
    training.course = course
    for layer, (seed, draws) in zip(model.layers, state["draws"], strict=True):
        layer.seed, layer.draws = seed, draws


def course_of(path: str | Path) -> Course | None:
    """Return the course of the training in a file, or None if it has none."""
    state = checkpoint.read(path).training
    return None if state is None else _course(path, state)


def settings(training: Training) -> dict[str, str | None]:
    """Return the settings that a restored training must have, each as `described`."""
    return {name: described(getattr(training, name)) for name in _SETTINGS}


def _course(path: str | Path, state: dict[str, Any]) -> Course | None:
    try:
        return None if state["course"] is None else Course(**state["course"])
    except TypeError as error:
        raise CheckpointError(
            f"{path} is damaged: its training has another 'course': {error}"
        ) from error


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
    """Return [name, settings] of a layer as its constructor call, anything else as text."""
    if described is None:
        return "missing"
    if not (isinstance(described, list) and isinstance(described[0], str)):
        return str(described)
    name, settings = described
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in settings.items())})"


def _check_arrays(
    path: str | Path, training: Training, state: dict[str, Any], arrays: checkpoint.Arrays
) -> None:
    """Raise CheckpointError unless the arrays of a training that has begun have its shapes."""
    shape = training.model.parameter_buffer.shape
    slots = training.optimizer.slots()
    expected = {f"optimizer.{slot}": (shape, state["optimizer_steps"]) for slot in slots}
    if training.ema is not None:
        expected["weights"] = shape, state["ema_steps"]
    if training.loss_scale is not None:
        expected["loss_scale"] = training.loss_scale.shape, 1
    for name, (shape, needed) in expected.items():
        if needed if name not in arrays else arrays[name].shape != shape:
            raise CheckpointError(
                f"{path} is damaged: its training has no {name!r} of shape {tuple(shape)}"
            )


def _check_setting(path: str | Path, name: str, found: str | None, value: Any) -> None:
    """Raise CheckpointError unless a setting can be shown to equal the saved one."""
    expected = described(value)
    if expected is None or found is None:
        whose = "of that training" if found is None else "given here"
        raise CheckpointError(
            f"{path}: the {name} {whose} cannot be compared, expected a dataclass of numbers and "
            "strings, or a function without variables of another function"
        )
    if found != expected:
        raise CheckpointError(
            f"{path} was saved by a training with {name} {found}, expected {expected}"
        )


def described(value: Any) -> str | None:
    """Return text that is equal for equal settings only, or None if there is no such text.

    For None, numbers, strings, and tuples and lists of them it is the repr. For a dataclass it is
    module and name of the class and the fields of its constructor, but not its methods. For a
    function it is module, name, bytecode and defaults, but not the globals that it reads. Bytecode
    differs between versions of Python.

    There is none for an object whose class is no dataclass or is defined within a function, nor for
    a function that uses variables of another function (a closure).
    """
    value = checks.plain(value)
    if _is_literal(value):
        return repr(value)
    if isinstance(value, FunctionType):
        given = (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())
        defaults = checks.plain(given)
        if value.__closure__ is not None or not _is_literal(defaults):
            return None
        code = hashlib.sha256(_code(value.__code__).encode()).hexdigest()[:16]
        return f"{value.__module__}.{value.__qualname__} of code {code} and defaults {defaults}"
    kind = type(value)
    # A class derived from a dataclass may have other attributes than its fields.
    if "__dataclass_fields__" not in vars(kind) or "<locals>" in kind.__qualname__:
        return None
    name = kind.__qualname__ if own(value) else f"{kind.__module__}.{kind.__qualname__}"
    settings = {f.name: described(getattr(value, f.name)) for f in fields(value) if f.init}
    if None in settings.values():
        return None
    return f"{name}({', '.join(f'{key}={text}' for key, text in settings.items())})"


def _is_literal(value: Any) -> bool:
    """Whether two values are equal if their repr is."""
    if type(value) in (tuple, list):
        return all(map(_is_literal, value))
    return value is None or type(value) in (bool, int, float, str)


def _code(code: CodeType) -> str:
    """Return a function's bytecode and names as text, without its file and line numbers."""
    constants = [
        _code(constant)
        if isinstance(constant, CodeType)
        else repr(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant)
        for constant in code.co_consts
    ]
    handlers = getattr(code, "co_exceptiontable", b"")  # of Python 3.11 and newer
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    return repr((code.co_code, handlers, constants, names, counts))
