"""The table of the kernel suite's rows: functions and sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import ml_dtypes
import numpy as np

from bench.kernels import gradients, tabled
from bench.kernels.contenders import Row
from tests.cases import CASES

#: The types of 16 bits, by the precision in which tensor cores multiply them.
NARROW = {"bf16": np.dtype(ml_dtypes.bfloat16), "fp16": np.dtype(np.float16)}
#: Channels and filters, or inputs and outputs, of which products can fill tensor cores: so many,
#: and in whole copies of 16 bytes.
MANY, WHOLE = 64, 8
#: Fewer images than this make too few tiles for all multiprocessors: these rows are there twice.
ENOUGH = 64


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


def narrow_rows(precision: str) -> Iterator[Row]:
    """Yield rows of products of 16-bit arrays with many channels, both gradients in one row."""
    dtype = NARROW[precision]
    for case in CASES.values():
        for shape, sizes in case.timed.items():
            channels = [sizes[key] for key in ("C", "F", "inputs", "outputs") if key in sizes]
            if not case.operations or any(n < MANY or n % WHOLE for n in channels):
                continue
            prepare = partial(tabled.prepare, case, dtype=dtype)
            yield Row(case.row, f"{shape}, {precision}", "arithmetic", prepare, sizes)
            if sizes["N"] < ENOUGH:
                name = f"{shape}, {ENOUGH} images, {precision}"
                yield Row(case.row, name, "arithmetic", prepare, {**sizes, "N": ENOUGH})
