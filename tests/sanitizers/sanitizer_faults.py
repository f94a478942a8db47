"""Planted faults that the sanitizers must report, and a check that arrays have red zones.

    python -m tests.sanitizers.sanitizer_faults read_past_end cpu
    python -m tests.sanitizers.sanitizer_faults red_zones

For sanitize.py and gpu_lane, which run each in a process that its sanitizer ends.
"""

import ctypes
import sys
import tempfile
from pathlib import Path

import numpy as np

from kernels.runtime import Source, cpu_target, cuda_target

TESTS = Path(__file__).parents[1]

#: What the address sanitizers' report says of each fault; the thread sanitizer's, of RACE.
REPORTS = {
    "read_past_end": "heap-buffer-overflow",
    "write_past_end": "heap-buffer-overflow",
    "index_overflow": "SEGV on unknown address",
    "signed_overflow": "signed integer overflow",
}
RACE = "block_race"
RACE_REPORT = "data race"


def path(fault):
    """Return where a fault's kernel is."""
    return next(TESTS.glob(f"*/{fault}.cu"))


def line(fault):
    """Return the line of the fault as a report names it."""
    lines = path(fault).read_text().splitlines()
    number = next(number for number, text in enumerate(lines, 1) if "// FAULT" in text)
    return f"{fault}.cu:{number}"


def launch(fault, target):
    """Launch a kernel so that its fault shows."""
    source = Source(f"{fault}.cu", path(fault).read_text(), packaged=False)
    kernel = source.kernel(fault, target, np.dtype(np.float32))

    def floats(count):
        return target.array(np.ones(count, np.float32))

    if fault == "read_past_end":
        kernel((1, 1, 1), target.threads, floats(10), floats(10), 10)
    elif fault == "write_past_end":
        grid = (-(-11 // target.threads), 1, 1)
        kernel(grid, target.threads, floats(10), floats(10), 10)
    elif fault == "missing_barrier":
        kernel((2, 1, 1), 64, floats(128), floats(128))
    elif fault == "signed_overflow":
        kernel((1, 1, 1), 1, floats(1), 2**16, 2**15)
    elif fault == "block_race":
        x, y = floats(100_000), floats(1)
        for _ in range(20):  # a worker may sleep through one launch
            kernel((x.size, 1, 1), 1, x, y)
    elif fault == "index_overflow":
        row, width = 2**16 + 1, 2**15
        with tempfile.TemporaryFile() as file:  # sparse: takes neither memory nor disk
            file.truncate((row + 1) * width)
            large = np.memmap(file, np.uint8, "r+")
            kernel((1, 1, 1), 1, large, np.zeros(1, np.uint8), row, width)


def gpu_without_pool():
    """Return the `cuda` target, every array of which has memory of its own."""
    from tests.gpu_lane import without_pool  # noqa: F401

    return cuda_target()


def check_red_zones():
    """Raise AssertionError unless the bytes on both sides of every small array are poisoned."""
    poisoned = ctypes.CDLL(None).__asan_address_is_poisoned
    poisoned.argtypes = [ctypes.c_void_p]
    for _ in range(3):
        for size in range(1, 2000):
            arrays = [np.empty(size, np.uint8) for _ in range(8)]
            starts = [array.ctypes.data for array in arrays]
            ends = [(poisoned(s - 1), poisoned(s), poisoned(s + size)) for s in starts]
            # One may be the last block of a mapping: behind it there is no memory at all.
            bare = ends.count((1, 0, 0))
            whole = ends.count((1, 0, 1))
            assert bare <= 1 and bare + whole == 8, f"{size} bytes have no red zones: {ends}"
    freed = np.empty(100).ctypes.data
    assert poisoned(freed) == 1, "an array that was freed is not poisoned"


TARGETS = {"cpu": cpu_target, "cuda": gpu_without_pool}

if __name__ == "__main__":
    if sys.argv[1] == "red_zones":
        check_red_zones()
    else:
        target = TARGETS[sys.argv[2]]()
        launch(sys.argv[1], target)
        target.zeros(1, np.float32).sum().item()  # waits for a GPU
