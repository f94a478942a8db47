"""``cnn info``: what this machine has, or the layers of a model."""

from __future__ import annotations

import argparse

from .options import path

HELP = "show targets, compiler, GPU and cache folder, or a model's layers"
DESCRIPTION = """\
Show what kernels can run on here or, of a model, the layers with their
parameters, operations and memory."""
EXAMPLES = """\
  cnn info
  cnn info model.safetensors"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model."""
    parser.add_argument(
        "model", type=path, nargs="?", metavar="MODEL", help="one that train wrote: show its layers"
    )


def run(options: argparse.Namespace) -> int:
    """Print one line per fact, or per layer."""
    if options.model is not None:
        from ..model import Sequential

        print(Sequential.load(options.model, "cpu").summary())
        return 0
    from kernels.lowlevel import describe

    from ..runs import own_version

    for name, value in {"cnn-kernels": own_version(), **describe()}.items():
        print(f"{name:<14}{value}")
    return 0
