"""The machine that executes PTX, for tests: modules, arrays and launches by its C interface."""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

import numpy as np

_POINTER = ctypes.c_void_p
_FAULT_KINDS = (
    "out_of_bounds",
    "misaligned",
    "host_pointer",
    "unwritten",
    "race",
    "barrier",
    "lanes",
    "early_read",
    "trap",
)


class MachineError(Exception):
    """PTX that cannot run, or a kernel's fault, whose kind is in `kind`."""

    def __init__(self, message: str, kind: str | None) -> None:
        super().__init__(message)
        self.kind = kind


class Machine:
    """One emulated GPU, of a model made for tests."""

    def __init__(self, library: str, host_threads: int = 1) -> None:
        self.host_threads = host_threads
        self._c = ctypes.CDLL(library)
        for name, result, arguments in (
            ("message", ctypes.c_char_p, []),
            ("fault_kind", ctypes.c_int, []),
            ("create", _POINTER, [ctypes.c_uint]),
            ("destroy", None, [_POINTER]),
            ("allocate", _POINTER, [_POINTER, ctypes.c_size_t]),
            ("free", ctypes.c_int, [_POINTER, _POINTER]),
            ("wrote", None, [_POINTER, _POINTER, ctypes.c_size_t]),
            ("parse", _POINTER, [_POINTER, ctypes.c_char_p]),
            ("unload", None, [_POINTER]),
            ("function", _POINTER, [_POINTER, ctypes.c_char_p]),
            ("parameters", ctypes.c_size_t, [_POINTER]),
            ("parameter_bytes", ctypes.c_uint32, [_POINTER, ctypes.c_size_t]),
            (
                "run",
                ctypes.c_int,
                [_POINTER, _POINTER, _POINTER, _POINTER, ctypes.c_uint32, _POINTER],
            ),
        ):
            function = getattr(self._c, f"machine_{name}")
            function.restype, function.argtypes = result, arguments
        self._machine = self._checked(self._c.machine_create(host_threads))
        # At exit, finalizers run in the opposite order: what the machine holds goes before it.
        # The garbage collector knows no order; see `_finish`.
        weakref.finalize(self, self._c.machine_destroy, self._machine)

    def _checked(self, result: Any) -> Any:
        if result is None:
            self._fail()
        return result

    def _fail(self) -> None:
        kind = self._c.machine_fault_kind()
        raise MachineError(
            self._c.machine_message().decode(), _FAULT_KINDS[kind] if kind >= 0 else None
        )

    def array(self, values: np.ndarray) -> Array:
        """Return a device array with a copy of the values."""
        array = Array(self, values.shape, values.dtype)
        array.values[...] = values
        self._c.machine_wrote(self._machine, array.address, array.values.nbytes)
        return array

    def empty(self, shape: Any, dtype: Any) -> Array:
        """Return a device array that was never written."""
        return Array(self, shape, dtype)

    def module(self, ptx: str) -> Module:
        """Return the module of a PTX text."""
        return Module(self, ptx)


def _finish(_machine: Machine, function: Any, *arguments: Any) -> None:
    """End what is of a machine, which lives as long as this is registered."""
    function(*arguments)


class Array:
    """Device memory; `values` is a view of it."""

    def __init__(self, machine: Machine, shape: Any, dtype: Any) -> None:
        self._machine = machine
        dtype = np.dtype(dtype)
        count = int(np.prod(shape))
        self.address = machine._c.machine_allocate(machine._machine, count * dtype.itemsize)
        buffer = (ctypes.c_char * (count * dtype.itemsize)).from_address(self.address)
        self.values = np.frombuffer(buffer, dtype).reshape(shape)
        weakref.finalize(
            self, _finish, machine, machine._c.machine_free, machine._machine, self.address
        )


class Module:
    """A PTX text's kernels."""

    def __init__(self, machine: Machine, ptx: str) -> None:
        self._machine = machine
        c = machine._c
        self._module = machine._checked(c.machine_parse(machine._machine, ptx.encode()))
        weakref.finalize(self, _finish, machine, c.machine_unload, self._module)

    def run(self, name: str, grid: Any, block: Any, *arguments: Any, shared: int = 0) -> None:
        """Launch a kernel and wait for its end; arguments are arrays, NumPy scalars or ctypes."""
        c = self._machine._c
        function = c.machine_function(self._module, name.encode())
        if function is None:
            raise KeyError(name)
        held: list[Any] = []
        for argument in arguments:
            if isinstance(argument, Array):
                held.append(ctypes.c_uint64(argument.address))
            elif isinstance(argument, np.generic):
                held.append((ctypes.c_char * argument.nbytes).from_buffer_copy(argument.tobytes()))
            else:
                held.append(argument)
        assert c.machine_parameters(function) == len(held), name
        for i, one in enumerate(held):
            assert c.machine_parameter_bytes(function, i) == ctypes.sizeof(one), (name, i)
        pointers = (ctypes.c_void_p * max(len(held), 1))(*[ctypes.addressof(one) for one in held])
        dims = [
            (ctypes.c_uint32 * 3)(*(tuple(np.atleast_1d(dim)) + (1, 1))[:3])
            for dim in (grid, block)
        ]
        if c.machine_run(self._machine._machine, function, *dims, shared, pointers):
            self._machine._fail()
