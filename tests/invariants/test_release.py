"""A release: the source package and the wheel have every file, and name one version."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

from tests.lib.fresh_python import REPOSITORY

PROJECT = (REPOSITORY / "pyproject.toml").read_text()
(VERSION,) = re.findall(r'^version = "(.*)"$', PROJECT, re.MULTILINE)
FOLDERS, FILES = ("cnn", "kernels"), ("LICENSE", "README.md", "pyproject.toml")
IGNORED = shutil.ignore_patterns("__pycache__", "*.so")
BUILD = """
import sys
from setuptools import build_meta
getattr(build_meta, sys.argv[1])(sys.argv[2])
"""


def build(what, source, to):
    """Build one of the two packages as `pip` does, in a process of its own."""
    command = [sys.executable, "-c", BUILD, what, str(to)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Package would be ignored" not in done.stderr + done.stdout
    (made,) = to.glob("*.tar.gz" if what == "build_sdist" else "*.whl")
    return made


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """The source package of the checkout, and the wheel made of that."""
    folder = tmp_path_factory.mktemp("release")
    source = folder / "source"  # building writes beside the sources
    for name in FOLDERS:
        shutil.copytree(REPOSITORY / name, source / name, ignore=IGNORED)
    for name in FILES:
        shutil.copy(REPOSITORY / name, source)
    made = build("build_sdist", source, folder)
    with tarfile.open(made) as archive:
        archive.extractall(folder, filter="data")
    return made, build("build_wheel", folder / made.name.removesuffix(".tar.gz"), folder)


def test_every_file_is_in_both(packages):
    source, wheel = packages
    wanted = {
        str(path.relative_to(REPOSITORY))
        for name in FOLDERS
        for path in (REPOSITORY / name).rglob("*")
        if path.is_file() and not IGNORED(None, path.parts)
    }
    with tarfile.open(source) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert wanted | {*FILES} <= inside
    assert wanted <= set(zipfile.ZipFile(wheel).namelist())


def test_the_version_is_the_changelogs_latest(packages):
    for made in packages:
        assert made.name.startswith(f"cnn_kernels-{VERSION}")
    latest = re.search(r"^## (.*)$", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
    assert latest == "Unreleased" or latest.startswith(f"{VERSION}, ")
