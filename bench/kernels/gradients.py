"""The two gradients of a convolution, which are one case: a row for each, and one of both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from bench.kernels import tabled
from bench.kernels.contenders import Row, Work
from tests.cases.case import Case, Sizes


def rows(case: Case, shape: str, sizes: Sizes) -> Iterator[Row]:
    """Yield both; grey images are the network's input, and need no gradient."""
    yield Row("conv2d weight gradient", shape, "arithmetic", partial(weights, case), sizes)
    if sizes["C"] > 1:
        yield Row("conv2d input gradient", shape, "arithmetic", partial(images, case), sizes)


def both(case: Case, shape: str, sizes: Sizes) -> Row:
    """Return the row of both, which are one launch on a GPU: nothing can be subtracted there."""
    return Row(case.row, shape, "arithmetic", partial(tabled.prepare, case), sizes)


def weights(case: Case, target: Any, **sizes: Any) -> Work:
    """Without dx; dw is as large as w, which is not read."""
    case = replace(case, arguments=partial(case.arguments, need_dx=False))
    return of_one(tabled.prepare(case, target, **sizes), case, sizes)


def images(case: Case, target: Any, **sizes: Any) -> Work:
    """The time of dw and db is subtracted: older commits cannot give dx alone. x is not read."""
    case = replace(case, results=1)
    parts = {"less": {"need_dx": False}, "of_peers": {"need_dw": False, "need_db": False}}
    return of_one(tabled.prepare(case, target, **parts, **sizes), case, sizes)


def of_one(work: Work, case: Case, sizes: Sizes) -> Work:
    """Count one of the two products, which take as many operations, and dy, x and w as float32."""
    moved = sum(4 * array.size for array in case.call(sizes).arrays.values())
    return replace(work, bytes=moved, operations=work.operations // 2)
