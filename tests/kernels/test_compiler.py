"""Which C++ compiler is taken, and what is said when there is none, or one that fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernels.runtime import KernelError, Source
from kernels.runtime.cpu import CpuTarget
from tests.lib.fresh_python import RELU, RELU_SAYS, error, output, program


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_no_compiler_says_what_to_install(cache: Path, tmp_path: Path) -> None:
    message = error(RELU, KERNELS_CACHE_DIR=cache, PATH=tmp_path)
    assert message == (
        "the cpu target needs a C++17 compiler and none was found (looked for c++, g++, clang++); "
        "install one (Debian and Ubuntu: apt install g++) or name it in CXX"
    )


def test_first_compiler_there_is_taken(cache: Path, tmp_path: Path) -> None:
    program(tmp_path / "clang++", "echo this is it >&2; exit 9")
    message = error(RELU, KERNELS_CACHE_DIR=cache, PATH=f"{tmp_path}")
    assert message.startswith("the compiler clang++ failed on ") and "this is it" in message


@pytest.mark.parametrize("name", ["no-such-c++", "/no/such/c++", "no-such-c++ -g"])
def test_missing_cxx_is_named(name: str, cache: Path) -> None:
    assert f"(looked for {name})" in error(RELU, KERNELS_CACHE_DIR=cache, CXX=name)


@pytest.mark.parametrize("command", ["c++ -g0", "  c++  ", ""])
def test_cxx_may_have_arguments_or_be_blank(command: str, cache: Path) -> None:
    assert output(RELU, KERNELS_CACHE_DIR=cache, CXX=command) == RELU_SAYS


def test_cxx_may_lie_in_a_folder_with_a_space(cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    wrapper = program(folder / "c++", 'exec c++ "$@"')
    assert output(RELU, KERNELS_CACHE_DIR=cache, CXX=f"'{wrapper}' -g0") == RELU_SAYS


def test_failing_compiler_is_quoted(cache: Path, tmp_path: Path) -> None:
    """Only the first line with an error is quoted."""
    says = program(
        tmp_path / "c++",
        'case "$*" in *-dM*) exec c++ "$@";; esac\n'
        'echo "In file included from here:" >&2; echo "x.cu:7:1: error: bad kernel" >&2\n'
        'echo "  7 | kernel" >&2; echo "x.cu:8:1: error: worse" >&2; exit 4',
    )
    message = error(RELU, KERNELS_CACHE_DIR=cache, CXX=says)
    assert message.startswith(f"the compiler {says} failed on kernels/")
    assert message.endswith("(exit status 4): x.cu:7:1: error: bad kernel")


def test_compiler_that_fails_in_silence(cache: Path) -> None:
    message = error(RELU, KERNELS_CACHE_DIR=cache, CXX="false")
    assert message == "the compiler false failed on a query of its macros (exit status 1): " + (
        "it said nothing"
    )


def test_compiler_killed_by_a_signal(cache: Path, tmp_path: Path) -> None:
    """Linux kills processes so when memory runs out."""
    killed = program(tmp_path / "c++", 'case "$*" in *-dM*) exec c++ "$@";; esac\nkill -9 $$')
    assert "(exit status -9): it said nothing" in error(RELU, KERNELS_CACHE_DIR=cache, CXX=killed)


def test_command_that_is_no_compiler(cache: Path) -> None:
    message = error(RELU, KERNELS_CACHE_DIR=cache, CXX="true")
    assert message == "CXX: true is not a C++ compiler: it defines no version"


def test_compiler_that_cannot_be_executed(cache: Path, tmp_path: Path) -> None:
    broken = tmp_path / "c++"
    broken.write_bytes(b"\x7fELF but no more")
    broken.chmod(0o755)
    message = error(RELU, KERNELS_CACHE_DIR=cache, CXX=broken)
    assert message == f"the compiler {broken} did not run: Exec format error"
    broken.chmod(0o644)
    assert f"(looked for {broken})" in error(RELU, KERNELS_CACHE_DIR=cache, CXX=broken)


def test_cxx_that_is_no_command(cache: Path) -> None:
    message = error(RELU, KERNELS_CACHE_DIR=cache, CXX="c++ '-g")
    assert message == """CXX: got "c++ '-g", which is not a command: No closing quotation"""


def test_compiler_that_writes_nothing(cache: Path, tmp_path: Path) -> None:
    idle = program(tmp_path / "c++", 'case "$*" in *-dM*) exec c++ "$@";; esac')
    message = error(RELU, KERNELS_CACHE_DIR=cache, CXX=idle)
    assert message.startswith("the library of kernels/") and "No such file" in message


def test_compiler_for_another_machine(cache: Path, tmp_path: Path) -> None:
    """Its result is not a library for this machine."""
    foreign = program(
        tmp_path / "c++",
        'case "$*" in *-dM*) exec c++ "$@";; esac\nfor last; do :; done\necho foreign > "$last"',
    )
    message = error(RELU, KERNELS_CACHE_DIR=cache, CXX=foreign)
    assert message.startswith(f"a compiled kernel cannot be loaded: {cache}/")


def test_message_names_the_kernels_file_and_line(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNELS_CACHE_DIR", str(cache))
    text = (
        '#include "gemm/gemm.cuh"\n#include "conv/im2col.cuh"\n'
        "\nKERNEL faulty(T *y) {\n    y[0] = lost;\n}"
    )
    source = Source("faulty.cu", text, packaged=False)
    constants = {**CpuTarget().constants, "T": "float32"}
    with pytest.raises(KernelError, match=r"kernels/faulty\.cu:5:\d+: error: .*lost"):
        CpuTarget().binder(source, "faulty", constants)
    # A panel narrower than a micro-tile: the fault is then in a header.
    constants["BN"] = 1
    message = r"kernels/gemm/gemm_rows\.cuh:\d+:\d+: error: .*must hold"
    with pytest.raises(KernelError, match=message):
        CpuTarget().binder(source, "faulty", constants)


def test_lines_are_counted_past_a_header_that_is_left_out(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNELS_CACHE_DIR", str(cache))
    text = '#if 0\n#include "images/random.cuh"\n#endif\nint wrong = lost;'
    source = Source("faulty.cu", text, packaged=False)
    with pytest.raises(KernelError, match=r"kernels/faulty\.cu:4:\d+: error: .*lost"):
        CpuTarget().binder(source, "faulty", {})
