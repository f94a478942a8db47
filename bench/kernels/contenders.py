"""What a row of the kernel suite consists of: counted work, and who computes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from bench.measure import seconds_of_call

try:
    import torch
except ModuleNotFoundError:  # PyTorch is a peer if it is installed
    torch = None
else:
    # As ours: all in float32, no TF32.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True

OURS = "kernels"


class Contender(NamedTuple):
    """A call, how to read its result as NumPy arrays, and a call whose time is subtracted."""

    run: Callable[[], Any]
    read: Callable[[Any], list[Any]]
    less: Callable[[], Any] | None = None

    def seconds(self, synchronize: Callable[[], Any]) -> float:
        """Return the seconds of a sample."""
        whole = seconds_of_call(self.run, synchronize)
        if self.less is None:
            return whole
        rest = whole - seconds_of_call(self.less, synchronize)
        return max(rest, whole / 10)  # less than that is the noise of a busy machine


@dataclass
class Work:
    """A row that is ready to run.

    `operations` counts floating-point operations: two for a multiply-add, those on padding
    included. `bytes` counts every array that must be read or written, once unless its case says
    otherwise.
    """

    bytes: int
    expected: list[Any]
    contenders: dict[str, Contender]
    operations: int = 0
    rtol: float = 1e-4


@dataclass(frozen=True)
class Row:
    """What is computed, with what sizes, and what limits its speed: "arithmetic" or "memory".

    `prepare` takes a target and the sizes.
    """

    operation: str
    shape: str
    bound: str
    prepare: Callable[..., Work]
    sizes: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.operation}: {self.shape}"


def host(value: Any) -> np.ndarray:
    return value.get() if hasattr(value, "get") else np.asarray(value)
