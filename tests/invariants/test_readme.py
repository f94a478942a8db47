"""Every Python block of the README runs."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import kernels.runtime.cuda
from cnn.__main__ import _parser

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
#: Kernels, by the file names in their first lines.
SOURCES = re.findall(r"^```cuda\n(// (\S+):.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)


def test_the_readme_has_python_blocks():
    assert len(BLOCKS) >= 4


def test_python_blocks_run_in_order(tmp_path, monkeypatch):
    """They run in one process, in their own folder, with few images and the libraries installed."""
    absent = []
    if kernels.runtime.cuda.unavailable() is not None:
        absent.append("import cupy")
    if importlib.util.find_spec("torch") is None:
        absent.append("import torch")
    blocks = [block for block in BLOCKS if not any(library in block for library in absent)]
    few = """
import cnn, cnn.data
def load(name="auto", directory=None, **options):
    from cnn.data.synthetic import synthetic_digits
    return synthetic_digits(64, 32)
cnn.load = load
"""
    assert SOURCES
    for text, name in SOURCES:
        (tmp_path / name).write_text(text)
    script = tmp_path / "readme.py"
    script.write_text("\n".join([few, *blocks]))
    environment = os.environ | {"PYTHONPATH": str(README.parent)}
    command = [sys.executable, "-m", "tests.gpu", script]  # for the blocks that use CuPy
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # What the comments promise of the messages is what was printed.
    for promised in re.findall(r"print\(error\)  # (.*)", "\n".join(blocks)):
        assert promised in done.stdout


def test_commands_of_shell_blocks_are_understood():
    shell = re.findall(r"^```sh\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    commands = re.findall(r"^cnn (.*)", "\n".join(shell), re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        _parser().parse_args(shlex.split(command, comments=True))


@pytest.mark.parametrize("target", ["train", "test", "test-all"])
def test_the_targets_of_make_exist(target):
    makefile = (README.parent / "Makefile").read_text()
    assert f"make {target}" in README.read_text()
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)
