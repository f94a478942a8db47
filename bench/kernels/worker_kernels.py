"""One tree's kernels, for `compare.py`: times rows of the kernel suite without peers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import kernels
from bench.kernels.contenders import OURS
from bench.kernels.rows import rows
from bench.measure import synchronizer, verify
from bench.peers.worker import serve
from kernels.runtime import choose_target

contender: Any = None


def prepare(name: str) -> None:
    """Prepare a row and verify it."""
    global contender
    row = next(row for row in rows() if row.name == name)
    work = row.prepare(target, **row.sizes)
    contender = work.contenders[OURS]
    verify(name, contender.read(contender.run()), work.expected, work.rtol)


def sample() -> float:
    """Return the seconds of one call."""
    return contender.seconds(synchronize)


if __name__ == "__main__":
    tree = Path(sys.argv[1]).resolve()
    if Path(kernels.__file__).resolve().parent.parent != tree:
        raise SystemExit(f"kernels is that of {kernels.__file__}, expected {tree}'s")
    target = choose_target()[0]
    synchronize = synchronizer(target)
    serve(prepare, sample)
