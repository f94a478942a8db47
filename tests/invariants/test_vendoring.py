"""A copy of `kernels/` in another package under another name needs neither `kernels` nor `cnn`."""

import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy
import platformdirs
import pytest

from tests.lib.fresh_python import RELU, RELU_SAYS, REPOSITORY, output

VENDORED = RELU.replace("import kernels", "import yours._kernels as kernels")
NOT_NEEDED = (
    "; import sys; print({name.split('.')[0] for name in sys.modules} & {'kernels', 'cnn'})"
)


@pytest.fixture
def project(tmp_path):
    """The folder of a project whose package `yours` contains a copy of `kernels/`."""
    package = tmp_path / "project" / "yours"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "kernels", package / "_kernels", ignore=ignored)
    shutil.copy(REPOSITORY / "LICENSE", package / "_kernels")
    (package / "__init__.py").write_text("")
    return package.parent


def test_the_copy_stands_alone(project, tmp_path):
    changes = {"PYTHONPATH": project, "KERNELS_CACHE_DIR": tmp_path / "cache"}
    assert output(VENDORED + NOT_NEEDED, **changes) == f"{RELU_SAYS}set()\n"


def test_a_wheel_with_the_copy_works_where_nothing_else_is_installed(project, tmp_path):
    """The project has the settings of the kernels' README and its own virtual environment."""
    readme = (REPOSITORY / "kernels" / "README.md").read_text()
    (settings,) = re.findall(r"^```toml\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    described = '[project]\nname = "yours"\nversion = "1"\n\n[tool.setuptools.packages.find]\n\n'
    (project / "pyproject.toml").write_text(described + settings)
    pip("wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, project)
    (wheel,) = tmp_path.glob("yours-1-*.whl")

    environment = tmp_path / "environment"
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    pip("--python", python, "install", "--no-deps", "--no-index", wheel)
    (installed,) = environment.glob("lib/python*/site-packages")
    assert (installed / "yours" / "_kernels" / "LICENSE").is_file()
    for dependency in (numpy, platformdirs):  # linked, because installing them takes a network
        link(Path(dependency.__file__).parent, installed)

    cache = tmp_path / "cache"
    done = subprocess.run(
        [python, "-I", "-c", VENDORED + NOT_NEEDED],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "KERNELS_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == (f"{RELU_SAYS}set()\n", "")


def pip(*arguments):
    words = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def link(package, folder):
    """Link an installed package, and the libraries that its wheel keeps beside it."""
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.exists():
            (folder / part.name).symlink_to(part)
