"""Sizes of blocks on `cpu`, from the sizes of the processor's caches or a table of the user's.

They change how fast kernels are, never a bit of a result: sizes that the order of a sum depends on
are the same on every machine, and are not here.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from .errors import KernelError

_SYSTEM = Path("/sys/devices/system/cpu")
_BYTES = {"K": 2**10, "M": 2**20, "G": 2**30}
#: Columns of the GEMM's panel of operand B: whole micro-tiles for registers of any width. The same
#: everywhere, since a product's number of parts follows from it.
BN = 96
_LEAST_BK, _MOST_BK = 256, 4096
#: The largest value of `Blocks.stream_bytes`: larger arrays were never written faster through the
#: caches, since other programs use L3, too.
_MOST_STREAM = 2**24


class Caches(NamedTuple):
    """Bytes of the data caches: L1 and L2 of a core, L3 of those that share it, or 0."""

    L1: int
    L2: int
    L3: int


#: Those of the Zen 4 that the rules below were measured on, for systems that do not tell.
MEASURED = Caches(2**15, 2**20, 2**25)


class Blocks(NamedTuple):
    """The sizes.

    Attributes
    ----------
    BK : int
        Rows of the GEMM's panel of operand B, which stays in half of L2.
    near_bytes : int
        Most bytes of an input, read several times, that kernels copy to memory of their own.
    stream_bytes : int
        Least bytes of a result for which kernels use streaming stores.
    """

    BK: int
    near_bytes: int
    stream_bytes: int


def caches() -> Caches:
    """Return the caches of the first processor that this process may use, by Linux's sysfs."""
    cpu = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    sizes: dict[int, int] = {}
    try:
        for index in (_SYSTEM / f"cpu{cpu}" / "cache").glob("index*"):
            level, kind, size = (
                (index / name).read_text().strip() for name in ("level", "type", "size")
            )
            if kind != "Instruction":
                sizes[int(level)] = int(size[:-1]) * _BYTES[size[-1]]
    except (OSError, ValueError, KeyError):  # a container may hide some of it
        return MEASURED
    if not {1, 2} <= sizes.keys():
        return MEASURED
    return Caches(sizes[1], sizes[2], sizes.get(3, 0))


def from_caches(found: Caches) -> Blocks:
    """Return the sizes that fit some caches."""
    BK = _LEAST_BK
    while BK < _MOST_BK and 2 * BK * BN * 4 <= found.L2 // 2:
        BK *= 2
    stream = min((found.L3 or found.L2) // 2, _MOST_STREAM)
    return Blocks(BK, found.L2 // 4, stream)


def chosen(register_bytes: int) -> Blocks:
    """Return the sizes for this machine: those of the user's table if it has them.

    Raises
    ------
    KernelError
        If the table is not what `keep` writes.
    """
    measured = _table(table_path()).get(machine(register_bytes), {})
    return from_caches(caches())._replace(**measured)


def machine(register_bytes: int) -> str:
    """Return the name that a table has for this machine."""
    sizes = (f"{name} {size // 2**10} KiB" for name, size in caches()._asdict().items())
    return ", ".join([f"registers {8 * register_bytes} bits", *sizes])


def table_path() -> Path | None:
    """Return the file of the user's table: ``$KERNELS_BLOCKS``, or one in the config folder."""
    named = os.environ.get("KERNELS_BLOCKS")
    if named:
        return Path(named).absolute()
    from platformdirs import user_config_path  # imported late: importing the package stays fast

    try:
        return user_config_path("cnn-kernels", appauthor=False) / "blocks.json"
    except RuntimeError:  # there is no home folder
        return None


def keep(register_bytes: int, sizes: dict[str, int]) -> Path:
    """Write sizes that were measured on this machine to the user's table, and return its file.

    Raises
    ------
    KernelError
        If there is no folder for it, or the file is not such a table.
    """
    path = table_path()
    if path is None:
        raise KernelError("KERNELS_BLOCKS: is not set, and there is no home folder for the table")
    table = _table(path) | {machine(register_bytes): sizes}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(table, indent=1) + "\n")
    return path


def _table(path: Path | None) -> dict[str, dict[str, int]]:
    """Return the sizes of each machine in a file; none if there is no file."""
    if path is None or not path.exists():
        return {}
    try:
        table: Any = json.loads(path.read_text())
        ok = all(
            name in Blocks._fields and type(size) is int and size > 0
            for sizes in table.values()
            for name, size in sizes.items()
        )
    except (OSError, ValueError, AttributeError) as error:
        raise KernelError(f"{path} is not a table of blocks: {error}") from error
    if not ok:
        names = ", ".join(Blocks._fields)
        raise KernelError(
            f"{path}: got {table}, expected for each machine positive whole numbers named {names}"
        )
    for sizes in table.values():
        if sizes.get("BK", _LEAST_BK) < _LEAST_BK:
            raise KernelError(f"{path}: BK: got {sizes['BK']}, expected at least {_LEAST_BK}")
    return dict(table)
