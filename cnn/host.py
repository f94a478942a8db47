"""Arrays of any device in the host's memory."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from kernels.lowlevel import Array


def to_host(array: Array) -> np.ndarray[Any, Any]:
    """Return a NumPy or CuPy array as a C-contiguous NumPy array, copied only where needed."""
    return np.asarray(array.get() if hasattr(array, "get") else array, order="C")


def digest(*arrays: Any) -> str:
    """Return the first digits of the SHA-256 of arrays with their types and shapes."""
    found = hashlib.sha256()
    for array in map(to_host, arrays):
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(array.reshape(-1).view(np.uint8).data)  # bfloat16 has no buffer
    return found.hexdigest()[:16]
