"""What the compiler is given to read."""

from __future__ import annotations

import re
import subprocess
from collections import Counter

import pytest

from kernels.runtime.compiler import compiler
from kernels.runtime.cpu import FLAGS
from kernels.runtime.program import flattened
from kernels.runtime.source import Source


def preprocessed(text: str) -> str:
    command = [*compiler().command, *FLAGS, "-std=c++17", "-E", "-x", "c++", "-"]
    text = flattened("some.cu", text)
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


#: Headers that take longer to read than most kernels take to compile.
LARGE = {"math.h", "immintrin.h"}


@pytest.mark.skipif("Clang" in compiler().version, reason="its builtins have other names")
def test_kernels_read_no_large_header() -> None:
    read = preprocessed('#include "gemm/gemm.cuh"\n#include "images/warp.cuh"\n')
    files = {path.rsplit("/")[-1] for path in re.findall(r'^# \d+ "([^"]+)"', read, re.MULTILINE)}
    assert "string.h" in files and not files & LARGE


@pytest.mark.parametrize("source", Source.all, ids=lambda source: source.name)
def test_a_header_is_expanded_once(source: Source) -> None:
    """Two headers are expanded twice: one `#include` is under a condition."""
    counts = Counter(re.findall(r'^#line 1 "kernels/(.*)"$', source.text, re.MULTILINE))
    several = {name for name, count in counts.items() if count > 1}
    assert counts["dialect/dialect.cuh"] == 1 and max(counts.values()) <= 2
    assert several <= {"common/channels.cuh", "common/window.cuh"}


INCLUDE = '#include "images/random.cuh"\n'


@pytest.mark.parametrize(
    "text",
    [
        INCLUDE + INCLUDE,
        INCLUDE.rstrip() + "  // for a reason\n" + INCLUDE,
        "#if 0\n" + INCLUDE + "#endif\n" + INCLUDE,
        "#if 1\n" + INCLUDE + "#endif\n" + INCLUDE,
        "#ifdef NO\n#if 1\n#endif\n" + INCLUDE + "#else\n" + INCLUDE + "#endif\n",
    ],
)
def test_a_header_counts_once_whatever_its_condition(text: str) -> None:
    assert preprocessed(text).count("0x9E3779B9") == 1


@pytest.mark.skipif("Clang" in compiler().version, reason="its builtins have other names")
@pytest.mark.skipif("define __AVX512BW__" not in compiler().identity, reason="no AVX-512")
@pytest.mark.parametrize("builtin", ["loadups512_mask", "ptestmd512", "scalefpd512_mask"])
def test_a_compiler_that_lacks_a_builtin_reads_the_header(builtin: str) -> None:
    text = flattened("every.cu", '#include "gemm/gemm.cuh"\n#include "images/warp.cuh"\n')
    assert f"HAS({builtin})" in text
    text = text.replace(f"HAS({builtin})", "HAS(nothing_of_that_name)")
    command = [*compiler().command, *FLAGS, "-DBM=1", "-DBN=96", "-DBK=1024", "-std=c++17"]
    command += ["-fsyntax-only", "-H", "-x", "c++", "-"]
    read = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stderr
    assert "/immintrin.h" in read
