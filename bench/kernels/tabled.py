"""Rows of the functions in the table of `tests.cases`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.kernels import contenders
from bench.kernels.contenders import OURS, Contender, Work, host
from bench.peers import naive, numpy_calls
from tests.cases.case import Call, Case, flat

#: PyTorch's memory formats of images.
FORMATS = {"PyTorch": "contiguous", "PyTorch channels_last": "channels_last"}
#: With more operations, naive NumPy takes a second and more, and naive CuPy's array of all products
#: takes 4 GB.
NAIVE_OPERATIONS = {"cpu": 5e8, "cuda": 2e9}

Options = dict[str, Any]


def prepare(
    case: Case,
    target: Any,
    *,
    dtype: Any = np.float32,
    less: Options | None = None,
    of_peers: Options | None = None,
    **sizes: Any,
) -> Work:
    """Prepare a case's row.

    Every argument is read once, or twice where the case says so; every result is written once.

    Parameters
    ----------
    dtype : dtype
        The type of floating arrays.
    less : dict, optional
        Options with which the call does a part of its work, whose time is to be subtracted.
    of_peers : dict, optional
        More options of the peers.
    """
    numpy_calls.xp = naive.xp = np if target.name == "cpu" else __import__("cupy")
    call = case.call(sizes)
    written = case.expected(call, dtype)
    options = call.options | (of_peers or {})
    operations = case.operations(**sizes) if case.operations else 0

    def contender(function: Callable[..., Any], options: Options) -> Contender:
        given = call.arguments(target, dtype)  # of its own: some are updated

        def read(result: Any) -> list[np.ndarray]:
            updated = [given[name] for name in call.in_place]
            return [host(value).copy() for value in (*flat(result), *updated)][: case.results]

        return Contender(lambda **more: function(**given, **options, **more), read)

    ours = contender(case.function, call.options)
    if less:
        ours = ours._replace(less=lambda: ours.run(**less))
    library = "NumPy" if target.name == "cpu" else "CuPy"
    # Those of numpy_calls call BLAS where it can be counted (tests/gpu/cublas.py).
    of_arrays = getattr(numpy_calls, case.name, None) or case.numpy or case.oracle
    found = {OURS: ours, library: contender(of_arrays, options)}
    if naive_operations(case.name, operations, sizes) <= NAIVE_OPERATIONS[target.name]:
        naively = naive_call(case.name, call.arguments(target, dtype), options)
        if naively is not None:
            found[f"naive {library}"] = Contender(naively, found[library].read)
    found |= of_pytorch(case, target, call, options, dtype)
    arrays = call.cast(dtype)
    moved = sum(array.nbytes for array in arrays.values())
    moved += sum(arrays[name].nbytes for name in case.read_twice)
    size = np.dtype(dtype).itemsize
    moved += sum(size * r.size if r.dtype == np.float64 else r.nbytes for r in written)
    return Work(moved, written[: case.results], found, operations)


def naive_operations(name: str, operations: int, sizes: dict[str, int]) -> int:
    """Return those of the naive network, which multiplies by the Jacobian of softmax."""
    of_softmax = name in ("softmax_backward", "softmax_cross_entropy")
    return 2 * sizes["N"] * sizes["C"] ** 2 if of_softmax else operations


def naive_call(name: str, given: dict[str, Any], options: Options) -> Callable[[], Any] | None:
    """Return the naive network's call, if it has one: it pools windows side by side alone."""
    function = getattr(naive, name, None)
    if function is None:
        return None
    if "kernel" not in options:
        return lambda: function(*given.values(), **options)
    size = options["kernel"]
    if options.get("stride", size) != size or options.get("padding"):
        return None
    if "argmax" not in given:
        return lambda: function(given["x"], size)
    mask = naive.mask(given["argmax"], size)
    return lambda: function(given["dy"], mask)


def of_pytorch(
    case: Case, target: Any, call: Call, options: Options, dtype: Any
) -> dict[str, Contender]:
    """Return PyTorch's calls, of images in both memory formats; none if it is not installed."""
    torch = contenders.torch
    if torch is None:
        return {}
    found = {}
    for name, layout in (FORMATS if case.images else {"PyTorch": "channels_last"}).items():

        def peer(layout: str = layout) -> Contender:
            return Contender(*case.peer(torch, call.arguments(target, dtype), options, layout))

        found[name] = peer()
        if target.name != "cpu":
            eager = peer()
            found[f"{name}, compiled"] = eager._replace(run=torch.compile(eager.run))
    return found
