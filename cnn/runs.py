"""Run folders: settings, loss curve, checkpoints and results of a training.

runs/<name>/
    settings.toml        settings, which cnn train --config takes
    versions.json        versions of the software, and the device
    history.jsonl        an event a line: "steps", about 50 per epoch, and "epoch"
    checkpoints/         such as epoch-0002.safetensors, for cnn train --resume
    model.safetensors    the trained model
    results.json         accuracy, loss and times
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import math
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from . import checks, training_state
from .files import UNFINISHED, append, write_whole
from .training import Training

_LINES_PER_EPOCH = 50
_CHECKPOINT = re.compile(r"epoch-(\d+)\.safetensors")


def interval(steps_per_epoch: int) -> int:
    """Return the number of steps from one line of the loss curve to the next."""
    return -(-steps_per_epoch // _LINES_PER_EPOCH)


class Run:
    """The folder of a training, where a `Trainer` writes its loss curve and checkpoints.

    Parameters
    ----------
    folder : path
        An existing folder; see `create`.
    keep : int
        Number of checkpoints to keep; older ones are deleted.
    """

    def __init__(self, folder: str | Path, keep: int = 3) -> None:
        self.folder = Path(folder)
        self.keep = checks.count("keep", keep)
        # At the last line written: images of the epoch so far, and the sum of their losses.
        self._written = (0, 0.0)
        self._first = (0, 0)  # at the epoch's start: steps and images seen

    @classmethod
    def create(cls, folder: str | Path, keep: int = 3) -> Run:
        """Make a new folder.

        Raises
        ------
        FileExistsError
            If it exists.
        OSError
            If it cannot be made.
        """
        run = cls(folder, keep)
        run.folder.mkdir(parents=True)
        return run

    @property
    def history(self) -> Path:
        """The file of the loss curve."""
        return self.folder / "history.jsonl"

    @property
    def checkpoints(self) -> list[Path]:
        """The checkpoints in the folder, oldest first."""
        return [path for _, path in self._numbered()]

    @property
    def latest(self) -> Path | None:
        """The last checkpoint, or None."""
        return next(reversed(self.checkpoints), None)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let no other training write to the folder in a ``with`` block, if the system has locks.

        Raises
        ------
        BlockingIOError
            If another one does, of this process or another.
        """
        if sys.platform == "win32":
            yield
            return
        import fcntl

        folder = os.open(self.folder, os.O_RDONLY)
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                text = f"{self.folder} is in use: another training writes to it"
                raise BlockingIOError(text) from None
            except OSError:  # a file system without locks
                pass
            yield
        finally:
            with suppress(OSError):
                fcntl.flock(folder, fcntl.LOCK_UN)  # a process that was forked has it open, too
            os.close(folder)

    def check_own(self, training: Training) -> None:
        """Raise FileExistsError if finished epochs are here, but none of this training."""
        own = {_line("epoch", **record) for record in training.history}
        if any(number for number, _ in self._numbered()) and not own.intersection(self._lines()):
            raise FileExistsError(
                f"{self.folder} has the checkpoints of another training: restore one of them, or "
                "name another folder"
            )

    def begin(self, training: Training) -> None:
        """Drop what `history` has after the last finished epoch, and write a checkpoint."""
        kept, epochs = [], len(training.history)
        for line in self._lines() if epochs else []:
            kept.append(line)
            if line.startswith(f'{{"event": "epoch", "epoch": {epochs},'.encode()):
                break
        write_whole(self.history, b"".join(kept))
        (self.folder / "checkpoints").mkdir(exist_ok=True)
        self._save(training)

    def step(self, training: Training, learning_rate: float) -> None:
        """Once per `interval`, write the mean loss since the last line; that waits for a GPU."""
        assert training.course is not None
        steps = training.steps - self._first[0]
        of_epoch = training.course.steps_per_epoch
        if steps % interval(of_epoch) and steps != of_epoch:
            return
        images = training.images_seen - self._first[1]
        total = training.running_loss * images
        loss = (total - self._written[1]) / (images - self._written[0])
        self._written = images, total
        self._event(
            "steps",
            step=training.steps,
            images=training.images_seen,
            loss=loss,
            learning_rate=learning_rate,
        )

    def epoch(self, training: Training) -> None:
        """Write the last epoch's record and a checkpoint."""
        self._event("epoch", **training.history[-1])
        self._save(training)

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a file of the run."""
        write_whole(self.folder / name, to_json(content, indent=2))

    def _event(self, event: str, **values: Any) -> None:
        append(self.history, _line(event, **values))

    def _lines(self) -> list[bytes]:
        """Return the lines of the loss curve; one that is damaged, perhaps no text, as it is."""
        return self.history.read_bytes().splitlines(keepends=True) if self.history.exists() else []

    def _save(self, training: Training) -> None:
        self._first, self._written = (training.steps, training.images_seen), (0, 0.0)
        epochs = len(training.history)
        folder = self.folder / "checkpoints"
        training_state.save(training, folder / f"epoch-{epochs:04}.safetensors")
        for number, path in self._numbered():
            # Later ones are from before the training was resumed at an earlier checkpoint.
            if not epochs - self.keep < number <= epochs:
                path.unlink()
        for left_behind in folder.glob(f"{UNFINISHED}*"):  # by a process killed while saving
            left_behind.unlink()

    def _numbered(self) -> list[tuple[int, Path]]:
        folder = self.folder / "checkpoints"
        try:
            names = os.listdir(folder)  # raises if it may not be read; glob would find nothing
        except (FileNotFoundError, NotADirectoryError):
            return []
        named = [(_CHECKPOINT.fullmatch(name), folder / name) for name in names]
        return sorted((int(match[1]), path) for match, path in named if match)


def _line(event: str, **values: Any) -> bytes:
    return to_json({"event": event, **values})


def new_run(runs: Path, recipe: str, keep: int = 3) -> Run:
    """Return a run in a new folder below `runs`, named after the recipe and the time."""
    name = f"{recipe}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in itertools.count(2):
        try:
            return Run.create(runs / name, keep)
        except FileExistsError:  # another training was started in the same second
            name = f"{name.partition('~')[0]}~{number}"
    raise AssertionError


def versions(device: str) -> dict[str, str]:
    """Return what results depend on: the device and the versions of the software."""
    from kernels.lowlevel import describe

    return {"cnn-kernels": own_version(), "device": device, **describe()}


def own_version() -> str:
    """Return the version of the package that is installed."""
    try:
        return importlib.metadata.version("cnn-kernels")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def to_json(values: dict[str, Any], indent: int | None = None) -> bytes:
    """Return values as JSON, for a file: NaN and infinity, which it does not have, are null."""
    return f"{json.dumps(_finite(values), indent=indent, allow_nan=False)}\n".encode()


def _finite(value: Any) -> Any:
    """Return a value with None for NaN and infinity, within dicts, lists and tuples too."""
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
