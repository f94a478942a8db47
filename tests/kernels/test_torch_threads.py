"""Under `kernels.torch`, launches run in PyTorch's own threads."""

import sys

import pytest

from tests.lib.fresh_python import output

pytest.importorskip("torch")

START = """
import ctypes, os
import numpy as np
import kernels
from kernels.runtime import cpu_target

def threads():
    return set(os.listdir("/proc/self/task"))

def conv2d():
    values = np.random.default_rng(0).standard_normal
    x, w = values((16, 16, 16, 8), np.float32), values((8, 3, 3, 8), np.float32)
    return kernels.conv2d(x, w, padding=1).tobytes()
"""
TWO = {"KERNELS_THREADS": "", "OMP_NUM_THREADS": "2"}


@pytest.mark.skipif(sys.platform != "linux", reason="it counts threads in /proc")
def test_no_threads_are_started_beside_pytorchs():
    script = """
import threading, torch, kernels.torch
torch.ones(1 << 20).exp().sum()  # PyTorch starts its threads
pytorchs = threads()
conv2d()
print(threads() == pytorchs)

BODY = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 2, *[ctypes.c_longlong] * 2)
ran, both = set(), threading.Barrier(2, timeout=60)

@BODY
def body(context, memory, begin, end):
    if str(threading.get_native_id()) not in ran:
        ran.add(str(threading.get_native_id()))
        both.wait()  # so that one thread cannot take all chunks

parallel_for = cpu_target()._pool().parallel_for
parallel_for.argtypes = [BODY, ctypes.c_void_p, ctypes.c_longlong]
parallel_for(body, None, 8)
print(len(ran), ran <= pytorchs)

torch.set_num_threads(1)
ran.clear()
both = threading.Barrier(1)
parallel_for(body, None, 8)
print(len(ran))

others = threads()
def call():
    parallel_for(body, None, 8)
    print(len(threads() - others))
caller = threading.Thread(target=call)
caller.start()
caller.join()
"""
    assert output(START + script, **TWO) == "True\n2 True\n1\n1\n"


@pytest.mark.parametrize("threads", ["", "1", "3"])
def test_the_bits_are_those_of_threads_of_our_own(threads):
    script = """
ours = conv2d()
import kernels.torch
print(conv2d() == ours)
child = os.fork()  # into which no threads follow
if child == 0:
    os._exit(conv2d() != ours)
print(os.waitpid(child, 0)[1])
"""
    assert output(START + script, **{**TWO, "KERNELS_THREADS": threads}) == "True\n0\n"


@pytest.mark.parametrize("threads", ["", "2"])
@pytest.mark.parametrize(
    "before, within", [("import kernels.torch", ""), ("", "import kernels.torch")]
)
def test_a_fork_that_uses_the_kernels_first_does_not_wait_for_lost_threads(threads, before, within):
    """As a worker of PyTorch's DataLoader, which has one thread."""
    script = f"""
import signal, torch
{before}
torch.ones(1 << 20).exp().sum()  # PyTorch starts its threads
child = os.fork()
if child == 0:
    signal.alarm(60)
    torch.set_num_threads(1)
    {within}
    conv2d()
    os._exit(0)
print(os.waitpid(child, 0)[1])
"""
    assert output(START + script, **{**TWO, "KERNELS_THREADS": threads}) == "0\n"
