"""Arrays of any device in the host's memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.lowlevel import Array


def to_host(array: Array) -> np.ndarray[Any, Any]:
    """Return a NumPy or CuPy array as a C-contiguous NumPy array, copied only where needed."""
    return np.asarray(array.get() if hasattr(array, "get") else array, order="C")
