"""``cnn info``: what this machine has."""

from __future__ import annotations

import argparse

HELP = "show targets, compiler, GPU and cache folder"
DESCRIPTION = "Show what kernels can run on here."
EXAMPLES = """\
  cnn info"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add none."""


def run(options: argparse.Namespace) -> int:
    """Print one line per fact."""
    from kernels.runtime import describe

    for name, value in describe().items():
        print(f"{name:<14}{value}")
    return 0
