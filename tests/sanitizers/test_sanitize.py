"""What `make sanitize` says where it cannot work."""

from pathlib import Path

from tests.lib.fresh_python import program, run

SANITIZE = "-m", "tests.sanitizers.sanitize"


def test_a_compiler_without_sanitizers_is_named(tmp_path: Path) -> None:
    # What GCC prints for a file that it does not have.
    compiler = program(tmp_path / "bare-gcc", 'echo "${1#-print-file-name=}"')
    done = run(*SANITIZE, CXX=compiler)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"make sanitize: {compiler} has no libasan.so: name a GCC that has its sanitizers' "
        "libraries in CXX (Debian and Ubuntu: apt install g++)\n"
    )


def test_a_missing_compiler_is_named() -> None:
    done = run(*SANITIZE, CXX="no-such-compiler")
    assert done.returncode == 1
    assert done.stderr.startswith("make sanitize: no-such-compiler has no libasan.so: ")
