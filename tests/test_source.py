"""What the compiler is given to read."""

from __future__ import annotations

import re
import subprocess
from collections import Counter

import pytest

from kernels.runtime.compiler import compiler
from kernels.runtime.cpu import FLAGS
from kernels.runtime.source import Source, flattened


def preprocessed(text: str, flag: str) -> str:
    command = [*compiler().command, *FLAGS, flag, "-std=c++17", "-E", "-x", "c++", "-"]
    text = flattened("some.cu", text)
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


#: Headers that take longer to read than most kernels take to compile.
LARGE = {"math.h", "immintrin.h"}


@pytest.mark.skipif("Clang" in compiler().version, reason="its builtins have other names")
@pytest.mark.parametrize("flag", ["-DKERNELS_CPU", "-DKERNELS_SIMT"])
def test_kernels_read_no_large_header(flag: str) -> None:
    read = preprocessed('#include "gemm.cuh"\n#include "warp.cuh"\n', flag)
    files = {path.rsplit("/")[-1] for path in re.findall(r'^# \d+ "([^"]+)"', read, re.MULTILINE)}
    assert "string.h" in files and not files & LARGE


@pytest.mark.parametrize("source", Source.all, ids=lambda source: source.name)
def test_a_header_is_expanded_once(source: Source) -> None:
    """But for those that are included under a condition, before and where that does not hold."""
    counts = Counter(re.findall(r'^#line 1 "kernels/(.*)"$', source.text, re.MULTILINE))
    several = {name.split("/")[-1] for name, count in counts.items() if count > 1}
    assert counts["include/dialect.cuh"] == 1 and max(counts.values()) <= 2
    assert several <= {"dialect_host.cuh", "dialect_threads.cuh", "channels.cuh", "window.cuh"}


INCLUDE = '#include "random.cuh"\n'


@pytest.mark.parametrize(
    "text",
    [
        INCLUDE + INCLUDE,
        "#if 0\n" + INCLUDE + "#endif\n" + INCLUDE,
        "#if 1\n" + INCLUDE + "#endif\n" + INCLUDE,
        "#ifdef NO\n#if 1\n#endif\n" + INCLUDE + "#else\n" + INCLUDE + "#endif\n",
    ],
)
def test_a_header_counts_once_whatever_its_condition(text: str) -> None:
    assert preprocessed(text, "-DKERNELS_CPU").count("0x9E3779B9") == 1
