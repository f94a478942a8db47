"""Rows of the functions in the table of `tests.cases`."""

from __future__ import annotations

from collections.abc import Callable
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
    operations = case.operations(**sizes) if case.operations else 0
    of_softmax = case.name in ("softmax_backward", "softmax_cross_entropy")
    by_jacobian = 2 * sizes["N"] * sizes["C"] ** 2 if of_softmax else 0
    few = max(operations, by_jacobian) <= NAIVE_OPERATIONS[arrays.target.name]
    naive_call = naively(case.name, given, options) if few else None
    found = contenders(
        arrays,
        Contender(ours, read, less and (lambda: ours(**less))),
        Contender(lambda: numpy(**given, **options), read),
        {
            name: lambda layout=layout: case.peer(torch_calls.torch, given, options, layout)
            for name, layout in (FORMATS if case.images else {"PyTorch": ""}).items()
        },
        naive_call and Contender(naive_call, read),
    )
    twice = [on_host[name] for name in case.read_twice]
    moved = sum(array.nbytes for array in (*on_host.values(), *twice))
    moved += sum(4 * r.size if r.dtype == np.float64 else r.nbytes for r in written)
    return Work(moved, expected, found, operations)


def naively(name: str, given: dict[str, Any], options: dict[str, Any]) -> Callable[[], Any] | None:
    """Return the naive network's call, if it has one."""
    function = getattr(naive, name, None)
    if function is None:
        return None
    if "kernel" not in options:
        return lambda: function(*given.values(), **options)
    size = options["kernel"]  # of a pool, whose windows lie side by side
    if options.get("stride", size) != size or options.get("padding"):
        return None
    if "argmax" not in given:
        return lambda: function(given["x"], size)
    mask = naive.mask(given["argmax"], size)
    return lambda: function(given["dy"], mask)
