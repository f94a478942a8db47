"""Lower bounds on the time of a launch on a GPU. They are computed from counts, not measured.

Instructions that ptxas may remove, merge or hoist (integer arithmetic, moves, comparisons,
branches) are counted, but are in no bound; neither is waiting. Accesses to shared memory count as
if ptxas merged all with neighbouring addresses, as it does where it can.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .gpus import Gpu

LANES, SECTOR = 32, 32

#: Seconds from one launch to the next in a graph, which waits for it. The shortest time published
#: is 0.6 us.
LAUNCH = 0.5e-6


class Bound(NamedTuple):
    """A lower bound in seconds, and what it comes from."""

    seconds: float
    by: str
    parts: dict[str, float]  # seconds, by resource


class Residence(NamedTuple):
    """How a launch's blocks are distributed over the multiprocessors."""

    occupancy: float  # resident warps as a share of the most possible
    waves: float  # rounds of resident blocks on all multiprocessors
    tail: float  # the share of the last wave that is empty


def residence(launch: Mapping[str, Any], gpu: Gpu) -> Residence:
    """Return how the blocks of a counted launch are distributed.

    Parameters
    ----------
    launch : mapping
        One of the launches that `device.counting` gives, counted on this GPU.
    gpu : Gpu
        The GPU.
    """
    warps = -(-math.prod(launch["block"]) // LANES)
    waves = math.prod(launch["grid"]) / (launch["resident"] * gpu.multiprocessors)
    return Residence(launch["resident"] * warps / gpu.warps, waves, math.ceil(waves) - waves)


def bound(launch: Mapping[str, Any], gpu: Gpu, cold: bool = False) -> Bound:
    """Return the bound of a counted launch.

    Parameters
    ----------
    launch : mapping
        One of the launches that `device.counting` gives.
    gpu : Gpu
        The GPU.
    cold : bool
        Whether L2 holds nothing that is read; otherwise it holds as much as fits. Data that is
        written may stay in L2.
    """
    read, written = launch["bytes"]["read"], launch["bytes"]["written"]
    clocks = {**_arithmetic(launch, gpu), **_memory(launch, gpu)}
    clocks["longest warp"] = launch["longest_warp"]
    parts = {name: count / gpu.clock for name, count in clocks.items()}
    parts["dram"] = _dram(read, written, gpu, cold)
    parts["launch"] = LAUNCH
    return _largest(parts)


def bound_of_all(counted: Mapping[str, Any], gpu: Gpu) -> Bound:
    """Return the bound of launches that each wait for the one before, such as a step's.

    Parameters
    ----------
    counted : mapping
        What `device.counting` gives.
    gpu : Gpu
        The GPU.

    Returns
    -------
    Bound
        Its parts are sums of the launches' bounds, by what each comes from; DRAM's is that of the
        distinct bytes of all launches, with as much as possible in L2 before and after.
    """
    parts: dict[str, float] = {}
    for launch in counted["launches"]:
        one = bound(launch, gpu)
        parts[one.by] = parts.get(one.by, 0.0) + one.seconds
    total = counted["bytes"]
    dram = _dram(total["read"], total["written"], gpu, cold=False)
    seconds = max(sum(parts.values()), dram)
    by = max(parts, key=lambda name: parts[name]) if seconds > dram else "dram"
    return Bound(seconds, by, parts)


def _contracted(figures: Mapping[str, int]) -> int:
    """Return the least number of instructions for adds and muls: two may become one fma."""
    return max(figures["add32"], figures["mul32"])


def _arithmetic(launch: Mapping[str, Any], gpu: Gpu) -> dict[str, float]:
    """Return the clocks of each pipe of the busiest multiprocessor."""

    def clocks(of: Any) -> float:
        return _busiest(launch, gpu, of)

    return {
        "issue": clocks(lambda f: (f["lasting"] + _contracted(f)) / gpu.issue),
        "float32": clocks(lambda f: (f["fma32"] + _contracted(f)) * LANES / gpu.float32),
        "float64": clocks(lambda f: f["double_operations"] / 2 / gpu.float64),
        "half": clocks(lambda f: f["half_operations"] / 2 / gpu.half),
        "special": clocks(lambda f: f["special_operations"] / gpu.special),
        "tensor": _tensor(launch["tensor"], gpu) / gpu.multiprocessors,
    }


def _memory(launch: Mapping[str, Any], gpu: Gpu) -> dict[str, float]:
    """Return the clocks of L1, shared memory and L2."""
    figures = launch["all"]
    cached = figures["global_load_sectors"] - figures["uncached_sectors"]
    # A sector that was loaded before may be in L1.
    loaded = max(launch["bytes"]["read"], figures["uncached_sectors"] * SECTOR)
    stored = (figures["global_store_sectors"] + figures["atomic_sectors"]) * SECTOR
    l2 = min(gpu.l2, gpu.port * gpu.multiprocessors)
    return {
        "shared": _busiest(launch, gpu, lambda f: f["shared_least"]),
        # One warp instruction a clock, be it that all lanes load one word.
        "l1": max(cached * SECTOR / gpu.l1, figures["global_load_requests"]) / gpu.multiprocessors,
        "l2": max(loaded, stored) / l2,  # both ways at once
    }


def _busiest(launch: Mapping[str, Any], gpu: Gpu, of: Any) -> float:
    """Return the least amount of something the busiest multiprocessor has, given the blocks'."""
    blocks = math.prod(launch["grid"])
    rounds = -(-blocks // gpu.multiprocessors)
    return max(of(launch["all"]) / gpu.multiprocessors, rounds * of(launch["least"]))


def _tensor(products: Mapping[str, int], gpu: Gpu) -> float:
    """Return the clocks of a multiprocessor that had all of a launch's mma."""
    clocks = 0.0
    for name, count in products.items():
        shape, sums, factors, *_ = name.split(".")
        m, n, k = map(int, re.findall(r"\d+", shape))
        kind = "f16.f16" if sums == factors == "f16" else factors.replace("u8", "s8")
        if kind in gpu.tensor:  # otherwise the kernel does not run there
            clocks += count * m * n * k / gpu.tensor[kind]
    return clocks


def _dram(read: int, written: int, gpu: Gpu, cold: bool) -> float:
    held = 0 if cold else gpu.l2_bytes
    return (max(0, read - held) + max(0, written - gpu.l2_bytes)) / gpu.dram


def _largest(parts: dict[str, float]) -> Bound:
    by = max(parts, key=lambda name: parts[name])
    return Bound(parts[by], by, parts)


def share(figures: Mapping[str, int], names: Sequence[str]) -> float:
    """Return the share of some classes among all warp instructions."""
    return sum(figures[name] for name in names) / max(1, instructions(figures))


def instructions(figures: Mapping[str, int]) -> int:
    """Return all warp instructions of the PTX."""
    classes = list(figures)[: list(figures).index("lasting")]
    return sum(figures[name] for name in classes)


#: The instructions that the assembler makes of a division, or remainder, by an integer that is no
#: constant. NVRTC divides 64 bits as 32 where both operands are that small.
DIVISIONS = {"division32": 20, "division64": 75}


def issued(figures: Mapping[str, int]) -> int:
    """Return the warp instructions to issue: those of the PTX, each division as what it becomes."""
    more = sum(figures[name] * (count - 1) for name, count in DIVISIONS.items())
    return instructions(figures) + more
