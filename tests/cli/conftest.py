"""Small data and folders for tests of the command line."""

import pytest

import cnn.data
from tests.lib.command_line import load_few
from tests.lib.small_runs import few


@pytest.fixture
def folder_of_runs(tmp_path_factory, monkeypatch):
    """Trainings write below the current folder."""
    monkeypatch.chdir(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def few_images(monkeypatch):
    """Images that are learned in a few steps, in place of the data sets."""
    monkeypatch.setattr(cnn.data, "load", load_few)


@pytest.fixture
def few_random_images(monkeypatch, tmp_path):
    """300 images to train with and 100 to test in place of the data sets; `tmp_path` is current."""
    monkeypatch.setattr(cnn.data, "load", lambda *_, **__: (few(300, 0), few(100, 1)))
    monkeypatch.chdir(tmp_path)
