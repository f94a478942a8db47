"""What one part finds, kept in a file from its first word on: a part may be ended at any moment."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

#: The environment variable that names the file.
VARIABLE = "GPU_LANE_REPORT"


class Report:
    """A JSON object in a file, written anew with every change.

    Parameters
    ----------
    path : Path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.found: dict[str, Any] = {}

    def note(self, **found: Any) -> None:
        """Set entries."""
        self.found |= found
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(self.found))
        new.replace(self._path)

    def add(self, name: str, value: Any) -> None:
        """Append to the list in an entry."""
        self.note(**{name: [*self.found.get(name, []), value]})

    def problem(self, sentence: str) -> None:
        """Tell why the part fails; there may be several reasons."""
        print(sentence, flush=True)
        self.add("problems", sentence)

    @property
    def status(self) -> int:
        """The exit status: 1 if there was a problem."""
        return int("problems" in self.found)


def of_this_part() -> Report:
    """Return the report that the lane gave this process."""
    return Report(Path(os.environ[VARIABLE]))


def read(path: Path) -> dict[str, Any]:
    """Return what a part has written so far."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found
