"""Compiling CUDA text without a GPU: NVRTC makes machine code, ptxas reports its resources.

If the compiler is missing, tests that need it fail; they are not skipped.
"""

from __future__ import annotations

import io
import re
from typing import Any, NamedTuple

from kernels.runtime import Source
from kernels.runtime.cuda import CudaTarget


class Compiled(NamedTuple):
    """Machine code, the PTX it is made of, and what compiler and assembler said on the way."""

    cubin: bytes
    ptx: str
    report: str


class Resources(NamedTuple):
    """The resources of one kernel, as ptxas reports them."""

    registers: int  # a thread
    shared: int  # bytes a block, less what a launch adds
    stack: int  # bytes a thread
    spilled: int  # bytes a thread stores and loads


def specialised(
    source: Source, dtype: str, entry: str | None = None, **constants: str | int
) -> str:
    """Return a source's text in its common specialisation on cuda, but for these constants."""
    common = {**CudaTarget.constants, **source.defaults, "T": dtype}
    return source.specialised(common | constants, entry)


def compiled(text: str, name: str, arch: str) -> Compiled:
    """Compile as CuPy does: its options, and flush-to-zero, which it always adds."""
    from cuda.core import Program, ProgramOptions
    from cuda.pathfinder import find_nvidia_header_directory

    options = ProgramOptions(
        name=name,
        arch=arch,
        std="c++17",
        ftz=True,
        device_as_default_execution_space=True,
        include_path=[find_nvidia_header_directory("cudart")],
        ptxas_options=["-v"],
    )
    report = io.StringIO()
    program = Program(text, "c++", options)
    cubin = bytes(program.compile("cubin", logs=report).code)
    return Compiled(cubin, _ptx(program), report.getvalue())


def _ptx(program: Any) -> str:
    """Return what NVRTC gave the assembler: it is not compiled again."""
    from cuda.bindings import nvrtc

    error, size = nvrtc.nvrtcGetPTXSize(program.handle)
    assert error == nvrtc.nvrtcResult.NVRTC_SUCCESS, error
    ptx = bytearray(size)
    (error,) = nvrtc.nvrtcGetPTX(program.handle, ptx)
    assert error == nvrtc.nvrtcResult.NVRTC_SUCCESS, error
    return ptx.rstrip(b"\0").decode()


def version() -> str:
    """Return NVRTC's version, such as "13.5"."""
    from cuda.bindings import nvrtc

    error, major, minor = nvrtc.nvrtcVersion()
    assert error == nvrtc.nvrtcResult.NVRTC_SUCCESS, error
    return f"{major}.{minor}"


def architectures(report: str) -> set[str]:
    """Return what ptxas compiled kernels for."""
    return set(re.findall(r"Compiling entry function '\w+' for '(\w+)'", report))


def resources(report: str) -> dict[str, Resources]:
    """Return the resources of each kernel, with those of the functions that it calls."""
    # ptxas reports on a kernel, then on the functions that it calls.
    parts = re.split(r"Compiling entry function '(\w+)' for", report)
    return dict(zip(parts[1::2], map(_resources, parts[2::2]), strict=True))


def _resources(report: str) -> Resources:
    def numbers(pattern: str) -> list[int]:
        return [int(number) for number in re.findall(pattern, report)]

    return Resources(
        registers=max(numbers(r"Used (\d+) registers")),
        shared=max(numbers(r"(\d+) bytes smem"), default=0),
        stack=max(numbers(r"(\d+) bytes (?:stack frame|cumulative stack size)")),
        spilled=sum(numbers(r"(\d+) bytes spill (?:stores|loads)")),
    )
