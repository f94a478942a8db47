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
    torch_calls,
)
from bench.peers import naive, numpy_calls
from tests.cases.case import Case, flat

#: PyTorch's memory formats of images.
FORMATS = {"PyTorch": "contiguous", "PyTorch channels_last": "channels_last"}


#: With more operations, naive NumPy takes a second and more, and naive CuPy's array of all products
#: takes 4 GB.
NAIVE_OPERATIONS = {"cpu": 5e8, "cuda": 2e9}


def prepare(
    case: Case,
    arrays: Arrays,
    *,
    less: dict[str, Any] | None = None,
    of_peers: dict[str, Any] | None = None,
    **sizes: Any,
) -> Work:
    """Prepare a case's row.

    Every argument is read once, or twice where the case says so; every result is written once.

    Parameters
    ----------
    less : dict, optional
        Options with which the call does a part of its work, whose time is to be subtracted.
    of_peers : dict, optional
        More options of the peers.
    """
    call = case.call(sizes)
    on_host, given = call.cast(np.float32), call.arguments(arrays.target, np.float32)
    options = call.options | (of_peers or {})
    written = case.expected(call, np.float32)
    expected = written[: case.results]

    def read(result: Any) -> list[np.ndarray]:
        return [host(value) for value in flat(result)[: case.results]]

    def ours(**changed: Any) -> Any:
        return case.function(**given, **(call.options | changed))

    # Those of numpy_calls call BLAS where it can be counted (tests/gpu/cublas.py).
    numpy = getattr(numpy_calls, case.name, None) or case.numpy or case.oracle
    naively = getattr(naive, case.name, None)
    operations = case.operations(**sizes) if case.operations else 0
    by_jacobian = 2 * sizes["N"] * sizes["C"] ** 2 if case.name == "softmax_backward" else 0
    if max(operations, by_jacobian) > NAIVE_OPERATIONS[arrays.target.name]:
        naively = None  # it would take seconds, or gigabytes
    found = contenders(
        arrays,
        Contender(ours, read, less and (lambda: ours(**less))),
        Contender(lambda: numpy(**given, **options), read),
        {
            name: lambda layout=layout: case.peer(torch_calls.torch, given, options, layout)
            for name, layout in (FORMATS if case.images else {"PyTorch": ""}).items()
        },
        naively and (lambda: naively(*given.values(), **options)),
    )
    twice = [on_host[name] for name in case.read_twice]
    moved = sum(array.nbytes for array in (*on_host.values(), *twice))
    moved += sum(4 * r.size if r.dtype == np.float64 else r.nbytes for r in written)
    return Work(moved, expected, found, operations)
