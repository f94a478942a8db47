"""The compile matrix, and the committed table of each kernel's resources on each architecture.

    make resources

writes the table, `kernel_resources.json`; test_kernel_resources.py compares the kernels with it.
"""

from __future__ import annotations

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

import kernels.lowlevel  # noqa: F401  (defines sources that `kernels` alone leaves out)
from kernels.gemm import gemm
from kernels.gemm.tiles import FMA, FMA_DOUBLE, MMA, MMA_16, MOST_IN_ROWS, Tile
from kernels.runtime import Source
from tests.lib import nvrtc
from tests.lib.nvrtc import Resources
from tests.lib.support import CPU_ONLY, NARROW

TABLE = Path(__file__).with_suffix(".json")
# Registers above the table's that are allowed: a few, and more for another version of ptxas.
MORE_REGISTERS, MORE_ON_ANOTHER_NVRTC = 8, 32

SOURCES = {source.name: source for source in Source.all}
ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
#: `make test` compiles everything in float32 for the last of these, and products in each type; and
#: for the first, in float32, what asks for the architecture: asynchronous copies and bfloat16's
#: products begin at sm_80. The tests of `cuda` run the other types. `make test-all` compiles all
#: types for all architectures: the assembler's registers differ.
TEXTS = ("sm_75", "sm_90")
# The recipes' type on every architecture; each other type once, and bfloat16 also on Turing, whose
# hardware does not have it.
MACHINES = {
    "float32": ARCHITECTURES,
    "float64": ("sm_90",),
    "float16": ("sm_90",),
    "bfloat16": ("sm_75", "sm_90"),
}
#: The sources of products, which are compiled by tile.
PRODUCTS = ("conv/conv2d.cu", "gemm/dense.cu", "loss/dense_loss.cu")
# The bodies of products: type, precision, tiles, where the first of them is compiled, and whether
# the others are, too: once, of the source that has all loaders, by `make test-all`. Tensor cores:
# one precision of float32 arrays wherever it is, the others once, and what Turing has.
BODIES = [
    ("float32", "fp32", FMA, ARCHITECTURES, True),
    ("float64", "fp32", FMA_DOUBLE, ("sm_90",), True),
    ("bfloat16", "fp32", FMA, ("sm_75",), False),
    ("bfloat16", "bf16", MMA_16, ("sm_80", "sm_90"), True),
    ("float16", "fp16", MMA_16, ("sm_75",), False),
    ("float32", "bf16", MMA, ARCHITECTURES[1:], True),
    ("float32", "tf32", MMA, ("sm_90",), False),
    ("float32", "fp16", MMA, ("sm_75",), False),
]
#: The sources of ``channels.cuh``: their threads take 16 bytes of channels, or one for odd ones,
#: which is compiled for one architecture.
VECTORS = {"float32": 4, "float64": 2, "float16": 8, "bfloat16": 8}
OF_CHANNELS = (
    "conv/im2col.cu",
    "norm/batchnorm.cu",
    "norm/batchnorm_pool.cu",
    "pooling/pool.cu",
)


class OfRows(NamedTuple):
    """A way in which kernels of ``rows.cuh`` are compiled for their longest rows.

    Attributes
    ----------
    threads : int
        Those that share a row; 0: a block's.
    registers : int
        Of each thread for a row.
    entry : str, optional
        The entry point, if that is not all of the source's.
    whole : tuple of int
        For rows that are no whole accesses (0), for those that are (1), or both.
    """

    threads: int
    registers: int
    entry: str | None = None
    whole: tuple[int, ...] = (0, 1)


OF_ROWS = {
    "loss/softmax.cu": [
        OfRows(1, 0, whole=(0,)),
        OfRows(32, 32),
        OfRows(0, 32),
        OfRows(0, 64, "softmax_forward"),
        OfRows(0, 64, "softmax_cross_entropy_rows", whole=(1,)),
    ],
    "norm/layer_norm.cu": [
        OfRows(32, 32, "layer_norm_forward"),
        OfRows(0, 32, "layer_norm_forward"),
        OfRows(0, 64, "layer_norm_forward"),
    ],
    "norm/layer_norm_gradients.cu": [OfRows(32, 32), OfRows(0, 16)],
}
#: The sources of ``pixel_pairs.cuh``, and in which types and where they are compiled.
OF_PIXEL_PAIRS = tuple(f"conv/one_channel{name}_mma.cu" for name in ("", "_pool", "_gradient"))
PIXEL_PAIRS = [
    ("float16", "fp16", "sm_75"),
    *(("bfloat16", "bf16", arch) for arch in ARCHITECTURES[1:]),
]
#: Windows of pools whose sizes the kernels know: those of most networks.
WINDOWS = [
    {"TAPS_H": 2, "TAPS_W": 2, "STRIDE_H": 2, "STRIDE_W": 2, "INSIDE": 1},
    {"TAPS_H": 3, "TAPS_W": 3, "STRIDE_H": 2, "STRIDE_W": 2, "INSIDE": 0},
]
SPAN_REGISTERS = {"float32": 4, "float64": 4, "float16": 8, "bfloat16": 8}
# Kernels that only `cpu` uses, though they run on a GPU, too: compiled for one architecture, in the
# types of `cpu`.
CPU_ALONE = ("conv/winograd.cu", *CPU_ONLY)
# Variants that the recipes do not use: windows of more than 256 taps, images that are not bytes.
UNCOMMON_TYPES = {
    "images/augment.cu": {"pixel_t": "float32"},
    "step/batch.cu": {"pixel_t": "float32"},
    "elementwise/normalize": {"U": "float32"},
    "pooling/pool.cu": {"argmax_t": "uint16"},
}


@dataclass(frozen=True)
class Build:
    """One specialisation of one source for one architecture."""

    source: str
    dtype: str
    arch: str
    types: tuple[tuple[str, str | int], ...] = ()
    tile: Tile | None = None  # of a product
    vectors: bool = True  # whether its operands are copied 16 bytes at a time
    uncommon: bool = False  # a tile that only some shapes have
    entry: str | None = None  # the entry point that is compiled alone

    @property
    def entries(self) -> set[str]:
        """The entry points that are compiled."""
        return {self.entry} if self.entry else set(SOURCES[self.source].entries)

    @property
    def slow(self) -> bool:
        """Whether it is compiled by `make test-all` only."""
        if self.uncommon or self.arch not in TEXTS:
            return True
        if self.source in OF_PIXEL_PAIRS:
            return False
        if self.source in PRODUCTS:
            return self.arch == TEXTS[0] and self.dtype != "float32"
        return (self.dtype, self.arch) != ("float32", TEXTS[1])

    def conditions(self) -> list[bool]:
        """Return whether each condition on the architecture in its text holds."""
        text = SOURCES[self.source].text
        least = re.findall(r"__CUDA_ARCH__ >= (\d+)", text)
        assert len(least) == text.count("__CUDA_ARCH__"), self.source
        return [10 * int(self.arch.removeprefix("sm_")) >= int(number) for number in least]

    def __str__(self) -> str:
        """Return a name that tests are chosen by."""
        return "-".join([self.entry or self.source, self.dtype, self.arch, *self._types()])

    def row(self, entry: str) -> str:
        """Return the name of an entry point's row in the table."""
        return " ".join([entry, self.dtype, *self._types()])

    def compiled(self) -> nvrtc.Compiled:
        """Compile it."""
        constants: dict[str, str | int] = dict(self.types)
        if self.tile is not None:
            vectors = self.vectors, self.vectors
            precision = constants.get("PRECISION", "fp32")
            constants["sum_t"] = self.dtype
            constants |= gemm.constants(self.tile, np.dtype(self.dtype), precision, vectors)
        text = nvrtc.specialised(SOURCES[self.source], self.dtype, self.entry, **constants)
        return nvrtc.compiled(text, self.source, self.arch)

    def _types(self) -> list[str]:
        words = [f"{name}={value}" for name, value in self.types]
        if self.tile is not None:
            words.append(self.tile.name.replace(" by warps of ", "/").replace(" in ", "/"))
        return words if self.vectors else [*words, "by element"]


def matrix() -> list[Build]:
    """Return every build whose kernels are in the table."""
    common = [
        Build(source, dtype, arch)
        for source in SOURCES
        for dtype, machines in MACHINES.items()
        for arch in machines
        if source not in PRODUCTS + OF_PIXEL_PAIRS
        if (source not in CPU_ALONE + OF_CHANNELS) or arch == "sm_90"
        if source not in CPU_ALONE or dtype not in NARROW
    ]
    uncommon = [
        Build(source, "float32", "sm_90", tuple(types.items()))
        for source, types in UNCOMMON_TYPES.items()
    ]
    vectors = [
        Build(source, dtype, arch, (("VECTOR", VECTORS[dtype]),))
        for source in OF_CHANNELS
        for dtype, machines in MACHINES.items()
        for arch in machines
    ]
    windows = [
        Build("pooling/pool.cu", dtype, arch, (("VECTOR", VECTORS[dtype]), *window.items()))
        for window in WINDOWS
        for dtype, machines in MACHINES.items()
        for arch in machines
    ]
    most_taps = [
        Build(f"conv/one_channel{name}.cu", dtype, arch, (("TAPS_H", 5), ("TAPS_W", 5)))
        for name in ("", "_pool", "_gradient")
        for dtype, machines in MACHINES.items()
        for arch in machines
    ]
    pixel_pairs = [
        Build(source, dtype, arch, (("PRECISION", precision), ("TAPS_H", 5), ("TAPS_W", 5)))
        for source in OF_PIXEL_PAIRS
        for dtype, precision, arch in PIXEL_PAIRS
    ]
    of_common = common + vectors + windows + _rows() + most_taps + pixel_pairs
    return of_common + uncommon + _products()


def _rows() -> list[Build]:
    builds = []
    for source, ways in OF_ROWS.items():
        for way, (dtype, machines) in product(ways, MACHINES.items()):
            spans = way.registers // SPAN_REGISTERS[dtype]
            kept = ("ROW_THREADS", way.threads), ("ROW_SPANS", spans)
            for whole in way.whole:
                constants = *kept, ("ROW_WHOLE", whole)
                builds += [
                    Build(source, dtype, arch, constants, entry=way.entry) for arch in machines
                ]
    return builds


def _products() -> list[Build]:
    builds = []
    for dtype, precision, body, machines, all_tiles in BODIES:
        types = () if precision == "fp32" else (("PRECISION", precision),)
        first = body.tiles[0]
        of_rows = next(tile for tile in body.tiles if tile.BN <= MOST_IN_ROWS)
        builds += [
            Build(source, dtype, arch, (*types, *more), tile)
            for source, more, tile in (
                ("conv/conv2d.cu", (), first),
                ("gemm/dense.cu", (), first),
                *(("loss/dense_loss.cu", (("ROW_WHOLE", whole),), of_rows) for whole in (0, 1)),
            )
            for arch in machines
        ]
        builds += [  # What a gradient passes: a ReLU and a pool above, here less.
            Build(source, dtype, "sm_90", (*types, ("PAST", past)), first, uncommon=True)
            for source in ("conv/conv2d.cu", "gemm/dense.cu")
            for past in (0, 1)
            if "sm_90" in machines
        ]
        if all_tiles:
            builds += [
                Build("conv/conv2d.cu", dtype, "sm_90", types, tile, vectors, uncommon=True)
                for tile in body.tiles
                for vectors in (True, False)
                if tile is not first or not vectors
            ]
    return builds


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
    import cuda.core  # noqa: F401  which threads that do it at once find half done

    builds = matrix()
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # NVRTC lets go of Python's lock
        reports = pool.map(lambda build: build.compiled().report, builds)
    rows: dict[str, dict[str, Resources]] = {}
    for build, report in zip(builds, reports, strict=True):
        for entry, found in nvrtc.resources(report).items():
            rows.setdefault(build.row(entry), {})[build.arch] = found
    return rows


def text(rows: dict[str, dict[str, Resources]]) -> str:
    """Return the file's text, one line per row, so that diffs are easy to read."""
    lines = [f'"{row}": {json.dumps(cells)}' for row, cells in sorted(rows.items())]
    return (
        f'{{\n"made by": "make resources",\n"NVRTC": "{nvrtc.version()}",\n'
        f'"columns": {json.dumps(Resources._fields)},\n'
        '"kernels": {\n' + ",\n".join(lines) + "\n}\n}\n"
    )


if __name__ == "__main__":
    TABLE.write_text(text(measured()))
    print(f"wrote {TABLE}")
