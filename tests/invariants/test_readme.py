"""Every Python block of the READMEs runs, and every link leads somewhere."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys

import pytest

import kernels.runtime.cuda
from cnn.__main__ import _parser
from tests.lib.fresh_python import REPOSITORY

FOLDERS = (".", "bench", "cnn", "kernels", "kernels/torch", "tests")
TEXTS = {folder: (REPOSITORY / folder / "README.md").read_text() for folder in FOLDERS}


def blocks(language, text):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


#: By folder, the Python blocks of a page that has some.
PYTHON = {folder: blocks("python", text) for folder, text in TEXTS.items() if "```python" in text}

#: The blocks see few images, whatever they load; each page is a program of its own.
FEW = """
import cnn, cnn.data
def load(name="auto", directory=None, **options):
    from cnn.data.synthetic import synthetic_digits
    return synthetic_digits(64, 32)
cnn.load = load
import runpy
for page in {pages}:
    runpy.run_path(page)
"""


def test_pages_have_python_blocks():
    assert {folder: len(found) for folder, found in PYTHON.items()} == {
        ".": 2,
        "cnn": 5,
        "kernels": 7,
        "kernels/torch": 2,
    }


def test_python_blocks_run_in_order(tmp_path):
    """The pages run in one process, in their own folder, with the libraries that are installed."""
    absent = []
    if kernels.runtime.cuda.unavailable() is not None:
        absent.append("import cupy")
    if importlib.util.find_spec("torch") is None:
        absent += ["import torch", "kernels.torch"]
    pages, run = [], ""
    for folder, found in PYTHON.items():
        text = "\n".join(b for b in found if not any(library in b for library in absent))
        pages.append(f"{folder.replace('/', '_').strip('.') or 'readme'}_page.py")
        (tmp_path / pages[-1]).write_text(text)
        run += text
    for text in blocks("cuda", TEXTS["kernels"]):  # kernels have their file names in the first line
        (tmp_path / text.split()[1].rstrip(":")).write_text(text)
    script = tmp_path / "run.py"
    script.write_text(FEW.format(pages=pages))
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "tests.gpu", script]  # for the blocks that use CuPy
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # What the comments promise of the messages is what was printed.
    promised = re.findall(r"print\(error\)  # (.*)", run)
    assert len(promised) == 2 and all(message in done.stdout for message in promised)


def test_commands_of_shell_blocks_are_understood():
    shell = "\n".join(block for text in TEXTS.values() for block in blocks("sh", text))
    commands = re.findall(r"^(?:mpiexec -n 2 )?cnn (.*)", shell, re.MULTILINE)
    assert len(commands) >= 12
    for command in commands:
        _parser().parse_args(shlex.split(command, comments=True))


def test_the_targets_of_make_exist():
    makefile = (REPOSITORY / "Makefile").read_text()
    named = {name for text in TEXTS.values() for name in re.findall(r"`?make ([a-z-]+)", text)}
    assert {"train", "test", "test-all", "bench", "check"} <= named
    code = {name for text in TEXTS.values() for name in re.findall(r"`make ([a-z-]+)", text)}
    assert {name for name in code if not re.search(rf"^{name}:", makefile, re.MULTILINE)} == set()


@pytest.mark.parametrize("folder", FOLDERS)
def test_links_lead_to_files_and_headings(folder):
    text = re.sub(r"^```.*?^```$", "", TEXTS[folder], flags=re.MULTILINE | re.DOTALL)  # a lambda
    for target, heading in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", text):
        path = (REPOSITORY / folder / target).resolve() if target else REPOSITORY / folder
        page = path if path.is_file() else path / "README.md"
        assert page.is_file(), f"{folder}/README.md links to {target}, which is not there"
        if heading:
            titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
            assert heading in anchors, f"{folder}/README.md links to {target}#{heading}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_files_that_a_page_names_exist(folder):
    """A page names a file from the repository's root on, or by the end of its path."""
    page = re.sub(r"^```.*?^```$", "", TEXTS[folder], flags=re.MULTILINE | re.DOTALL)
    spans = re.findall(
        r"`((?:[\w-]+/)*[\w-]+(?:/|\.(?:py|cu|cuh|cpp|h|json|svg|md|safetensors)))`", page
    )
    every = {
        f"/{path.relative_to(REPOSITORY)}{'/' if path.is_dir() else ''}"
        for name in ("bench", "cnn", "kernels", "tests")
        for path in (REPOSITORY / name, *(REPOSITORY / name).rglob("*"))
    }
    missing = {span for span in spans if not any(path.endswith(f"/{span}") for path in every)}
    assert missing == set()
