"""The share of multiplications in the main loop of each product, by its machine code.

    python -m tests.lib.main_loop

A multiprocessor issues one instruction of a warp per clock and scheduler, and has as many FP32
units as lanes: so the share is the part of the FP32 peak that the loop can reach. A product of
tensor cores takes several clocks, in which other instructions can be issued, but no more than one
each.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kernels.gemm import gemm
from kernels.gemm.tiles import FMA, MMA_16, Tile
from tests.lib import nvrtc, sass
from tests.lib.kernel_resources import SOURCES

_OPCODE = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+\s+)?([A-Z][\w.]*)", re.MULTILINE)

RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results" / "main-loops.json"
ARCHITECTURES = ("sm_80", "sm_90")
SOURCES_OF_PRODUCTS = ("gemm/dense.cu", "conv/conv2d.cu")
#: The two products of gradients, by what LAUNCHED says.
GRADIENTS = {1: "of weights", 2: "of the input"}


class Kind(NamedTuple):
    """A kind of products."""

    name: str
    multiplies: str  # the instruction
    dtype: str
    precision: str
    tiles: tuple[Tile, ...]


KINDS = (
    Kind("FP32", "FFMA", "float32", "fp32", FMA.tiles),
    Kind("bf16", "HMMA", "bfloat16", "bf16", MMA_16.tiles),
)


class Loop(NamedTuple):
    """A main loop: its multiplications, which are FFMA or HMMA, and all of its instructions."""

    product: str
    arch: str
    tile: Tile
    multiplications: int
    instructions: int

    @property
    def share(self) -> float:
        """Multiplications among the instructions."""
        return self.multiplications / self.instructions


def loops(arch: str, kind: Kind, tile: Tile) -> Iterator[Loop]:
    """Yield the main loop of each product with a tile."""
    constants = gemm.constants(tile, np.dtype(kind.dtype), kind.precision, (True, True))
    constants["sum_t"] = "float32"
    for source in SOURCES_OF_PRODUCTS:
        for launched, which in GRADIENTS.items():
            text = nvrtc.specialised(SOURCES[source], kind.dtype, **constants, LAUNCHED=launched)
            for entry, code in sass.text(nvrtc.compiled(text, source, arch).cubin).items():
                if entry.endswith("gradients"):
                    yield Loop(f"{entry} {which}", arch, tile, *_main(code, kind.multiplies))
                elif launched == 1:
                    yield Loop(entry, arch, tile, *_main(code, kind.multiplies))


def _main(code: str, multiplies: str) -> tuple[int, int]:
    """Return the multiplications and the instructions of the loop that has most of the former.

    Of loops in each other it is the inner one.
    """
    lines = code.splitlines()
    bodies = ["\n".join(lines[begin:end]) for begin, end in sass.loops(lines)]
    found = [[op.split(".")[0] for op in _OPCODE.findall(body)] for body in bodies]
    return max(
        ((opcodes.count(multiplies), len(opcodes)) for opcodes in found),
        key=lambda counts: (counts[0], -counts[1]),
    )


def main() -> None:
    """Write the loops of every tile for two architectures."""
    rows = []
    for arch in ARCHITECTURES:
        for kind in KINDS:
            for tile in kind.tiles:
                name = f"{tile.name}, {kind.name}"
                for loop in loops(arch, kind, tile):
                    print(f"{arch} {name:48} {loop.product:38} {loop.share:.0%}", flush=True)
                    rows.append(
                        {
                            "arch": arch,
                            "tile": name,
                            "product": loop.product,
                            "share": loop.share,
                            "multiplications": loop.multiplications,
                            "instructions": loop.instructions,
                        }
                    )
    lines = ",\n".join(json.dumps(row) for row in rows)
    RESULTS.write_text(
        f'{{"made by": "python -m tests.lib.main_loop", "NVRTC": "{nvrtc.version()}",\n'
        f'"loops": [\n{lines}\n]}}\n'
    )
    print(f"wrote {RESULTS}")


if __name__ == "__main__":
    main()
