"""Options and fixtures of the benchmark suites, and their summary."""

from __future__ import annotations

import numpy as np
import pytest

from bench.kernels import peak
from bench.machine import threads
from bench.measure import synchronizer
from bench.report import condense
from cnn import load
from cnn.data.synthetic import synthetic_digits
from kernels.runtime import choose_target

try:
    import torch
except ModuleNotFoundError:
    torch = None


def pytest_addoption(parser):
    parser.addoption("--smoke", action="store_true", help="tiny sizes and two rounds: a test")


def pytest_configure(config):
    if torch is not None:
        torch.set_num_threads(threads())


@pytest.fixture(scope="session")
def smoke(request):
    return request.config.getoption("--smoke")


@pytest.fixture(scope="session")
def target():
    return choose_target()[0]


@pytest.fixture(scope="session")
def synchronize(target):
    """A function that waits until the device has finished."""
    return synchronizer(target)


@pytest.fixture(scope="session")
def peaks(target, smoke):
    size = {"size": 2**20} if smoke else {}
    return {"arithmetic": peak.multiply_adds(target), "memory": peak.copying(target, **size)}


@pytest.fixture(scope="session")
def mnist(smoke):
    """Training and test set; synthetic digits if there is no MNIST, or with `--smoke`."""
    if smoke:
        return synthetic_digits(512, 256)
    return load("auto")


@pytest.fixture(scope="session")
def data_folder(mnist, tmp_path_factory):
    """A folder with the data that the workers read."""
    folder = tmp_path_factory.mktemp("data")
    train, test = mnist
    arrays = (train.images, train.labels, test.images, test.labels)
    names = ("images", "labels", "test_images", "test_labels")
    np.savez(folder / "data.npz", **dict(zip(names, arrays, strict=True)))
    return folder


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, config):
    for benchmark in config._benchmarksession.benchmarks:
        if benchmark.stats.data:
            row = condense.row(benchmark.stats.data, benchmark.extra_info)
            terminalreporter.write_line(condense.line(row))
