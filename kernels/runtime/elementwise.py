"""Elementwise kernels: one expression; a `cupy.ElementwiseKernel` on `cuda`, a loop on `cpu`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .program import C_TYPES
from .recording import current
from .source import Source
from .target import Target
from .types import Array

#: How many arrays of partial sums a launch takes; see ``common/pending.cuh``.
SEGMENTS = 8
#: CuPy's kernels, by ours and the type A.
_CUDA: dict[tuple[Elementwise, str], Any] = {}


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
        C++ statements that assign the outputs. Compute in A, as in ``T(exp(A(x)))``, and use no
        words of the dialect: outside recordings CuPy compiles the statements, without its headers.
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
        self.name = name
        statement = f"{_names(outputs)[0][1]} = {operation};" if new else operation
        self._declared = (inputs, scalars, outputs, statement)
        lines = ['#include "dialect/dialect.cuh"', "using A = acc_t;"]
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
        # A CuPy kernel's launch cannot be recorded, nor take a table.
        if target.name != "cuda" or current() is not None or table:
            entry = _of_table(self.name) if table else self.name
            kernel = self._source.kernel(entry, target, dtype, **types)
            flat = [part for a in arguments for part in (a if isinstance(a, Table) else (a,))]
            kernel(target.stride_grid(last.size), target.threads, last.size, *flat)
            return
        wide = "float64" if dtype == np.float64 else "float32"
        if (self, wide) not in _CUDA:
            _CUDA[self, wide] = self._elementwise_kernel(wide)
        with last.device:
            _CUDA[self, wide](*arguments)

    def _elementwise_kernel(self, wide: str) -> Any:
        """Return CuPy's kernel for one type A, which CuPy cannot infer from scalars."""
        import cupy

        inputs, scalars, outputs, operation = self._declared
        numbers = [f"{wide if kind == 'A' else kind} {name}" for kind, name in _names(scalars)]
        declared = ", ".join([inputs.replace("raw A ", f"raw {wide} "), *numbers])
        preamble = f"using A = {C_TYPES[wide][0]};"
        return cupy.ElementwiseKernel(declared, outputs, operation, self.name, preamble=preamble)


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
    """Return the CUDA C++ lines of a grid-stride loop around the expression."""
    numbers = _names(scalars)
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
    parameters += [f"{t} *__restrict__ {n}_" for t, n in _names(outputs)]
    of_row = f"rows[step[0] * {len(numbers)} + "
    values = [f"const {t} {n} = {t}({of_row}{i}]);" for i, (t, n) in enumerate(numbers) if table]
    sources = {n: f"summed({n}_, i, segments, {{{', '.join(parts)}}})" for n in [summed]}
    elements = [f"const {t} {n} = {sources.get(n, f'{n}_[i]')};" for t, n in arrays]
    if new:
        kind, result = _names(outputs)[0]
        narrower = (
            "(sizeof(T) > sizeof(U) ? sizeof(T) / sizeof(U) : 1)"
            if "U" in {kind for kind, _ in arrays}
            else "1"
        )
        begin, end = f"write_each<{narrower}>({result}_, count, [=](int64 i) {{", "});"
        operation = f"return {kind}({operation});"
    else:
        begin, end = "GRID_STRIDE(i, count) {", "}"
        elements += [f"{t} &{n} = {n}_[i];" for t, n in _names(outputs)]
    return [
        f"KERNEL {name}({', '.join(parameters)}) {{",
        *(f"    {line}" for line in values),
        f"    {begin}",
        *(f"        {line}" for line in [*elements, operation]),
        f"    {end}",
        "}",
    ]
