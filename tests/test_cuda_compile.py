"""Every kernel compiles for GPUs, without one: NVRTC gives machine code and ptxas reports on it.

The elementwise kernels are compiled as the loops that run on `cpu`; CuPy wraps them in its own.
"""

from __future__ import annotations

import ctypes
import io
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import kernels  # noqa: F401  (defines every source)
from kernels.geometry import Window
from kernels.runtime import Source
from kernels.runtime.cpu import CpuTarget
from kernels.runtime.cuda import CudaTarget
from kernels.runtime.source import Parameter

# Turing, Ampere, Hopper and Blackwell in the type that trains; every other type once, and
# bfloat16 also on Turing, whose hardware does not have it.
MACHINES = [
    *(("sm_75", "float32"), ("sm_80", "float32"), ("sm_90", "float32"), ("sm_120", "float32")),
    *(("sm_90", "float64"), ("sm_90", "float16"), ("sm_90", "bfloat16"), ("sm_75", "bfloat16")),
]
SOURCES = {source.name: source for source in Source.all}


class Function(NamedTuple):
    """What ptxas says of one entry point."""

    arch: str
    spilled_bytes: int


def nvrtc(text: str, name: str, arch: str) -> str:
    """Compile as CuPy does, and return what the compiler and the assembler report."""
    core = pytest.importorskip("cuda.core", reason="cuda-core is not installed")
    from cuda.pathfinder import find_nvidia_header_directory

    options = core.ProgramOptions(
        name=name,
        arch=arch,
        std="c++17",
        ftz=True,
        include_path=[find_nvidia_header_directory("cudart")],
        ptxas_options=["-v"],
    )
    report = io.StringIO()
    core.Program(text, "c++", options).compile("cubin", logs=report)
    return report.getvalue()


def functions(report: str) -> dict[str, Function]:
    """Return the entry points in a report of ptxas."""
    found = re.findall(
        r"Compiling entry function '(\w+)' for '(\w+)'\n.*\n"
        r".*stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads",
        report,
    )
    return {name: Function(arch, int(out) + int(back)) for name, arch, out, back in found}


def constants(source: Source, dtype: str) -> dict[str, Any]:
    """Return the common specialisation on cuda."""
    return {**CudaTarget.constants, **source.defaults, "T": dtype}


@pytest.mark.parametrize(("arch", "dtype"), MACHINES)
@pytest.mark.parametrize("name", SOURCES)
def test_source_compiles_for_gpu(name: str, arch: str, dtype: str) -> None:
    source = SOURCES[name]
    report = nvrtc(source.specialised(constants(source, dtype)), name, arch)
    assert "warning" not in report.lower(), report
    found = functions(report)
    assert set(found) == set(source.entries)
    assert {function.arch for function in found.values()} == {arch}
    assert {entry for entry, function in found.items() if function.spilled_bytes} == set(), report


def test_report_shows_warnings_and_spills() -> None:
    """What the test above looks for would be found."""
    text = """
        extern "C" __global__ void __launch_bounds__(1024) wasteful(float *x) {
            int unused;
            float held[128];
            #pragma unroll
            for (int i = 0; i < 128; ++i) held[i] = x[i * 1024 + threadIdx.x];
            __syncthreads();
            #pragma unroll
            for (int i = 0; i < 128; ++i) x[i * 1024 + threadIdx.x + 1] = held[127 - i] * held[i];
        }"""
    report = nvrtc(text, "wasteful.cu", "sm_90")
    assert "warning" in report and "unused" in report
    assert functions(report)["wasteful"].spilled_bytes > 0


def test_every_source_is_compiled() -> None:
    """Each file is a Source, so that `prepare` and the test above know of it."""
    package = Path(kernels.__file__).parent
    assert {path.name for path in package.glob("*.cu")} <= set(SOURCES)


def test_message_names_the_kernels_file_and_line() -> None:
    text = (
        '#include "gemm.cuh"\n#include "im2col.cuh"\n\nKERNEL faulty(T *y) {\n    y[0] = lost;\n}'
    )
    source = Source("faulty.cu", text, ahead=False)
    sound = constants(source, "float32")
    with pytest.raises(Exception, match=r"kernels/faulty\.cu\(5\): error: .*lost"):
        nvrtc(source.specialised(sound), source.name, "sm_90")
    # A tile that its micro-tiles do not fill: the fault is then in the header.
    with pytest.raises(Exception, match=r"kernels/include/gemm\.cuh\(\d+\): error: .*must fill"):
        nvrtc(source.specialised(sound | {"BM": 66}), source.name, "sm_90")


# --- what Python passes is what the kernels take


@pytest.mark.parametrize("name", SOURCES)
def test_every_entry_and_type_is_known(name: str) -> None:
    source = SOURCES[name]
    assert source.entries and len(source.entries) == source.text.count("\nKERNEL ")
    for entry, parameters in source.entries.items():
        assert parameters, entry
        for parameter in parameters:
            known = parameter.dtype(constants(source, "float32"))
            assert (known is None) == (parameter.type == "Window"), (entry, parameter)


def layout_checks() -> Source:
    """A text that compiles only where sizes and offsets are those that Python packs."""
    types = {
        parameter.type
        for source in SOURCES.values()
        for parameters in source.entries.values()
        for parameter in parameters
        if not parameter.pointer
    }
    assert {"Window", "int", "int64", "double"} <= types
    checks = [f"sizeof(Window) == {ctypes.sizeof(Window)}"]
    for name, _ in Window._fields_:
        checks.append(f"__builtin_offsetof(Window, {name}) == {getattr(Window, name).offset}")
    for name in sorted(types - {"Window"}):
        dtype = Parameter("", name, pointer=False).dtype({"T": np.float64})
        assert dtype is not None
        checks.append(f"sizeof({name}) == {dtype.itemsize}")
        checks.append(f"({name}(-1) < {name}(0)) == {str(dtype.kind != 'u').lower()}")
    lines = [f'static_assert({check}, "{check}");' for check in checks]
    text = "\n".join(['#include "window.cuh"', *lines, "KERNEL nothing(int none) {}"])
    return Source("layout.cu", text, ahead=False)


def test_layout_on_cuda() -> None:
    source = layout_checks()
    report = nvrtc(source.specialised(constants(source, "float64")), source.name, "sm_90")
    assert set(functions(report)) == {"nothing"}


def test_layout_on_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KERNELS_CACHE_DIR", str(tmp_path))
    layout_checks().kernel("nothing", CpuTarget(), np.dtype(np.float64))
