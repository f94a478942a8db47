"""Which files the kernels of each test are made of: a pytest plugin, ``-p launched``.

At its end it writes {test: [file inside `kernels`, ...]} as JSON to the path in ``$LAUNCHED``.
"""

from __future__ import annotations

import json
import os
import re
from functools import cache
from pathlib import Path

import pytest

from kernels.runtime.source import PACKAGE, Source

_files: dict[str, set[str]] = {}
_test = ""
_kernel = Source.kernel


def _noted(source, *arguments, **constants):
    _files.setdefault(_test, set()).update(_parts(source))
    return _kernel(source, *arguments, **constants)


@cache
def _parts(source: Source) -> list[str]:
    return re.findall(rf'^#line 1 "{PACKAGE.name}/([^"]+)"$', source.text, re.MULTILINE)


def pytest_configure() -> None:
    Source.kernel = _noted


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    global _test
    _test = item.nodeid


def pytest_sessionfinish() -> None:
    found = {test: sorted(files) for test, files in _files.items() if test}
    Path(os.environ["LAUNCHED"]).write_text(json.dumps(found))
