"""What a row of the kernel suite consists of: arrays, counted work, and who computes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from bench.peers import naive, numpy_calls

try:
    from bench.peers import torch_calls
except ModuleNotFoundError:  # PyTorch is a peer if it is installed
    torch_calls = None

OURS = "kernels"


class Contender(NamedTuple):
    """A call, how to read its result as NumPy arrays, and a call whose time is subtracted."""

    run: Callable[[], Any]
    read: Callable[[Any], list[Any]]
    less: Callable[[], Any] | None = None


@dataclass
class Work:
    """A row that is ready to run.

    `operations` counts floating-point operations: two for a multiply-add, those on padding
    included. `bytes` counts every array that must be read or written, once unless a comment says
    otherwise.
    """

    bytes: int
    expected: list[Any]
    contenders: dict[str, Contender]
    operations: int = 0
    rtol: float = 1e-4


@dataclass(frozen=True)
class Row:
    """What is computed, with what sizes, and what limits its speed: "arithmetic" or "memory"."""

    operation: str
    shape: str
    bound: str
    prepare: Callable[..., Work]
    sizes: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.operation}: {self.shape}"


class Arrays:
    """Random float32 arrays on a device, and results read from it."""

    def __init__(self, target: Any) -> None:
        self.target = target
        self.random = np.random.default_rng(0)
        numpy_calls.xp = naive.xp = np if self.on_cpu else __import__("cupy")

    @property
    def on_cpu(self) -> bool:
        return self.target.name == "cpu"

    def normal(self, *shape: int) -> Any:
        return self.target.array(self.random.standard_normal(shape, np.float32))

    def labels(self, count: int, classes: int) -> Any:
        return self.target.array(self.random.integers(0, classes, count))

    def pixels(self, *shape: int) -> Any:
        return self.target.array(self.random.integers(0, 256, shape, np.uint8))


def host(value: Any) -> np.ndarray:
    return value.get() if hasattr(value, "get") else np.asarray(value)


def read(result: Any) -> list[np.ndarray]:
    """Return the arrays in a result of ours, NumPy or CuPy."""
    results = result if isinstance(result, tuple) else (result,)
    return [host(value) for value in results if hasattr(value, "dtype")]


def judged(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Return what a function of `numpy_calls` gives in float64, on the host."""
    device, numpy_calls.xp = numpy_calls.xp, np
    try:
        return call(*wide(*arguments), **options)
    finally:
        numpy_calls.xp = device


def wide(*values: Any) -> list[Any]:
    """Return values with their arrays on the host, float32 ones in float64."""
    taken = [host(value) if hasattr(value, "dtype") else value for value in values]
    return [v.astype(np.float64) if getattr(v, "dtype", None) == np.float32 else v for v in taken]


def size_of(*values: Any) -> int:
    return sum(value.nbytes for value in values)


def contenders(
    arrays: Arrays,
    ours: Contender,
    numpy: Callable[[], Any] | Contender,
    torch: dict[str, Callable[[], Any]],
    naively: Callable[[], Any] | Contender | None = None,
) -> dict[str, Contender]:
    """Return ours and the peers that are installed."""
    library = "NumPy" if arrays.on_cpu else "CuPy"
    found = {OURS: ours}
    for name, peer in ((library, numpy), (f"naive {library}", naively)):
        if peer is not None:
            found[name] = peer if isinstance(peer, Contender) else Contender(peer, read)
    if torch_calls is not None:
        for name, make in torch.items():
            found[name] = Contender(*make())
            if not arrays.on_cpu:
                run, reader = make()
                found[f"{name}, compiled"] = Contender(torch_calls.torch.compile(run), reader)
    return found


def layouts(call: str, *arguments: Any, **options: Any) -> dict[str, Callable[[], Any]]:
    """Return PyTorch's call in both memory formats."""
    names = {"PyTorch": "contiguous", "PyTorch channels_last": "channels_last"}
    return {
        name: lambda layout=layout: getattr(torch_calls, call)(layout, *arguments, **options)
        for name, layout in names.items()
    }


def torch(call: str, *arguments: Any, **options: Any) -> dict[str, Callable[[], Any]]:
    return {"PyTorch": lambda: getattr(torch_calls, call)(*arguments, **options)}
