"""The run's folder of ``cnn train``: a new one, or that of the training that goes on."""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import write_whole
from . import settings
from .options import UsageError

if TYPE_CHECKING:
    from ..runs import Run


def checkpoint(resumed: Path) -> Path:
    """Return the checkpoint that ``--resume`` names, or the latest of the run that it names.

    Raises
    ------
    FileNotFoundError
        If there is no such run, or it has no checkpoint.
    """
    from ..runs import Run

    if resumed.is_file():
        # It may be a link to a checkpoint, or its folder a link to another disk.
        for file in (Path(os.path.abspath(resumed)), resumed.resolve()):
            if (file.parent.parent / "settings.toml").exists():
                return file
        raise FileNotFoundError(
            f"--resume: {resumed} is no checkpoint in a run's folder: there is no "
            f"{file.parent.parent / 'settings.toml'}"
        )
    latest = Run(resumed).latest
    if latest is None:
        there = "has no checkpoint" if resumed.exists() else "is not there"
        raise FileNotFoundError(f"--resume: {resumed} {there}, expected the folder of a run")
    return latest


@contextmanager
def opened(options: argparse.Namespace, resumed: Path | None) -> Iterator[Run]:
    """Yield the run of a checkpoint, or a new one with settings and versions written.

    A new one that fails before its first checkpoint is deleted: it could not be resumed, and its
    name could not be used again.
    """
    from ..runs import Run, versions

    if resumed is not None:
        yield Run(resumed.parent.parent, options.keep)
        return
    names = "recipe dataset data device epochs batch_size lr seed shards keep".split()
    resolved = {name: getattr(options, name) for name in names}
    if resolved["data"] is not None:
        resolved["data"] = resolved["data"].resolve()  # valid from any folder
    text = settings.to_toml(resolved)
    run = _new_run(options)
    try:
        write_whole(run.folder / "settings.toml", text.encode())
        run.write_json("versions.json", versions(options.device))
        yield run
    except BaseException:
        if run.latest is None:
            shutil.rmtree(run.folder)
        raise


def check_name(options: argparse.Namespace) -> None:
    """Raise UsageError or FileExistsError unless ``--run`` names a new folder of runs."""
    from ..runs import Run

    runs = _runs(options)
    if options.run is None:
        return
    if options.run in ("", "..") or options.run != Path(options.run).name:
        raise UsageError(f"--run: got {options.run!r}, expected the name of a folder in {runs}")
    folder = runs / options.run
    if os.path.lexists(folder):
        advice = f"go on with it: --resume {shlex.quote(str(folder))}"
        if Run(folder).latest is None:
            advice = "delete it: it has no checkpoint to go on from"
        raise FileExistsError(f"--run: {folder} is there already; choose another name, or {advice}")


def _new_run(options: argparse.Namespace) -> Run:
    """Return a run in a new folder."""
    from ..runs import Run, new_run

    runs = _runs(options)
    if options.run is None:
        return new_run(runs, options.recipe, options.keep)
    return Run.create(runs / options.run, options.keep)


def _runs(options: argparse.Namespace) -> Path:
    return options.runs or Path("runs")


def written_results(run: Run, epochs: int, needed: Sequence[str]) -> dict[str, Any] | None:
    """Return the results that a finished run of so many epochs wrote, or None if it did not.

    All of the `needed` ones must be numbers. This process cannot make them again: they hold the
    times of the training.
    """
    model, file = run.folder / "model.safetensors", run.folder / "results.json"
    if not (model.exists() and file.exists()):
        return None
    try:
        results = json.loads(file.read_text())
    except ValueError:  # not JSON: something else wrote there
        return None
    # An interrupted training wrote results of fewer epochs.
    if not isinstance(results, dict) or results.get("epochs") != epochs:
        return None
    results = {name: math.nan if value is None else value for name, value in results.items()}
    numbers = (isinstance(results.get(name), (int, float)) for name in needed)
    return results if all(numbers) else None
