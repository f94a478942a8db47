"""The pytest plugin for CuPy's own tests: skips those of `cupy_left_out`, and counts."""

from __future__ import annotations

import fnmatch
import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from .cupy_left_out import BY_MARK, BY_MESSAGE, BY_NAME

_passed = 0
_failed: list[str] = []
_left_out: Counter[str] = Counter()


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark, reason in BY_MARK.items():
        if item.get_closest_marker(mark) is not None:
            pytest.skip(reason)
    for reason, patterns in BY_NAME.items():
        for pattern in patterns:
            if fnmatch.fnmatchcase(item.nodeid, f"*cupy_tests/{pattern}"):
                pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    if report.failed:
        text = str(report.longrepr)
        for reason, message in BY_MESSAGE.items():
            if re.search(message, text):
                report.outcome = "skipped"
                report.longrepr = (str(item.path), 0, f"Skipped: {reason}")
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    global _passed
    expected = hasattr(report, "wasxfail")  # CuPy expects that it fails
    if report.failed:
        _failed.append(report.nodeid)
    elif report.skipped and not expected:
        _left_out[_reason(report.longrepr)] += 1
    elif report.when == "call":
        _passed += 1


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        _failed.append(report.nodeid)
    elif report.skipped:
        _left_out[_reason(report.longrepr)] += 1


def pytest_sessionfinish() -> None:
    found = {"passed": _passed, "failed": _failed, "left_out": _left_out}
    Path(os.environ["CUPY_SUITE_RESULT"]).write_text(json.dumps(found))


def _reason(skipped: Any) -> str:
    return skipped[2].removeprefix("Skipped: ") if isinstance(skipped, tuple) else str(skipped)
