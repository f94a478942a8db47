"""Runs of the command line on few random images, and what is in their folders."""

import json

import numpy as np
from safetensors import safe_open

from cnn import Dataset, Run
from cnn.__main__ import main
from cnn.commands.settings import tomllib


def few(count, seed):
    random = np.random.default_rng(seed)
    images = random.integers(256, size=(count, 28, 28), dtype=np.uint8)
    return Dataset(images, random.integers(10, size=count), "synthetic")


def train(*words):
    return main(["train", "--quiet", "--device", "cpu", *map(str, words)])


def refused(capsys, *words, status=1):
    """Return the one sentence of a failure or, with status 2, of a wrong usage."""
    capsys.readouterr()
    assert main(["train", "--quiet", *map(str, words)]) == status
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("cnn: error: ")
    assert len(shown.err.splitlines()) == 1
    return shown.err.removeprefix("cnn: error: ").rstrip()


def digest(model):
    """The SHA-256 of a model's content; the order of a file's header is no part of it."""
    with safe_open(model, framework="numpy") as file:
        return file.metadata()["sha256"]


def history(run):
    """The lines of a run's loss curve, without what a clock told."""
    of_clock = ("seconds", "images_per_second")
    events = map(json.loads, (run / "history.jsonl").read_text().splitlines())
    return [{name: v for name, v in event.items() if name not in of_clock} for event in events]


def write(path, text):
    path.write_text(text)
    return path


def settings_of(run):
    return tomllib.loads((run / "settings.toml").read_text())


def interrupt_at(monkeypatch, step, error=KeyboardInterrupt):
    """Press Ctrl-C after a step."""
    real = Run.step

    def stop(self, trainer, learning_rate):
        real(self, trainer, learning_rate)
        if trainer.steps == step:
            raise error

    monkeypatch.setattr(Run, "step", stop)
