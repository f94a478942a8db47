"""The compile matrix, and the committed table of what each kernel takes on each architecture.

    make resources

writes the table, `kernel_resources.json`, anew; test_kernel_resources.py holds the kernels to it.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import kernels.batch
import kernels.batchnorm_pool
import kernels.conv2d_pool
import kernels.dense_loss
import kernels.fold
import kernels.loss_scale  # noqa: F401  (they define sources that `kernels` alone leaves out)
import nvrtc
from kernels import gemm
from kernels.runtime import Source
from nvrtc import Resources

TABLE = Path(__file__).with_suffix(".json")
# More registers than in the table let pass: a few, and those that another ptxas may unroll into.
MORE_REGISTERS, MORE_ON_ANOTHER_NVRTC = 8, 32

SOURCES = {source.name: source for source in Source.all}
ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
# The type that the recipes train in, everywhere; every other once, and bfloat16 also on Turing,
# whose hardware does not have it.
MACHINES = {
    "float32": ARCHITECTURES,
    "float64": ("sm_90",),
    "float16": ("sm_90",),
    "bfloat16": ("sm_75", "sm_90"),
}
# Tensor cores: one precision wherever it is, the others once, and what Turing has.
PRECISIONS = {"bf16": ARCHITECTURES[1:], "tf32": ("sm_90",), "fp16": ("sm_75", "sm_90")}
# What the recipes do without: windows of more than 256 taps, and images that are not bytes.
# What a CPU alone chooses, though it runs on a GPU, too: compiled for one.
CPU_ALONE = ("winograd.cu",)
UNCOMMON_TYPES = {
    "augment.cu": {"pixel_t": "float32"},
    "batch.cu": {"pixel_t": "float32"},
    "elementwise/normalize": {"U": "float32"},
    "pool.cu": {"argmax_t": "uint16"},
}


@dataclass(frozen=True)
class Build:
    """One specialisation of one source for one architecture."""

    source: str
    dtype: str
    arch: str
    types: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """Return a name that tests are chosen by."""
        return "-".join([self.source, self.dtype, self.arch, *self._types()])

    def row(self, entry: str) -> str:
        """Return the name of an entry point's row in the table."""
        return " ".join([entry, self.dtype, *self._types()])

    def compiled(self) -> nvrtc.Compiled:
        """Compile it."""
        constants = dict(self.types)
        constants |= gemm.constants(constants.get("PRECISION", "fp32"))
        text = nvrtc.specialised(SOURCES[self.source], self.dtype, **constants)
        return nvrtc.compiled(text, self.source, self.arch)

    def _types(self) -> list[str]:
        return [f"{name}={value}" for name, value in self.types]


def matrix() -> list[Build]:
    """Return every build whose kernels are in the table."""
    common = [
        Build(source, dtype, arch)
        for source in SOURCES
        for dtype, machines in MACHINES.items()
        for arch in machines
        if source not in CPU_ALONE or arch == "sm_90"
    ]
    uncommon = [
        Build(source, "float32", "sm_90", tuple(types.items()))
        for source, types in UNCOMMON_TYPES.items()
    ]
    tensor_cores = [
        Build(source, "float32", arch, (("PRECISION", precision),))
        for source in ("conv2d.cu", "dense.cu", "dense_loss.cu")
        for precision, machines in PRECISIONS.items()
        for arch in machines
    ]
    return common + uncommon + tensor_cores


def faults(found: Resources, listed: Resources | None, more_registers: int) -> list[str]:
    """Return what is wrong with a kernel's resources, given those that the table lists."""
    problems = []
    if found.stack:
        problems.append(f"{found.stack} bytes of stack frame")
    if found.spilled:
        problems.append(f"{found.spilled} bytes spilled")
    if listed is None:
        return [*problems, f"not in {TABLE.name}: run `make resources`"]
    if found.registers > listed.registers + more_registers:
        problems.append(f"{found.registers} registers, {listed.registers} in {TABLE.name}")
    if found.shared > listed.shared:
        problems.append(f"{found.shared} bytes of shared memory, {listed.shared} in {TABLE.name}")
    return problems


class Table(NamedTuple):
    """The committed resources, by row and architecture, and the NVRTC that they are of."""

    nvrtc: str
    cells: dict[tuple[str, str], Resources]


def committed() -> Table:
    """Read the table."""
    content = json.loads(TABLE.read_text())
    return Table(
        content["NVRTC"],
        {
            (row, arch): Resources(*numbers)
            for row, cells in content["kernels"].items()
            for arch, numbers in cells.items()
        },
    )


def measured() -> dict[str, dict[str, Resources]]:
    """Compile the matrix and return the table's rows."""
    builds = matrix()
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # NVRTC lets go of Python's lock
        reports = pool.map(lambda build: build.compiled().report, builds)
    rows: dict[str, dict[str, Resources]] = {}
    for build, report in zip(builds, reports, strict=True):
        for entry, found in nvrtc.resources(report).items():
            rows.setdefault(build.row(entry), {})[build.arch] = found
    return rows


def text(rows: dict[str, dict[str, Resources]]) -> str:
    """Return the file's text, a line a row, so that differences are read easily."""
    lines = [f'"{row}": {json.dumps(cells)}' for row, cells in sorted(rows.items())]
    return (
        f'{{\n"made by": "make resources",\n"NVRTC": "{nvrtc.version()}",\n'
        f'"columns": {json.dumps(Resources._fields)},\n'
        '"kernels": {\n' + ",\n".join(lines) + "\n}\n}\n"
    )


if __name__ == "__main__":
    TABLE.write_text(text(measured()))
