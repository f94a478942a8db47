"""Tests that every result is the same bits each time, on any number of threads."""

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import kernels
from kernels import lowlevel, runtime
from tests.lib.calls import CALLS, PLANNED
from tests.lib.fresh_python import REPOSITORY
from tests.lib.support import host

EVERY = CALLS | PLANNED


def run_python(code, **environment):
    """Return what a fresh Python prints that can import the package and the tests."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=120,
    ).stdout


def digest(call, target, dtype):
    """Return a hash of every bit of a call's results."""
    results = call(call.arguments(target, dtype))
    return hashlib.sha256(b"".join(array.tobytes() for array in results)).hexdigest()


def digests(target):
    """Return the hashes of every call in both dtypes, one a line."""
    types = (np.float32, np.float64)
    return "\n".join(digest(call, target, dtype) for call in EVERY.values() for dtype in types)


def test_every_public_function_is_called():
    assert set(CALLS) == {name for name in kernels.__all__ if name.islower()}


def test_outputs_are_poisoned_before_a_kernel_runs(target):
    floats, bytes_ = host(target.empty((3, 5), "float32")), host(target.empty((), "uint16"))
    # Bytes of the emulated GPU that nobody wrote are all ones.
    assert np.isnan(floats).all() and int(bytes_) in (0xABAB, 0xFFFF)


@pytest.mark.parametrize("name", EVERY)
def test_twice_gives_the_same_bits(target, dtype, name):
    assert digest(EVERY[name], target, dtype) == digest(EVERY[name], target, dtype)


PRODUCTS = ["conv2d", "conv2d_backward", "dense", "dense_backward"]


@pytest.mark.parametrize("name", PRODUCTS)
def test_twice_gives_the_same_bits_of_float32_in_each_precision(target, name):
    for precision in target.precisions:
        with lowlevel.precision(precision):
            first = digest(CALLS[name], target, np.float32)
            assert digest(CALLS[name], target, np.float32) == first


def test_python_threads_do_not_disturb_each_other(target, dtype):
    calls = list(EVERY.values()) * 3
    expected = [digest(call, target, dtype) for call in calls]
    with ThreadPoolExecutor(8) as executor:
        got = executor.map(lambda call: digest(call, target, dtype), calls)
        assert list(got) == expected


@pytest.mark.parametrize("threads", ["1", "2", "5"])
def test_any_number_of_threads_gives_the_same_bits(threads):
    code = "from tests.invariants.test_repeatability import digests, runtime; "
    code += "print(digests(runtime.cpu_target()))"
    printed = run_python(code, KERNELS_THREADS=threads)
    assert printed.strip() == digests(runtime.cpu_target())


STACKS = """
import threading
from tests.invariants.test_repeatability import digests, runtime
target, threads, found = runtime.cpu_target(), [], []
expected = digests(target)  # before any size of a stack is set
for KiB in (8192, 64, 256):
    threading.stack_size(KiB * 1024)
    threads.append(threading.Thread(target=lambda: found.append(digests(target))))
    threads[-1].start()
for thread in threads:
    thread.join()
print(found == [expected] * 3)
"""


def test_threads_with_small_stacks_compute_the_same():
    assert run_python(STACKS) == "True\n"


FORK = """
import os
import numpy as np
from tests.invariants import test_repeatability as t
call, target = t.CALLS["conv2d_backward"], t.runtime.cpu_target()
expected = t.digest(call, target, np.float32)
child = os.fork()
if child == 0:
    os._exit(t.digest(call, target, np.float32) != expected)
assert os.waitpid(child, 0)[1] == 0
"""


def test_a_forked_process_computes_the_same():
    # Worker threads do not survive a fork: a child that waits for them waits for ever.
    run_python(FORK, KERNELS_THREADS="3")
