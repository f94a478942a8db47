"""The share of fused multiply-adds in the main loop of each FP32 product, by its machine code.

    python -m tests.lib.main_loop

A multiprocessor issues one instruction of a warp per clock and scheduler, and has as many FP32
units as lanes: so the share is the part of the peak that the loop can reach.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kernels.gemm import gemm
from kernels.gemm.tiles import FMA, Tile
from tests.lib import nvrtc, sass
from tests.lib.kernel_resources import SOURCES

_OPCODE = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+\s+)?([A-Z][\w.]*)", re.MULTILINE)

RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results" / "main-loops.json"
ARCHITECTURES = ("sm_80", "sm_90")
SOURCES_OF_PRODUCTS = ("gemm/dense.cu", "conv/conv2d.cu")
#: The two products of gradients, by what LAUNCHED says.
GRADIENTS = {1: "of weights", 2: "of the input"}


class Loop(NamedTuple):
    """A main loop."""

    name: str
    arch: str
    tile: Tile
    ffma: int
    instructions: int

    @property
    def share(self) -> float:
        """Fused multiply-adds among its instructions."""
        return self.ffma / self.instructions


def loops(arch: str, tile: Tile) -> Iterator[Loop]:
    """Yield the main loop of each product with a tile."""
    constants = gemm.constants(tile, np.dtype("float32"), "fp32", (True, True))
    constants["sum_t"] = "float32"
    for source in SOURCES_OF_PRODUCTS:
        for launched, which in GRADIENTS.items():
            text = nvrtc.specialised(SOURCES[source], "float32", **constants, LAUNCHED=launched)
            for entry, code in sass.text(nvrtc.compiled(text, source, arch).cubin).items():
                if entry.endswith("gradients"):
                    yield Loop(f"{entry} {which}", arch, tile, *_main(code))
                elif launched == 1:
                    yield Loop(entry, arch, tile, *_main(code))


def _main(code: str) -> tuple[int, int]:
    """Return the fused multiply-adds and the instructions of the loop that has most of the former.

    Of loops in each other it is the inner one.
    """
    lines = code.splitlines()
    bodies = ["\n".join(lines[begin:end]) for begin, end in sass.loops(lines)]
    found = [[op.split(".")[0] for op in _OPCODE.findall(body)] for body in bodies]
    return max(
        ((opcodes.count("FFMA"), len(opcodes)) for opcodes in found),
        key=lambda counts: (counts[0], -counts[1]),
    )


def main() -> None:
    """Write the loops of every tile for two architectures."""
    rows = []
    for arch in ARCHITECTURES:
        for tile in FMA.tiles:
            for loop in loops(arch, tile):
                size = f"{tile.BM}x{tile.BN}"
                print(f"{arch} {size:>7} {loop.name:38} {loop.share:.0%}", flush=True)
                rows.append({"arch": arch, "tile": size, "product": loop.name, "share": loop.share})
                rows[-1] |= {"ffma": loop.ffma, "instructions": loop.instructions}
    lines = ",\n".join(json.dumps(row) for row in rows)
    RESULTS.write_text(
        f'{{"made by": "python -m tests.lib.main_loop", "NVRTC": "{nvrtc.version()}",\n'
        f'"loops": [\n{lines}\n]}}\n'
    )
    print(f"wrote {RESULTS}")


if __name__ == "__main__":
    main()
