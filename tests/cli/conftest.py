"""Data and a folder for tests of the command line."""

import pytest

import cnn.data
from tests.lib.small_runs import few


@pytest.fixture
def few_random_images(monkeypatch, tmp_path):
    """300 images to train with and 100 to test in place of the data sets; `tmp_path` is current."""
    monkeypatch.setattr(cnn.data, "load", lambda *_, **__: (few(300, 0), few(100, 1)))
    monkeypatch.chdir(tmp_path)
