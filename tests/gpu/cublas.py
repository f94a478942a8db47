"""What cuBLAS must do at least, for counts of CuPy with it: it does not run on the emulated GPU.

A product of matrices is one launch, which reads its factors and writes its result once. It is
computed on the host.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch


@dataclass
class Products:
    """How many there were, and the bytes of their factors and results."""

    launches: int = 0
    bytes: int = 0

    def __call__(self, a: Any, b: Any) -> Any:
        """Return a @ b, and count it."""
        import cupy

        result = cupy.asarray(_on_host(a) @ _on_host(b))
        self.launches += 1
        self.bytes += a.nbytes + b.nbytes + result.nbytes
        return result

    def added_to(self, counts: dict[str, float]) -> dict[str, float]:
        """Return the launches and bytes of counts and of the products."""
        return {key: counts[key] + getattr(self, key) for key in ("launches", "bytes")}


@contextmanager
def counting_products() -> Iterator[Products]:
    """Count the products of `numpy_calls` of the benchmark."""
    from bench.peers import numpy_calls

    products = Products()
    with patch.object(numpy_calls, "product", products):
        yield products


def _on_host(matrix: Any) -> Any:
    # cuBLAS takes a matrix and its transpose as they lie: neither is copied by a kernel.
    return matrix.get() if matrix.flags.c_contiguous else matrix.T.get().T
