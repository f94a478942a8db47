"""Coverage of kernels: which entry point ran on which target with which element type.

A pytest plugin. A run of the whole suite prints the number of cells (entry point x target x dtype)
and fails if one listed in `tests/README.md` was not reached; `make cells` writes that table.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kernels.lowlevel  # noqa: F401  (defines sources that `kernels` alone leaves out)
from kernels.runtime.recording import Rehearsal, current
from kernels.runtime.source import Source

README = Path(__file__).parents[1] / "README.md"
START, END = "<!-- cells: made by `make cells` -->", "<!-- end of cells -->"
TARGETS = ("cpu", "cuda")

Cell = tuple[str, str, str]  # entry point, target, dtype


class Cells:
    """Records every kernel that is fetched to be launched."""

    def __init__(self, write: bool) -> None:
        self.write = write
        self.reached: set[Cell] = set()
        self.missing: set[Cell] = set()
        self.shipped = {entry for source in Source.all for entry in source.entries}
        self._original = Source.kernel

    def start(self) -> None:
        """Record from now on."""
        reached, shipped, original = self.reached, self.shipped, self._original

        def kernel(self, entry, target, dtype, **constants):
            if entry in shipped and not isinstance(current(), Rehearsal):
                reached.add((entry, target.name, np.dtype(dtype).name))
            return original(self, entry, target, dtype, **constants)

        Source.kernel = kernel

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Add what a process of pytest-xdist has reached to what this one has."""
        self.reached |= {tuple(cell) for cell in getattr(node, "workeroutput", {}).get("cells", ())}

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write the table, or compare with it after a whole and green run."""
        if hasattr(session.config, "workeroutput"):  # a process of pytest-xdist
            session.config.workeroutput["cells"] = sorted(self.reached)
            return
        if self.write:
            README.write_text(with_table(README.read_text(), self.reached))
        if is_whole(session.config) and exitstatus == 0 and not self.write:
            ran = {target for _, target, _ in self.reached}
            listed = cells_in(README.read_text())
            required = {cell for cell in listed if cell[1] != "cuda" or "cuda" in ran}
            self.missing = required - self.reached
            if self.missing:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the count, and what is missing."""
        terminalreporter.write_line(f"{len(self.reached)} cells (entry point x target x dtype)")
        for cell in sorted(self.missing):
            terminalreporter.write_line(f"FAILED cell not covered: {', '.join(cell)}", red=True)


def is_whole(config: pytest.Config) -> bool:
    """Whether all tests of the suite were selected, with or without the slow ones."""
    options = config.option
    marked = options.markexpr not in ("", "not slow", "slow or not slow")
    narrowed = marked or options.keyword or options.deselect or options.maxfail
    return not narrowed and config.args == config.getini("testpaths")


def with_table(text: str, cells: set[Cell]) -> str:
    """Return a text with the table between its markers replaced."""
    before, rest = text.split(START)
    return before + START + "\n\n" + table(cells) + "\n" + END + rest.split(END)[1]


def table(cells: set[Cell]) -> str:
    """Return a Markdown table of the cells, a row an entry point."""
    lines = ["| entry point | " + " | ".join(TARGETS) + " |", "| --- |" + " --- |" * len(TARGETS)]
    for entry in sorted({entry for entry, _, _ in cells}):
        columns = [
            " ".join(sorted(dtype for e, t, dtype in cells if (e, t) == (entry, target)))
            for target in TARGETS
        ]
        lines.append(f"| `{entry}` | " + " | ".join(columns) + " |")
    return "\n".join([*lines, "", f"{len(cells)} cells.", ""])


def cells_in(text: str) -> set[Cell]:
    """Return the cells of a table that `table` made."""
    found = set()
    for entry, *columns in re.findall(r"^\| `(\w+)` \|(.*)\|(.*)\|$", text, re.MULTILINE):
        for target, column in zip(TARGETS, columns, strict=True):
            found |= {(entry, target, dtype) for dtype in column.split()}
    return found
