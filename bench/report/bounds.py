"""Lower bounds on the times of rows, from what the emulated GPU counted (`make profile`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.gpu import gpus
from tests.gpu.bound import bound
from tests.gpu.profile import counts


def bounds(machine: dict[str, str], results: Path) -> dict[str, float]:
    """Return seconds by rows' names, if there is a profile for this machine's GPU.

    Rows that were counted with smaller sizes are left out.
    """
    known = gpus.of_device(machine.get("GPU", "").partition(",")[0])
    if known is None:
        return {}
    gpu, counted_as = known
    path = results / f"profile-{counted_as}.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    found = {row["row"]: _seconds(row, gpu) for row in rows if "scaled" not in row}
    for name in [name for name in found if "input gradient" in name]:
        # It was counted with the other gradients, whose time the benchmark subtracts.
        found[name] -= found[name.replace("input", "weight")]
    return found


def _seconds(row: dict[str, Any], gpu: gpus.Gpu) -> float:
    """Return the sum of the launches' bounds: each waits for the one before."""
    return sum(bound(launch, gpu).seconds for launch in counts(row)["launches"])
