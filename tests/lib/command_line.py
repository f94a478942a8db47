"""The command line on images that a network learns in a few steps, here or in a process."""

import os
import subprocess
import sys

import numpy as np

from cnn import Dataset
from cnn.__main__ import main
from tests.lib.fresh_python import REPOSITORY

FIELDS = (
    "dataset device recipe epochs batch_size seed shards processes parameters setup_seconds "
    "train_seconds images_per_second train_loss test_loss test_accuracy"
).split()
NOTES = ("using the CPU: ",)


def easy_images(count, seed):
    """Images whose brightness tells the class: learned in a few steps."""
    labels = np.random.default_rng(seed).integers(10, size=count)
    images = np.random.default_rng(seed + 1).integers(20, size=(count, 28, 28), dtype=np.uint8)
    return Dataset(images + (20 * labels[:, None, None]).astype(np.uint8), labels, "few")


def load_few(name="auto", directory=None, say=print):
    return easy_images(512, 0), easy_images(256, 1)


def failure(capsys, *arguments):
    """Run a command that must fail and return its one sentence."""
    assert main(arguments) == 1
    shown = capsys.readouterr()
    return one_sentence(shown.err, shown.out)


def one_sentence(err, out=""):
    assert out == ""
    lines = [line for line in err.splitlines() if not line.startswith(NOTES)]
    assert len(lines) == 1 and lines[0].startswith("cnn: error: "), err
    return lines[0].removeprefix("cnn: error: ")


def run(*arguments, **environment):
    """Run the command line in a process of its own, on few images."""
    pipes = {"capture_output": True, "text": True}
    return subprocess.run(command(arguments), **pipes, env=environment_with(**environment))


def command(arguments):
    """Return the words that start the command line on few images."""
    # A shell starts jobs in the background with SIGINT ignored, which Python then inherits.
    script = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "import cnn.data; from tests.lib import command_line; "
        "cnn.data.load = command_line.load_few; sys.exit(command_line.main(sys.argv[1:]))"
    )
    return [sys.executable, "-c", script, *map(str, arguments)]


def environment_with(**changes):
    """Return this process' environment, in which this checkout can be imported, with changes."""
    return os.environ | {"PYTHONPATH": str(REPOSITORY)} | changes
