"""Reading a run's history.jsonl, its loss curve; see `runs`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from . import checks

# What `plots.curves` reads of each event: counts, and values, which are null if not finite.
_COUNTS = {"steps": ("images",), "epoch": ("epoch",)}
_VALUES = {"steps": ("loss", "learning_rate"), "epoch": ("validation_loss", "validation_accuracy")}


def read(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a loss curve.

    Raises
    ------
    ValueError
        If a line is not one that `Run` writes.
    OSError
        If the file cannot be read.
    """
    lines = path.read_bytes().splitlines()
    return [_event(f"{path}: line {number}", line) for number, line in enumerate(lines, 1)]


def _event(place: str, line: bytes) -> dict[str, Any]:
    """Return the event of a line; errors begin with its place."""
    try:
        event = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"{place} is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{place} is not JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a number of too many digits, too many brackets
        raise ValueError(f"{place} is not a line of a loss curve: {error}") from error
    if not isinstance(event, dict):
        raise ValueError(f"{place}: got {checks.shown(event)}, expected a JSON object")
    kind = event.get("event")
    if not isinstance(kind, str) or kind not in _COUNTS:
        expected = " or ".join(map(repr, _COUNTS))
        raise ValueError(f"{place}: event: got {checks.shown(kind)}, expected {expected}")
    for name in (*_COUNTS[kind], *_VALUES[kind]):
        value, or_null = event.get(name), name in _VALUES[kind]
        finite = isinstance(value, (int, float)) and abs(value) <= sys.float_info.max
        if isinstance(value, bool) or not (finite or (value is None and or_null)):
            expected = "a number or null" if or_null else "a number"
            raise ValueError(f"{place}: {name}: got {checks.shown(value)}, expected {expected}")
    return event
