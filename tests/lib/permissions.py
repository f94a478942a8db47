"""Running code as a user who is subject to permissions, which an administrator is not."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def folder() -> Iterator[Path]:
    """Yield an empty folder that everybody may enter (pytest's own may not be), and remove it."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o777)
    try:
        yield made
    finally:
        for path, _, _ in os.walk(made):
            os.chmod(path, 0o777)
        shutil.rmtree(made)


@contextmanager
def held_back() -> Iterator[None]:
    """Run as a user without special rights if an administrator runs the tests."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(12345)
    try:
        yield
    finally:
        if user == 0:
            os.seteuid(0)
