"""The table of the kernel suite's rows: functions and sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from bench.kernels import gradients, tabled
from bench.kernels.contenders import Row
from tests.cases import CASES


def rows(smoke: bool = False) -> Iterator[Row]:
    """Yield every row; with `smoke`, with batches of two and few elements."""
    few = {"N": 2, "count": 1000} if smoke else {}
    for row in _rows():
        yield replace(row, sizes={key: few.get(key, size) for key, size in row.sizes.items()})


def _rows() -> Iterator[Row]:
    for case in CASES.values():
        bound = "memory" if case.operations is None else "arithmetic"
        for shape, sizes in case.timed.items():
            if case.name == "conv2d_backward":
                yield from gradients.rows(case, shape, sizes)
            else:
                yield Row(case.row, shape, bound, partial(tabled.prepare, case), sizes)
