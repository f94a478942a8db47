"""The cache of compiled kernels: what is found again, what is built anew, what is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lib.fresh_python import (
    NO_HOME,
    RELU,
    RELU_SAYS,
    REPOSITORY,
    CountedCompiler,
    error,
    output,
    program,
    run,
    start,
)

# The kernel and the thread pool.
LIBRARIES = 2


def files(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.exists() else []


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> CountedCompiler:
    return CountedCompiler(tmp_path_factory.mktemp("compiler"))


@pytest.fixture
def counted(compiler: CountedCompiler) -> CountedCompiler:
    """The compiler of `built`, from now on."""
    compiler.calls()
    return compiler


@pytest.fixture(scope="module")
def built(compiler: CountedCompiler, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that holds what RELU needs; not to be changed."""
    folder = tmp_path_factory.mktemp("built")
    output(RELU, KERNELS_CACHE_DIR=folder, CXX=compiler.path)
    return folder


@pytest.fixture
def cache(built: Path, tmp_path: Path) -> Path:
    """A copy of `built`."""
    return Path(shutil.copytree(built, tmp_path / "cache"))


# --- what is found again


def test_second_start_compiles_nothing(counted: CountedCompiler, tmp_path: Path) -> None:
    cache = tmp_path / "not" / "there yet"
    for compilations in (LIBRARIES, 0):
        assert output(RELU, KERNELS_CACHE_DIR=cache, CXX=counted.path) == RELU_SAYS
        assert counted.calls() == (compilations, 1)
    assert len(files(cache)) == LIBRARIES and all(name.endswith(".so") for name in files(cache))


def test_user_cache_folder_is_the_default(tmp_path: Path) -> None:
    script = "from kernels.runtime import cache; print(cache.folder())"
    folder = Path(output(script, XDG_CACHE_HOME=tmp_path, HOME=tmp_path).strip())
    assert tmp_path in folder.parents and "cnn-kernels" in folder.parts
    assert files(tmp_path) == []


# --- what makes another library

# Runs a kernel of two constants.
PRODUCT = """
import numpy as np
from kernels.runtime import Source
from kernels.runtime.cpu import CpuTarget
text = '''
#include "dialect/dialect.cuh"
KERNEL product(T *y) { y[0] = SEVEN * SIX; }
'''
y = np.zeros(1, np.float32)
source = Source("product.cu", text, packaged=False)
source.kernel("product", CpuTarget(), y.dtype, SEVEN=7, SIX=6)((1, 1, 1), 1, y)
print(int(y[0]))
"""


def add_to_header(root: Path) -> None:
    header = root / "kernels" / "dialect" / "dialect.cuh"
    header.write_text(header.read_text() + "// and a word more\n")


def add_to_flags(root: Path) -> None:
    cpu = root / "kernels" / "runtime" / "cpu.py"
    cpu.write_text(cpu.read_text().replace("-O3 ", "-O3 -DUNUSED "))
    assert "-DUNUSED" in cpu.read_text()


@pytest.mark.parametrize("change", [add_to_header, add_to_flags])
def test_other_header_or_flags_makes_another_library(
    change: Callable[[Path], None], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(REPOSITORY / "kernels", tmp_path / "kernels")
    counts = []
    for changed in (False, False, True):
        if changed:
            change(tmp_path)
        assert output(PRODUCT, KERNELS_CACHE_DIR=cache, PYTHONPATH=tmp_path) == "42\n"
        counts.append(len(list(cache.glob("product-*.so"))))
    assert counts == [1, 1, 2]


def test_other_source_constant_or_compiler_makes_another_library(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    other_compiler = program(tmp_path / "other-c++", 'exec c++ -DANOTHER_VERSION "$@"')
    for number, (result, script, changes) in enumerate(
        [
            ("42\n", PRODUCT, {}),
            ("13\n", PRODUCT.replace("SEVEN * SIX", "SEVEN + SIX"), {}),
            ("48\n", PRODUCT.replace("SEVEN=7", "SEVEN=8"), {}),
            ("49\n", PRODUCT.replace("SIX=6", "SIX=7"), {}),
            ("42\n", PRODUCT, {"CXX": other_compiler}),
            ("42\n", PRODUCT, {"CXX": "c++ -g0"}),
        ],
        start=1,
    ):
        assert output(script, KERNELS_CACHE_DIR=cache, **changes) == result
        assert len(list(cache.glob("product-*.so"))) == number


# --- what is not trusted


def cut_in_half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def cut_last_byte(content: bytes) -> bytes:
    return content[:-1]


def flip_middle_byte(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def flip_last_byte(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def empty(content: bytes) -> bytes:
    return b""


@pytest.mark.parametrize(
    "damage", [cut_in_half, cut_last_byte, flip_middle_byte, flip_last_byte, empty]
)
def test_damaged_library_is_built_anew(
    damage: Callable[[bytes], bytes], cache: Path, counted: CountedCompiler
) -> None:
    names = files(cache)
    for path in cache.iterdir():
        path.write_bytes(damage(path.read_bytes()))
    for compilations in (LIBRARIES, 0):
        assert output(RELU, KERNELS_CACHE_DIR=cache, CXX=counted.path) == RELU_SAYS
        assert counted.calls() == (compilations, 1)
    assert files(cache) == names


def test_library_under_another_name_is_built_anew(cache: Path, counted: CountedCompiler) -> None:
    """A sound library, but of another kernel."""
    (first, second), names = cache.iterdir(), files(cache)
    first_content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(first_content)
    assert output(RELU, KERNELS_CACHE_DIR=cache, CXX=counted.path) == RELU_SAYS
    assert counted.calls() == (LIBRARIES, 1)
    assert files(cache) == names


# --- what cannot be loaded


@pytest.fixture
def half_linked(tmp_path: Path) -> Path:
    """A compiler that links with no library of C++, as gcc does, while there is a file beside it.

    Its macros are those of the real one.
    """
    (tmp_path / "without libraries").touch()
    return program(
        tmp_path / "gcc-like",
        f'[ -e "{tmp_path}/without libraries" ] || exec c++ "$@"\nexec c++ -nodefaultlibs "$@"',
    )


def test_a_compiler_that_does_not_link_harms_no_other(half_linked: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    message = error(RELU, KERNELS_CACHE_DIR=cache, CXX=half_linked)
    assert message.startswith(f"a compiled kernel cannot be loaded: {cache}/")
    assert "undefined symbol" in message
    assert f"the compiler ({half_linked}) must be one of C++ for this machine" in message
    for _ in range(2):
        assert output(RELU, KERNELS_CACHE_DIR=cache) == RELU_SAYS


def test_a_library_that_cannot_be_loaded_is_built_anew(half_linked: Path, tmp_path: Path) -> None:
    cache, counted = tmp_path / "cache", CountedCompiler(tmp_path, str(half_linked))
    changes = {"KERNELS_CACHE_DIR": cache, "CXX": counted.path}
    messages = []
    for _ in range(2):
        messages.append(error(RELU, **changes))
        compilations, _ = counted.calls()
        assert 1 <= compilations <= LIBRARIES  # none of them twice
    assert messages[0] == messages[1]
    (tmp_path / "without libraries").unlink()
    assert output(RELU, **changes) == RELU_SAYS
    assert counted.calls()[0] >= 1
    assert output(RELU, **changes) == RELU_SAYS
    assert counted.calls() == (0, 1)
    assert len(files(cache)) == LIBRARIES


# --- what is left behind


def test_processes_that_build_at_once_leave_only_libraries(
    built: Path, compiler: CountedCompiler, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    changes = {"KERNELS_CACHE_DIR": cache, "CXX": compiler.path}
    processes = [start("-c", RELU, **changes) for _ in range(3)]
    assert [process.communicate()[0] for process in processes] == [RELU_SAYS] * 3
    assert files(cache) == files(built)


def test_failed_compilation_leaves_nothing(tmp_path: Path) -> None:
    cache, temporary = tmp_path / "cache", tmp_path / "temporary"
    temporary.mkdir()
    half_done = program(
        tmp_path / "half-c++",
        'for last; do :; done\ncase "$*" in *-dM*) exec c++ "$@";; esac\n'
        'echo half > "$last"; echo "x.cu:1: error: no more room" >&2; exit 3',
    )
    message = error(RELU, KERNELS_CACHE_DIR=cache, CXX=half_done, TMPDIR=temporary)
    assert "no more room" in message and "exit status 3" in message
    assert files(cache) == files(temporary) == []


def test_interrupted_compilation_leaves_nothing(tmp_path: Path) -> None:
    cache, temporary, reached = (tmp_path / name for name in ("cache", "temporary", "reached"))
    temporary.mkdir()
    reached.mkdir()
    endless = program(
        tmp_path / "endless-c++",
        f'case "$*" in *-dM*) exec c++ "$@";; esac\n: > {reached}/$$; exec sleep 600',
    )
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import numpy as np, cnn; from cnn import *; y = np.zeros(4, int)\n"
        "model = Sequential([Flatten(), Dense(2)], (2, 2, 1), device='cpu')\n"
        "Trainer(model, SGD(0.1)).fit((np.zeros((4, 2, 2), np.float32), y))"
    )
    changes = {"KERNELS_CACHE_DIR": cache, "KERNELS_THREADS": 2, "CXX": endless}
    process = start("-c", script, TMPDIR=temporary, **changes)
    while len(files(reached)) < 2:  # both compilers that may run at once
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C sends, to the compiler too
    assert "KeyboardInterrupt" in process.communicate(timeout=60)[1]
    assert process.returncode != 0
    assert files(cache) == files(temporary) == []


def test_unwritable_folder_is_named_with_its_variable(tmp_path: Path) -> None:
    # Below a file, because permissions do not hold back the administrator who may run the tests.
    (tmp_path / "file").write_bytes(b"")
    folder = tmp_path / "file" / "cache"
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    message = error(RELU, KERNELS_CACHE_DIR=folder, TMPDIR=temporary)
    assert files(temporary) == []
    assert message.startswith(f"cannot write compiled kernels to the cache folder {folder}: Not a")
    assert "set KERNELS_CACHE_DIR to a folder that can be written" in message


# --- how the folder is named

IN_FOLDER = f"""
import os, sys
os.chdir(sys.argv[1])
{RELU}
"""


def test_a_tilde_is_the_home_folder(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    changes = {"KERNELS_CACHE_DIR": "~/x", "HOME": tmp_path / "home"}
    assert run("-c", IN_FOLDER, str(tmp_path), **changes).stdout == RELU_SAYS
    assert len(files(tmp_path / "home" / "x")) == LIBRARIES and files(tmp_path) == ["home"]
    message = error(RELU, KERNELS_CACHE_DIR="~nobody-of-this-name/x")
    assert message == "KERNELS_CACHE_DIR: got '~nobody-of-this-name/x', and no such home folder"


@pytest.mark.parametrize("name", [".", "x", "../x"])
def test_a_relative_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "current").mkdir()
    for _ in range(2):
        done = run("-c", IN_FOLDER, str(tmp_path / "current"), KERNELS_CACHE_DIR=name)
        assert (done.stdout, done.stderr) == (RELU_SAYS, "")
    assert len(files(tmp_path / "current" / name)) == LIBRARIES


# --- a home that cannot be written

FALLBACK = f"""
import os
{RELU}
from kernels.runtime import cache
child = os.fork()
if child == 0:
    raise SystemExit  # what a process leaves is removed by it alone, not by its forks
os.waitpid(child, 0)
print(len(list(cache._temporary.iterdir())), kernels.relu(numpy.ones(1)))
"""


def test_read_only_home_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "home").write_bytes(b"")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    home = {"HOME": tmp_path / "home", "XDG_CACHE_HOME": tmp_path / "home" / "cache"}
    done = run("-W", "ignore::DeprecationWarning", "-c", FALLBACK, TMPDIR=temporary, **home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == RELU_SAYS.strip()
    # The double precision of the last line is one library more.
    assert done.stdout.splitlines()[1] == f"{LIBRARIES} [1.]"
    warned = [line for line in done.stderr.splitlines() if "RuntimeWarning" in line]
    assert len(warned) == 1
    assert "cannot write compiled kernels to the cache folder" in warned[0]
    assert f"{tmp_path / 'home' / 'cache'}" in warned[0]
    assert "set KERNELS_CACHE_DIR to a folder that can be written" in warned[0]
    assert files(temporary) == []


def test_what_a_read_only_cache_holds_is_used(
    built: Path, tmp_path: Path, counted: CountedCompiler
) -> None:
    """A container's image may have it. Nothing is compiled, so there is no warning."""
    home = tmp_path / "home"
    shutil.copytree(built, home / "cnn-kernels" / "compiled")
    for path in (home / "cnn-kernels" / "compiled", home / "cnn-kernels", home):
        path.chmod(0o555)
    assert output(RELU, XDG_CACHE_HOME=home, CXX=counted.path) == RELU_SAYS
    assert counted.calls() == (0, 1)


def test_other_users_may_read_what_the_cache_holds(built: Path, tmp_path: Path) -> None:
    """A container's image is often built by an administrator, and run by another user."""
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    modes = {path.stat().st_mode for path in built.iterdir()}
    assert modes == {ordinary.stat().st_mode}


def test_no_home_is_no_obstacle(tmp_path: Path) -> None:
    """A container may run as a user who has no name, only a number."""
    script = NO_HOME + FALLBACK
    done = run("-W", "ignore::DeprecationWarning", "-c", script, TMPDIR=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [RELU_SAYS.strip(), f"{LIBRARIES} [1.]"]
    warned = [line for line in done.stderr.splitlines() if "RuntimeWarning" in line]
    assert len(warned) == 1
    assert warned[0].endswith(
        "there is no home folder to keep compiled kernels in; set KERNELS_CACHE_DIR to a folder "
        "that can be written; until then they last as long as this process"
    )
    assert files(tmp_path) == []
    script = NO_HOME + "from cnn.__main__ import main; main(['info'])"
    assert "cache folder  none: there is no home folder\n" in output(script)
    script = NO_HOME + RELU
    assert output(script, KERNELS_CACHE_DIR=tmp_path / "cache") == RELU_SAYS
