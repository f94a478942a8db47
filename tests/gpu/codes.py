"""Expected errors of CUDA's runtime and driver."""

import re
from contextlib import contextmanager

import pytest


@contextmanager
def raises(cupy, code, *words):
    """Expect an error of the runtime or the driver: its name, then these words in any order."""
    kinds = (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError)
    with pytest.raises(kinds, match=f"^{re.escape(code)}: ") as caught:
        yield caught
    for word in words:
        assert word in str(caught.value)
