"""What several commands share: options, checks of files, and printing."""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import files
from ..data.loading import NAMES
from ..runs import to_json

#: The names in `cnn.recipes`, which takes longer to import than --help should.
RECIPES = ("speedrun", "default", "accurate")

#: Said before a wait that is long the first time.
PREPARING = "preparing the model; the first time, its kernels are compiled, which may take a minute"


class UsageError(Exception):
    """The command's words are wrong, whatever is on this machine; the exit status is 2."""


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
        choices=("auto", *NAMES),
        default="auto",
        metavar="NAME",
        help=f"{', '.join(NAMES)}, or auto: what --data has, else MNIST, or synthetic digits where "
        "it cannot be had (default: %(default)s)",
    )
    parser.add_argument(
        "--data",
        type=path,
        metavar="DIR",
        help="folder with four IDX files, named as those of MNIST",
    )


def check_data(options: argparse.Namespace) -> None:
    """Raise UsageError if --data names a folder for a set that is in none."""
    if options.dataset == "synthetic" and options.data is not None:
        raise UsageError(f"--data: got {options.data}, expected none with --dataset synthetic")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", type=path, metavar="FILE", help="write the results")


def device(chosen: str, say: Callable[[str], None]) -> str:
    """Return "cpu" or "cuda"; if "auto" falls back to the CPU, say why."""
    from kernels.lowlevel import choose_target

    target, reason = choose_target(chosen)
    if reason is not None:
        say(f"using the CPU: {reason}")
    return target.name


def check_outputs(
    options: argparse.Namespace, outputs: Iterable[Path | None], inputs: Iterable[Path] = ()
) -> None:
    """Raise OSError before the work begins, unless all outputs can be written.

    None may be a file that the command reads: one of `inputs`, or of its data set.
    """
    from ..data.mnist import files_there

    data = files_there(options.data) if "data" in options else []
    files.check([path for path in outputs if path is not None], [*inputs, *data])


def write_json(path: Path | None, results: dict[str, Any]) -> None:
    """Write results to the file of --json, if one was given."""
    if path is not None:
        files.write_whole(path, to_json(results, indent=2))


def report(text: str, *outputs: Path | None) -> None:
    """Print a line on standard output, or on standard error if an output file is that."""
    taken = any(files.is_standard_output(path) for path in outputs if path is not None)
    print(text, file=sys.stderr if taken else sys.stdout)


def say(text: str) -> None:
    """Print a line on standard error."""
    print(text, file=sys.stderr)


def silence(text: str) -> None:
    """Print nothing."""


def path(text: str) -> Path:
    """Return a path with its ``~`` expanded; shells leave it in ``--save=~/file``."""
    if not text:  # Path would take it for the current folder
        raise argparse.ArgumentTypeError("got '', expected a path")
    return Path(os.path.expanduser(text))


def whole(least: int, most: int = 2**31 - 1) -> Callable[[str], int]:
    """Return a function that reads a whole number from `least` to `most`."""

    def read(text: str) -> int:
        # The count of digits first: int() refuses thousands of them.
        if not text.isdecimal() or len(text) > 99 or not least <= int(text) <= most:
            expected = f"expected a whole number from {least} to {most}"
            raise argparse.ArgumentTypeError(f"got {text[:99]!r}, {expected}")
        return int(text)

    return read


positive, seed = whole(1), whole(0)


def rate(text: str) -> float:
    """Return a finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number above 0")
    return number


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait for the end of a ``with`` block.

    Extension modules of onnx and matplotlib crash the process, some as late as at its end, if an
    exception comes while they are loaded.
    """
    if threading.current_thread() is not threading.main_thread():  # Ctrl-C is for that one
        yield
        return
    seen: list[Any] = []
    handler = signal.signal(signal.SIGINT, lambda *call: seen.append(call))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if seen:
            signal.raise_signal(signal.SIGINT)
