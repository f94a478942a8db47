"""Long trainings, killed ones, several at once, and processes made after the first use."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cnn import SGD, BatchNorm, Conv2D, Dense, Dropout, Flatten, ReLU, Run, Sequential, Trainer
from cnn.data.synthetic import synthetic_digits
from tests.lib import command_line, fresh_python


def in_tests(call):
    """Return a script that calls a function of this file."""
    return f"from tests.cnn.test_reliability import *; {call}"


def small_training(run=None, units=3):
    """A training with all kinds of state, on few images."""
    data = np.random.default_rng(0)
    images, labels = data.integers(256, size=(24, 8, 8), dtype=np.uint8), np.arange(24) % 3
    layers = [Conv2D(4, 3, bias=False), BatchNorm(), ReLU(), Dropout(0.2), Flatten()]
    model = Sequential([*layers, Dense(units)], (8, 8, 1), "cpu")
    return Trainer(model, SGD(0.05, momentum=0.9), run=run), (images, labels)


# Killed while saving


def save_for_ever(folder):
    run = Run(folder)
    trainer, data = small_training(units=3000)  # so that writing takes a while
    trainer.fit(data, batch_size=24)  # has the kernels loaded, or even compiled
    trainer, data = small_training(run, units=3000)
    if run.checkpoints:
        trainer.restore(run.latest)
    print("ready", flush=True)
    trainer.fit(data, 9999, batch_size=24)


@pytest.mark.parametrize("times", [3, pytest.param(40, marks=pytest.mark.slow)])
def test_killed_while_saving_the_last_checkpoint_is_sound(times, tmp_path):
    draw = random.Random(times)
    run = Run.create(tmp_path / "run")
    script = in_tests(f"save_for_ever({str(run.folder)!r})")
    epochs = []
    for _ in range(times):
        before = run.latest
        process = fresh_python.start("-c", script)
        assert process.stdout.readline() == "ready\n", process.communicate()
        while run.latest == before and process.poll() is None:  # long on a busy machine
            time.sleep(0.01)
        try:
            process.wait(timeout=draw.uniform(0.05, 0.4))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        for checkpoint in run.checkpoints:
            trainer, _ = small_training(units=3000)
            trainer.restore(checkpoint)
            assert len(trainer.history) == int(checkpoint.stem[-4:])
        epochs.append(len(trainer.history))
    assert epochs == sorted(epochs) and epochs[-1] > epochs[0]
    # At most what the last process left behind.
    assert len(list((run.folder / "checkpoints").glob(".*"))) <= 1


# Two trainings at once


@pytest.mark.slow
def test_two_trainings_at_once_share_an_empty_cache(tmp_path):
    cache = tmp_path / "cache"
    arguments = ["train", "--quiet", "--device", "cpu", "--runs", tmp_path / "runs"]
    environment = {
        "KERNELS_CACHE_DIR": cache,
        "PYTHONPATH": str(fresh_python.REPOSITORY),
    }
    counted = fresh_python.CountedCompiler(tmp_path)
    environment["CXX"] = counted.path
    _, *words = command_line.command(arguments)
    processes = [fresh_python.start(*words, **environment) for _ in range(2)]
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert re.sub("trained.*", "", said[0][0]) == re.sub("trained.*", "", said[1][0])
    assert len(list((tmp_path / "runs").glob("*/model.safetensors"))) == 2
    assert all(path.suffix == ".so" for path in cache.iterdir())
    # Whatever the two left there, a third finds all of it.
    counted.calls()
    third = fresh_python.run(*words, **environment)
    assert third.returncode == 0, third.stderr
    assert counted.calls()[0] == 0  # compilations


# Processes made after the first use

CHILDREN = """
import multiprocessing, sys, warnings
from tests.cnn.test_reliability import small_training

def train(answers):
    trainer, data = small_training()
    trainer.fit(data, 2, batch_size=8)
    answers.put(trainer.model.parameter_buffer.tobytes())

if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: threads and a fork
    context = multiprocessing.get_context({method!r})
    answers = context.Queue()
    train(answers)
    own = answers.get(timeout=60)
    children = [context.Process(target=train, args=(answers,)) for _ in range(2)]
    for child in children:
        child.start()
    print([answers.get(timeout=120) == own for _ in children])
    for child in children:
        child.join(timeout=60)
    train(answers)  # the parent's own threads are none the worse
    print([child.exitcode for child in children], answers.get(timeout=60) == own)
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_train_too(method, tmp_path):
    script = tmp_path / "children.py"
    script.write_text(CHILDREN.format(method=method))
    done = fresh_python.run(str(script))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "[True, True]\n[0, 0] True\n"


# A long training


class Watch(Run):
    """Counts what the process holds after every epoch."""

    def epoch(self, trainer):
        super().epoch(trainer)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        files, threads = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
        print(pages * os.sysconf("SC_PAGE_SIZE") // 1024, files, threads, flush=True)


def train_long(folder):
    train, test = synthetic_digits(1000, 200)
    layers = [Conv2D(8, 3, bias=False), BatchNorm(), ReLU(), Dropout(0.2), Flatten(), Dense(10)]
    model = Sequential(layers, (28, 28, 1), "cpu")
    trainer = Trainer(model, SGD(0.05, momentum=0.9), run=Watch.create(folder))
    trainer.fit(train, 100, 128, validation=test)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_hundred_epochs_hold_no_more_than_the_first_ones(tmp_path):
    said = fresh_python.output(in_tests(f"train_long({str(tmp_path / 'run')!r})"))
    held = np.array([line.split() for line in said.splitlines()], int)
    assert held.shape == (100, 3)
    memory, files, threads = held.T
    assert set(files) == {files[0]} and set(threads) == {threads[0]}
    # KiB. The allocator settles within a few epochs; a batch of images leaked in each would be 100.
    assert memory[10:].max() - memory[9] < 1024, memory
