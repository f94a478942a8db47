"""What pytest does for the emulated GPU: turns it on, and gives every test a sound device."""

from __future__ import annotations

import functools
import os
from typing import Any

import pytest

from . import device

device.turn_on()  # now: a conftest may be the first to import CuPy

# pytest's workers share the cores.
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
os.environ.setdefault("EMULATED_GPU_THREADS", str(max(1, len(os.sched_getaffinity(0)) // _WORKERS)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Any:
    examples = getattr(getattr(item, "obj", None), "hypothesis", None)
    if examples is not None:
        examples.inner_test = _on_a_fresh_device(examples.inner_test)
    return (yield)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    device.fresh()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reason = device.missing()
    if reason is not None:
        skipped = terminalreporter.stats.get("skipped", [])
        count = sum(reason in str(report.longrepr) for report in skipped)
        terminalreporter.write_line(f"{count} tests of cuda were left out: {reason}")


def _on_a_fresh_device(test: Any) -> Any:
    """Clear the fault of an example before Hypothesis tries the next one."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> Any:
        device.fresh()
        return test(*arguments, **named)

    return run
