"""Which packages the extras of pyproject.toml bring together, and which of them make installs."""

import re
import shutil
import subprocess
import sys

import pytest

from tests.invariants.test_repeatability import run_python
from tests.lib.fresh_python import REPOSITORY

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXTRAS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"][
    "optional-dependencies"
]


def packages(extra):
    """Return the names of all packages that an extra stands for."""
    found = set()
    for requirement in EXTRAS[extra]:
        name, inner = re.match(r"([\w-]+)(?:\[([\w,-]+)\])?", requirement).groups()
        if name == "cnn-kernels":
            found |= set().union(*map(packages, inner.split(",")))
        else:
            found.add(name)
    return found


@pytest.mark.parametrize("extra", EXTRAS)
def test_no_extra_has_the_compilers_of_two_versions_of_cuda(extra):
    """CuPy loads the newer NVRTC, whose code the older driver refuses; torch brings CUDA 13's."""
    cuda12 = {"cupy-cuda12x", "nvidia-cuda-nvrtc-cu12"}
    cuda13 = {"cupy-cuda13x", "nvidia-cuda-nvrtc", "torch"}
    assert not (packages(extra) & cuda12 and packages(extra) & cuda13)


def test_benchmarks_import_only_what_their_extra_brings():
    """Not hypothesis, for example, though they read the cases of the tests."""
    others = {"hypothesis": "hypothesis", "pytest-xdist": "xdist", "cuda-core": "cuda"}
    assert not others.keys() & packages("bench") and others.keys() <= packages("test")
    modules = [
        ".".join(file.relative_to(REPOSITORY).with_suffix("").parts)
        for file in (REPOSITORY / "bench").rglob("*.py")
        if not file.name.startswith("worker_")  # run by what a peer is
    ]
    code = (
        f"import importlib, sys; sys.modules.update(dict.fromkeys({[*others.values()]}));"
        f"[importlib.import_module(name) for name in {modules}]; print(len({modules}))"
    )
    assert run_python(code) == f"{len(modules)}\n" and len(modules) > 20


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("gpu", ["", "cuda12x", "cuda13x"])
@pytest.mark.parametrize("what", ["train", "test", "test-all", "bench"])
def test_make_installs_one_cupy_for_the_driver(what, gpu):
    command = ["make", "--dry-run", "--always-make", f".venv/{what}", f"GPU={gpu}"]
    shown = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    (extras,) = re.findall(r"^extras='(.*?)'", shown.stdout, re.MULTILINE)
    brought = set().union(*map(packages, filter(None, extras.split(","))))
    emulated = what.startswith("test")  # where no driver answers
    expected = {f"cupy-{gpu or 'cuda13x'}"} if gpu or emulated else set()
    assert {name for name in brought if name.startswith("cupy")} == expected
    assert not (gpu == "cuda12x" and "torch" in brought)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_building_the_packages_installs_no_package_of_theirs():
    command = ["make", "--dry-run", "--always-make", "dist"]
    shown = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "-m build" in shown.stdout and "--editable" not in shown.stdout
