"""Run a Python program on the emulated GPU.

python -m tests.gpu script.py ARGUMENTS
python -m tests.gpu -m cnn train --device cuda
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from . import device


def main() -> None:
    """Turn the device on and run what the command line names, as Python itself would."""
    arguments = sys.argv[1:]
    if arguments[:1] in (["-h"], ["--help"]):
        print(__doc__.strip())
        return
    if not arguments or arguments == ["-m"]:
        sys.exit(__doc__.strip())
    if arguments[0] != "-m" and not Path(arguments[0]).exists():
        sys.exit(f"python -m tests.gpu: there is no file {arguments[0]}")
    device.turn_on()
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path[0] = str(Path(arguments[0]).resolve().parent)
        runpy.run_path(arguments[0], run_name="__main__")


main()
