"""A pytest plugin that keeps the lane's report of the tests: `-p tests.gpu_lane.counts`."""

from __future__ import annotations

import pytest

from .report import Report, of_this_part


def pytest_configure(config: pytest.Config) -> None:
    """Count, but not in the processes of pytest-xdist: they send results to their parent."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Counts(of_this_part()))


class _Counts:
    """Counts tests; one whose setting up or tearing down fails is a failed one."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._counts = {"passed": 0, "failed": 0, "skipped": 0}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self._counts[report.outcome] += 1
            self._report.note(**self._counts)
        if report.outcome == "failed":
            self._report.problem(f"{report.nodeid} failed")

    def pytest_sessionfinish(self) -> None:
        if not self._counts["passed"]:
            self._report.problem("no test ran")
