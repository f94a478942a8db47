"""The table of the kernel suite's rows: functions and sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from bench.kernels import products, streams, tabled
from bench.kernels.contenders import Row
from tests.cases import CASES


def rows(smoke: bool = False) -> Iterator[Row]:
    """Yield every row; with `smoke`, with batches of two and few elements."""
    batch = (lambda n: 2) if smoke else (lambda n: n)
    count = (lambda n: 1000) if smoke else (lambda n: n)
    for row in tabled_rows():
        few = {"N": batch, "count": count}
        sizes = {key: few[key](size) if key in few else size for key, size in row.sizes.items()}
        yield replace(row, sizes=sizes)
    many = 2**24
    for name, shape, prepare, elements in (
        ("sgd", "speedrun", streams.sgd, 215_194),
        ("sgd", "16M", streams.sgd, many),
        ("adam", "speedrun", streams.adam, 215_194),
        ("adam", "16M", streams.adam, many),
    ):
        yield Row(name, shape, "memory", prepare, {"count": count(elements)})
    digits = {"H": 28, "W": 28}
    yield Row(
        "normalize", "16384 digits", "memory", streams.normalize, {"N": batch(16384), **digits}
    )
    yield Row(
        "affine_warp", "1024 digits", "memory", streams.affine_warp, {"N": batch(1024), **digits}
    )


def tabled_rows() -> Iterator[Row]:
    """Yield those of the table of cases, in its order."""
    for case in CASES.values():
        if case.name == "conv2d_backward":
            yield from products.rows()
            continue
        bound = "memory" if case.operations is None else "arithmetic"
        for shape, sizes in case.timed.items():
            yield Row(case.row, shape, bound, partial(tabled.prepare, case), sizes)
