"""What several commands share: their options, checks of files, and messages."""

from __future__ import annotations

import argparse
import errno
import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..runs import to_json

#: The names in `cnn.recipes`, which takes longer to import than --help should.
RECIPES = ("speedrun", "default", "accurate")


class UsageError(Exception):
    """A command was called wrongly; the command line prints the sentence and returns 2."""


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device."""
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto: the GPU where one works (default: %(default)s)",
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add --dataset and --data."""
    parser.add_argument(
        "--dataset",
        choices=("auto", "mnist", "synthetic"),
        default="auto",
        help="auto: MNIST, or synthetic digits where it cannot be had (default: %(default)s)",
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with the four MNIST files")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results")


def device(chosen: str, say: Callable[[str], None]) -> str:
    """Return "cpu" or "cuda"; where auto settled for cpu, say why."""
    from kernels.runtime import choose_target

    target, reason = choose_target(chosen)
    if reason is not None:
        say(f"using the CPU: {reason}")
    return "cuda" if target.name == "cuda" else "cpu"


def check_writable(*paths: Path | None) -> None:
    """Raise OSError now rather than after the work, unless all of these can be written."""
    for path in paths:
        if path is None:
            continue
        try:
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "it is a folder")
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            missing = isinstance(error, FileNotFoundError) and not path.parent.exists()
            reason = f"there is no folder {path.parent}" if missing else error.strerror
            raise OSError(f"{path} cannot be written: {reason}") from error


def write_json(path: Path | None, results: dict[str, Any]) -> None:
    """Write results where asked for."""
    if path is not None:
        path.write_text(to_json(results, indent=2) + "\n")


def say(text: str) -> None:
    """Print a line on standard error."""
    print(text, file=sys.stderr)


def silence(text: str) -> None:
    """Print nothing."""


def positive(text: str) -> int:
    """Return a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number of at least 1")
    return int(text)


def seed(text: str) -> int:
    """Return a whole number that seeds a generator."""
    if not text.isdecimal() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(
            f"got {text!r}, expected a whole number from 0 to 2**31 - 1"
        )
    return int(text)


def rate(text: str) -> float:
    """Return a finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number above 0")
    return number
