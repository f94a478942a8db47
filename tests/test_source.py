"""What the compiler is given to read."""

from __future__ import annotations

import re
import subprocess

import pytest

from kernels.runtime.compiler import compiler
from kernels.runtime.cpu import FLAGS
from kernels.runtime.source import flattened

#: Headers that take longer to read than most kernels take to compile.
LARGE = {"math.h", "immintrin.h"}


@pytest.mark.skipif("Clang" in compiler().version, reason="its builtins have other names")
@pytest.mark.parametrize("flag", ["-DKERNELS_CPU", "-DKERNELS_SIMT"])
def test_kernels_read_no_large_header(flag: str) -> None:
    text = flattened("every.cu", '#include "gemm.cuh"\n#include "warp.cuh"\n')
    command = [*compiler().command, *FLAGS, flag, "-std=c++17", "-E", "-x", "c++", "-"]
    read = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    files = {path.rsplit("/")[-1] for path in re.findall(r'^# \d+ "([^"]+)"', read, re.MULTILINE)}
    assert "string.h" in files and not files & LARGE
