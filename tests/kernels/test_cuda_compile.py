"""What CUDA text and Python agree on: sources, messages, entry points, types and layouts."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

import kernels
from kernels.common.geometry import Lattice, Pooling, Window
from kernels.conv.conv2d_pool import Pool
from kernels.conv.winograd import Tiles
from kernels.gemm.both import Blocks
from kernels.runtime import Source
from kernels.runtime.cpu import CpuTarget
from kernels.runtime.program import _ENTRY, Parameter, _parameters
from tests.lib import nvrtc
from tests.lib.kernel_resources import SOURCES


def test_every_source_is_compiled() -> None:
    """Each file is a Source, so that the compile matrix knows of it."""
    package = Path(kernels.__file__).parent
    assert {path.name for path in package.glob("*.cu")} <= set(SOURCES)


def test_message_names_the_kernels_file_and_line() -> None:
    text = (
        '#include "gemm/gemm.cuh"\n#include "conv/im2col.cuh"\n'
        "\nKERNEL faulty(T *y) {\n    y[0] = lost;\n}"
    )
    source = Source("faulty.cu", text, packaged=False)
    with pytest.raises(Exception, match=r"kernels/faulty\.cu\(5\): error: .*lost"):
        nvrtc.compiled(nvrtc.specialised(source, "float32"), source.name, "sm_90")
    # A tile that its micro-tiles do not fill: the fault is then in a header.
    message = r"kernels/gemm/gemm_stages\.cuh\(\d+\): error: .*must fill"
    with pytest.raises(Exception, match=message):
        nvrtc.compiled(
            nvrtc.specialised(source, "float32", BM=66, BN=64, BK=16), source.name, "sm_90"
        )


# --- what Python passes is what the kernels take

# The structs, by a source that declares them.
DECLARED = {
    "conv/conv2d.cu": {"Lattice": Lattice, "Pooling": Pooling, "Blocks": Blocks},
    "conv/conv2d_pool.cu": {"Window": Window, "Pool": Pool},
    "conv/winograd.cu": {"Tiles": Tiles},
}
STRUCTS = {name: struct for structs in DECLARED.values() for name, struct in structs.items()}


@pytest.mark.parametrize("name", SOURCES)
def test_every_entry_and_type_is_known(name: str) -> None:
    source = SOURCES[name]
    heads = _ENTRY.findall(source.text)
    assert heads and len(heads) == source.text.count("\nKERNEL ")
    # An entry point may have a body for each target, with the same parameters.
    assert {name: _parameters(text) for name, text in heads} == source.entries
    assert len(set(heads)) == len(source.entries)
    for entry, parameters in source.entries.items():
        assert parameters, entry
        for parameter in parameters:
            known = parameter.dtype({**source.defaults, "T": "float32"})
            assert (known is None) == (parameter.type in STRUCTS), (entry, parameter)


def layout_checks(declaring: str) -> Source:
    """A text that compiles only where sizes and orders are those that Python packs."""
    types = {
        parameter.type
        for source in SOURCES.values()
        for parameters in source.entries.values()
        for parameter in parameters
        if not parameter.pointer
    }
    assert {*STRUCTS, "int", "int64", "double"} <= types
    # By order and size, since NVRTC 12 has no offsetof.
    numbered, checks = [], []
    for kind, struct in DECLARED[declaring].items():
        fields = [name for name, _ in struct._fields_]
        of_kind = f"numbered_{kind}"
        numbered.append(f"constexpr {kind} {of_kind}{{{', '.join(map(str, range(len(fields))))}}};")
        checks.append(f"sizeof({kind}) == {ctypes.sizeof(struct)}")
        for number, name in enumerate(fields):
            checks.append(f"{of_kind}.{name} == {number}")
            checks.append(f"sizeof({of_kind}.{name}) == {getattr(struct, name).size}")
    for name in sorted(types - set(STRUCTS)):
        dtype = Parameter("", name, pointer=False, const=False).dtype({"T": np.float64})
        assert dtype is not None
        checks.append(f"sizeof({name}) == {dtype.itemsize}")
        checks.append(f"({name}(-1) < {name}(0)) == {str(dtype.kind != 'u').lower()}")
    lines = [f'static_assert({check}, "{check}");' for check in checks]
    text = "\n".join([SOURCES[declaring].text, *numbered, *lines])
    return Source("layout.cu", text, packaged=False)


@pytest.mark.parametrize("declaring", DECLARED)
def test_layout_on_cuda(declaring: str) -> None:
    source = layout_checks(declaring)
    report = nvrtc.compiled(nvrtc.specialised(source, "float64"), source.name, "sm_90").report
    assert set(nvrtc.resources(report)) == set(SOURCES[declaring].entries)


@pytest.mark.parametrize("declaring", DECLARED)
def test_layout_on_cpu(declaring: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KERNELS_CACHE_DIR", str(tmp_path))
    text = layout_checks(declaring).text + "KERNEL nothing(T *y) {}\n"  # soon compiled
    source = Source("layout.cu", text, packaged=False)
    source.kernel("nothing", CpuTarget(), np.dtype(np.float64)).compile()
