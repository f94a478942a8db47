"""The command line: ``python -m cnn``, or ``cnn`` where the package is installed."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
import time
import warnings
from collections.abc import Sequence
from typing import Any, TextIO

from kernels import KernelError

from . import commands
from .commands.options import UsageError, say
from .data import DataError
from .divergence import TrainingDivergedError
from .formats.checkpoint import CheckpointError
from .parallel import joined
from .runs import own_version

_EXAMPLES = """\
  cnn train                    one epoch of MNIST, as fast as it goes
  cnn train --recipe default --run mine
  cnn evaluate runs/mine/model.safetensors
  cnn predict runs/mine/model.safetensors seven.png
  cnn demo runs/mine/model.safetensors      a page to draw digits on
  cnn plot runs/mine           pictures of the training
  cnn export runs/mine/model.safetensors model.onnx
  cnn bench                    how fast this machine is
  cnn info                     what this machine has"""

_FAILURES = (
    KernelError,
    DataError,
    CheckpointError,
    TrainingDivergedError,
    TypeError,
    ValueError,
    OSError,
    MemoryError,
    ImportError,  # of what an extra installs
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    That is 0 for success, 1 for a failure, 2 for wrong usage, 130 for Ctrl-C and, as of other
    programs, 141 if the reader of its output has gone. Wrong usage is what would be wrong on any
    machine; a file or folder that is missing, damaged or in the way is a failure.
    """
    _prepare_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        try:
            options = _parser().parse_args(words)
            options.words = words[1:]  # what follows the command's name
            with warnings.catch_warnings():
                warnings.showwarning = _say_warning
                return int(options.execute(options))
        finally:
            _end_streams()
    except UsageError as error:
        return _failed(f"error: {error}", 2)
    except _FAILURES as error:
        text = str(error) or type(error).__name__
        if isinstance(error, BrokenPipeError) and error.filename is None:
            joined().stop(141)
            return 141
        if isinstance(error, OSError) and error.strerror is not None:  # str() shows a number
            text = (
                error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
            )
        return _failed(f"error: {text}", 1)
    except KeyboardInterrupt:
        return _failed("interrupted", 130)


def _prepare_streams() -> None:
    """Open the null device as each standard stream that is closed, for which `sys` has None.

    Else what is printed on standard error would appear on standard output, and the next file that
    is opened would get the stream's descriptor. Of names that standard output cannot encode, it
    shows escapes, as standard error does.
    """
    for name in ("stdin", "stdout", "stderr"):  # in the order of their descriptors
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  open to the end
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _end_streams() -> None:
    """Flush the standard streams, or raise OSError.

    A stream that fails becomes the null device: else Python would flush it again when it ends, and
    complain.
    """
    fault = None
    for stream in (sys.stderr, sys.stdout):
        try:
            stream.flush()
        except OSError as error:
            with open(os.devnull, "w") as null:
                os.dup2(null.fileno(), stream.fileno())
            fault = error
    if fault is not None:
        raise fault


def _failed(text: str, status: int) -> int:
    """Say why the command failed, end its other processes, and return the status."""
    world = joined()
    if world.rank:
        # Where all processes fail alike, the first one says so and ends the others meanwhile.
        time.sleep(1)
        text = f"{text} (process {world.rank} of {world.size})"
    say(f"cnn: {text}")
    world.stop(status)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cnn", **_text("Train small CNNs, fast.", _EXAMPLES))
    version = f"cnn-kernels {own_version()}"
    parser.add_argument("--version", action="version", version=version, help="print it, and exit")
    parsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in commands.NAMES:
        command = importlib.import_module(f".commands.{name}", __package__)
        text = _text(command.DESCRIPTION, command.EXAMPLES)
        of_command = parsers.add_parser(name, help=command.HELP, **text)
        command.add_arguments(of_command)
        of_command.set_defaults(execute=command.run)
    return parser


def _say_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    say(f"cnn: warning: {message}")


def _text(description: str, examples: str) -> dict[str, Any]:
    return {
        "description": description,
        "epilog": f"examples:\n{examples}",
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


if __name__ == "__main__":
    sys.exit(main())
