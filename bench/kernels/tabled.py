"""Rows of the functions in the table of `tests.cases`."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.kernels.contenders import (
    Arrays,
    Contender,
    Work,
    contenders,
    host,
    size_of,
    torch_calls,
)
from bench.kernels.products import NAIVE_OPERATIONS
from bench.peers import naive, numpy_calls
from tests.cases.case import Case, flat


def prepare(case: Case, arrays: Arrays, **sizes: Any) -> Work:
    """Prepare a case's row: every argument is read once, every result is written once."""
    call = case.call(sizes)
    on_host, given = call.cast(np.float32), call.arguments(arrays.target, np.float32)
    written = case.expected(on_host)
    expected = written[: case.results]

    def read(result: Any) -> list[np.ndarray]:
        return [host(value) for value in flat(result)[: case.results]]

    operations = case.operations(**sizes) if case.operations else 0
    # Those of numpy_calls call BLAS where it can be counted (tests/gpu/cublas.py).
    numpy = getattr(numpy_calls, case.name, None) or case.numpy or case.oracle
    naively = getattr(naive, case.name, None)
    if operations > NAIVE_OPERATIONS[arrays.target.name]:
        naively = None  # it would take seconds
    found = contenders(
        arrays,
        Contender(lambda: case.function(**given, **case.options), read),
        Contender(lambda: numpy(**given, **case.options), read),
        {"PyTorch": lambda: peer(case, given)},
        naively and (lambda: naively(*given.values())),
    )
    moved = size_of(*on_host.values()) + sum(4 * result.size for result in written)
    return Work(moved, expected, found, operations)


def peer(case: Case, given: dict[str, Any]) -> tuple[Any, Any]:
    """Return PyTorch's call and how to read its result."""
    tensors = {name: torch_calls.tensor(array) for name, array in given.items()}
    return case.peer(torch_calls.torch, tensors), torch_calls.read
