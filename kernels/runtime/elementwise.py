"""Elementwise kernels: one expression over the elements of arrays of one shape."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .source import Source
from .target import Target
from .types import Array

#: How many arrays of partial sums a launch takes; see ``common/pending.cuh``.
SEGMENTS = 8
_VECTOR = 16  # bytes that a thread takes at once on cuda; see ``common/elements.cuh``


class Table(NamedTuple):
    """The scalars of the next steps of a training, on the device; a launch reads its step's row.

    Attributes
    ----------
    rows : array (steps, scalars)
        float64 for kernels of float64, else float32.
    step : array (1,) of int64
        Index of the row; the caller ensures that it is in range.
    """

    rows: Array
    step: Array


class Elementwise:
    """An expression over arrays of one shape, written in `cupy.ElementwiseKernel`'s terms.

    Parameters
    ----------
    name : str
        Name of the kernel.
    inputs, outputs : str
        Declarations such as ``"T x, T y"``. T is the dtype of the call. Outputs may be read, too.
        The last input may be ``"raw A x"``, an array of another shape that the expression indexes.
    scalars : str
        Declarations of inputs that are numbers. A is the type of the arithmetic: double if T is,
        else float.
    operation : str
        C++ statements that assign the outputs. Compute in A, as in ``T(exp(A(x)))``.
    table : bool
        Whether a call may pass a `Table` in place of the scalars.
    new : bool
        Whether the one output is only written; `operation` is then an expression.
    summed : str
        Name of an input that may be partial sums where a call passes a `Table`: see
        ``common/pending.cuh``. The arguments for that come before all others.
    **types
        Element types in the declarations besides T, by name.
    """

    def __init__(
        self,
        name: str,
        inputs: str,
        outputs: str,
        operation: str,
        scalars: str = "",
        table: bool = False,
        new: bool = False,
        summed: str = "",
        **types: Any,
    ) -> None:
        self.name, self._summed = name, summed
        lines = ['#include "common/elements.cuh"', "using A = acc_t;"]
        lines += [f"using {t} = TYPE_{t};" for t in types]
        if summed:
            lines.insert(1, '#include "common/pending.cuh"')
        lines += _loop(name, inputs, outputs, scalars, operation, new=new)
        if table:
            declared = (_of_table(name), inputs, outputs, scalars, operation)
            lines += _loop(*declared, table=True, summed=summed)
        self._source = Source(f"elementwise/{name}", "\n".join(lines), **types)

    def __call__(self, target: Target, dtype: Any, *arguments: Any, **types: Any) -> None:
        """Run on inputs, scalars and outputs, in the order of their declarations."""
        last: Array = arguments[-1]
        table = any(isinstance(value, Table) for value in arguments)
        entry = _of_table(self.name) if table else self.name
        kernel = self._source.kernel(entry, target, dtype, **types)
        flat = [part for a in arguments for part in (a if isinstance(a, Table) else (a,))]
        by_element = target.in_lanes or (table and self._summed)
        largest = max(np.dtype(kind).itemsize for kind in (dtype, *types.values()))
        threads = last.size if by_element else -(-last.size // (_VECTOR // largest))
        kernel(target.stride_grid(threads), target.threads, last.size, *flat)


def _names(declarations: str) -> list[tuple[str, str]]:
    """Return the (type, name) pairs of "T x, T y"."""
    parts = [declaration.rsplit(maxsplit=1) for declaration in declarations.split(",")]
    return [(part[0].strip(), part[1]) for part in parts if part]


def _of_table(name: str) -> str:
    return f"{name}_of_table"


def _loop(
    name: str,
    inputs: str,
    outputs: str,
    scalars: str,
    operation: str,
    *,
    table: bool = False,
    new: bool = False,
    summed: str = "",
) -> list[str]:
    """Return the CUDA C++ lines of a kernel that loops over the elements."""
    numbers, written = _names(scalars), _names(outputs)
    arrays = [(kind, name) for kind, name in _names(inputs) if kind != "raw A"]
    parameters, parts = ["int64 count"], [f"parts{i}" for i in range(SEGMENTS)]
    if summed:
        parameters.append("const int *__restrict__ segments")
        parameters += [f"const acc_t *__restrict__ {part}" for part in parts]
    parameters += [f"{'const ' * (n != summed)}{t} *__restrict__ {n}_" for t, n in arrays]
    parameters += [f"const acc_t *__restrict__ {n}" for t, n in _names(inputs) if t == "raw A"]
    if table:
        parameters += ["const acc_t *__restrict__ rows", "const int64 *__restrict__ step"]
    else:
        parameters += [f"{'acc_t' if t == 'A' else t} {n}" for t, n in numbers]
    parameters += [f"{t} *__restrict__ {n}_" for t, n in written]
    of_row = f"rows[step[0] * {len(numbers)} + "
    values = [f"const {t} {n} = {t}({of_row}{i}]);" for i, (t, n) in enumerate(numbers) if table]
    if summed:  # by its index
        sources = {summed: f"summed({summed}_, i, segments, {{{', '.join(parts)}}})"}
        elements = [f"const {t} {n} = {sources.get(n, f'{n}_[i]')};" for t, n in arrays]
        elements += [f"{t} &{n} = {n}_[i];" for t, n in written]
        begin, end = "GRID_STRIDE(i, count) {", "}"
    elif new:
        ((kind, _),) = written
        of = ", ".join(f"{t} {n}" for t, n in arrays)
        given = ", ".join(f"{n}_" for _, n in [*written, *arrays])
        begin, end = f"write_elements(count, [=]({of}) {{", f"}}, {given});"
        elements, operation = [], f"return {kind}({operation});"
    else:
        of = ", ".join([*(f"{t} {n}" for t, n in arrays), *(f"{t} &{n}" for t, n in written)])
        given = ", ".join(f"{n}_" for _, n in [*arrays, *written])
        begin, end = f"for_elements(count, [=]({of}) {{", f"}}, {given});"
        elements = []
    return [
        f"KERNEL {name}({', '.join(parameters)}) {{",
        *(f"    {line}" for line in values),
        f"    {begin}",
        *(f"        {line}" for line in [*elements, operation]),
        f"    {end}",
        "}",
    ]
