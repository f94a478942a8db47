"""What importing does not do, what a launch checks, threads and forks."""

from __future__ import annotations

import ctypes
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kernels
from kernels.common.geometry import Window
from kernels.runtime import Kernel, Source
from kernels.runtime.cpu import CpuTarget
from kernels.runtime.errors import KernelError
from tests.lib.fresh_python import RELU, REPOSITORY, error, output
from tests.lib.support import host

# --- importing

IMPORTS = """
import os, sys, threading
import numpy, platformdirs, safetensors.numpy, tqdm  # what they do on import is not ours
natives = len(os.listdir("/proc/self/task"))
seen = []
def watch(event, arguments):
    started = event in ("subprocess.Popen", "os.system", "os.fork", "os.posix_spawn", "os.exec")
    thread = event.startswith("_thread.start")
    written = event in ("os.mkdir", "os.rename", "os.remove", "socket.connect")
    if event == "open":
        written = isinstance(arguments[1], str) and set(arguments[1]) & set("wax+") != set()
    if started or thread or written:
        seen.append((event, arguments))
sys.addaudithook(watch)
import kernels, cnn, cnn.__main__, cnn.recipes
print(seen, len(os.listdir("/proc/self/task")) - natives, "cupy" in sys.modules)
"""


def test_import_starts_and_creates_nothing(tmp_path: Path) -> None:
    (tmp_path / "cupy.py").write_text("raise SystemExit('CuPy was imported')")
    cache, home = tmp_path / "cache", tmp_path / "home"
    home.mkdir()
    said = output(
        IMPORTS,
        PYTHONPATH=f"{tmp_path}:{REPOSITORY}",
        KERNELS_CACHE_DIR=cache,
        HOME=home,
        XDG_CACHE_HOME=home,
        CXX="no-such-compiler",
        PYTHONDONTWRITEBYTECODE=1,
    )
    assert said == "[] 0 False\n"
    assert not cache.exists() and not list(home.iterdir())


# --- a launch

TYPED = """
#include "common/window.cuh"

KERNEL typed(const T *__restrict__ x, int64 *indices, Window g, int rows, int64 count, uint64 seed,
             double p) {}
"""


class Launches(list[Any]):
    """What was passed to a kernel, whose launches are not run."""

    def __init__(self) -> None:
        source = Source("typed.cu", TYPED, packaged=False)
        target = CpuTarget()
        target.binder = lambda *_: self.bind  # type: ignore[method-assign]
        self.kernel = Kernel(target, source, "typed", {"T": np.float32})

    def bind(self, grid: Any, threads: int, shared: int, arguments: list[Any]) -> Any:
        return lambda: self.append((grid, threads, arguments))

    def __call__(self, grid: Any = (1, 1, 1), **changes: Any) -> None:
        x, indices = np.zeros(4, np.float32), np.zeros(4, np.int64)
        sound = dict(x=x, indices=indices, g=Window(), rows=1, count=1, seed=1, p=0.5)
        self.kernel(grid, 32, *(sound | changes).values())


@pytest.fixture
def launch() -> Launches:
    return Launches()


def test_scalars_become_whole_or_floating(launch: Launches) -> None:
    x, g = np.ones(3, np.float32), Window()
    launch(x=x, indices=None, g=g, rows=np.int64(7), count=2**40, seed=2**64 - 1, p=3)
    [(grid, threads, arguments)] = launch
    assert grid == (1, 1, 1) and threads == 32
    assert arguments[0] is x and arguments[1] is None and arguments[2] is g
    assert [(type(value), value) for value in arguments[3:]] == [
        (int, 7),
        (int, 2**40),
        (int, 2**64 - 1),
        (float, 3.0),
    ]


# Every type after one that is smaller, so that each must be aligned.
PACKED = """
#include "common/window.cuh"

struct Wide { long long first; int second; };

KERNEL packed(double *__restrict__ y, uint8 a, Window g, uint8 b, Wide w, uint16 c, int d, uint8 e,
              double f, int i, uint64 j, uint8 k, float l, uint8 m, const T *__restrict__ x) {
    if (threadIdx.x > 0) return;
    const double all[] = {double(a), double(g.H), double(g.DW), double(b), double(w.first),
                          double(w.second), double(c), double(d), double(e), f, double(i),
                          double(j), double(k), double(l), double(m), double(x == nullptr)};
    for (int n = 0; n < 16; ++n) y[n] = all[n];
}
"""


class Wide(ctypes.Structure):
    _fields_ = [("first", ctypes.c_longlong), ("second", ctypes.c_int)]


def test_arguments_of_every_type_arrive(target: Any) -> None:
    kernel = Source("packed.cu", PACKED, packaged=False).kernel("packed", target, "float32")
    y, g = target.empty((16,), "float64"), Window(*range(2, 14))
    scalars = 255, g, 3, Wide(-(2**40), -5), 2**16 - 1, -(2**31), 4, 0.1, 7, 2**53, 8, -0.5, 9
    kernel((1, 1, 1), 32, y, *scalars, None)
    expected = [255, 2, 13, 3, -(2**40), -5, 2**16 - 1, -(2**31), 4, 0.1, 7, 2**53, 8, -0.5, 9, 1]
    assert host(y).tolist() == expected


class OtherWindow(ctypes.Structure):
    _fields_ = [("H", ctypes.c_int)]


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"x": np.zeros(4, np.float64)}, TypeError, "x: got float64, expected .* of float32"),
        ({"x": np.zeros(4, ">f4")}, TypeError, "x: got >f4, expected .* of float32"),
        ({"x": np.zeros(8, np.float32)[::2]}, TypeError, "x: .* expected a contiguous array"),
        ({"indices": np.zeros(4, np.int32)}, TypeError, "indices: got int32, expected .* int64"),
        ({"g": OtherWindow()}, TypeError, "g: got .*, expected a Window"),
        ({"g": 1}, TypeError, "g: got 1, expected a Window"),
        ({"rows": 2**31}, ValueError, "rows: got 2147483648, which does not fit"),
        ({"rows": -(2**31) - 1}, ValueError, "rows: got -2147483649, which does not fit"),
        ({"rows": 1.5}, TypeError, "float"),
        ({"count": 2**63}, ValueError, "count: got 9223372036854775808, which does not fit"),
        ({"seed": -1}, ValueError, "seed: got -1, which does not fit"),
        ({"p": "half"}, ValueError, "half"),
        ({"p": np.inf}, ValueError, "p: got inf, which does not fit"),
        ({"more": 1}, TypeError, "got 8 arguments, expected 7"),
        ({"grid": (1, 65536, 1)}, ValueError, "at most 65535 along y and z"),
        ({"grid": (1, 1, 65536)}, ValueError, "at most 65535 along y and z"),
    ],
)
def test_launch_refuses_what_does_not_fit(
    launch: Launches, changes: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        launch(**changes)
    assert launch == []


def test_a_kernel_is_made_once_for_each_target_dtype_and_constants() -> None:
    source = Source("typed.cu", TYPED, packaged=False)
    first, second = CpuTarget(), CpuTarget()
    kernel = source.kernel("typed", first, "float32", KH=3)
    assert source.kernel("typed", first, "float32", KH=3) is kernel
    others = [
        source.kernel("typed", second, "float32", KH=3),
        source.kernel("typed", first, "float64", KH=3),
        source.kernel("typed", first, "float32", KH=5),
        source.kernel("typed", first, "float32", KW=3),  # the same value by another name
        source.kernel("typed", first, "float32"),
    ]
    assert len({kernel, *others}) == 6


@pytest.mark.parametrize("grid", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_empty_grid_is_not_launched(launch: Launches, grid: tuple[int, int, int]) -> None:
    launch(grid)
    assert launch == []


# --- threads

# Enough elements for several blocks, so that the pool has something to share out.
LARGE = "numpy.arange(-100_000, 100_000).astype(numpy.float32)"


@pytest.mark.parametrize("threads", [1, 2, 7, 64])
def test_thread_count_does_not_change_a_result(threads: int) -> None:
    script = f"""
import hashlib, numpy, kernels
x = {LARGE}.reshape(500, 400) / 1000
results = [kernels.relu(x), *kernels.dense_backward(x, x, x[:400]), kernels.softmax(x)]
print(*(hashlib.sha256(y).hexdigest() for y in results))
"""
    assert output(script, KERNELS_THREADS=threads) == output(script, KERNELS_THREADS=3)


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "1025", "9" * 30])
def test_bad_thread_count_is_named(value: str) -> None:
    expected = f"KERNELS_THREADS: got {value!r}, expected a whole number from 1 to 1024"
    assert error(RELU, KERNELS_THREADS=value) == expected


def test_kernels_are_compiled_several_at_a_time(target: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("KERNELS_THREADS", "2")
    both = threading.Barrier(2, timeout=60)
    target.compile([both.wait, both.wait])


def test_after_one_that_fails_no_others_are_begun(target: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("KERNELS_THREADS", "1")
    begun: list[int] = []

    def job(number: int) -> None:
        begun.append(number)
        if number == 1:
            raise KernelError("the second")

    with pytest.raises(KernelError, match="the second"):
        target.compile([partial(job, number) for number in range(5)])
    assert begun == [0, 1]


def test_concurrent_callers_get_their_own_results() -> None:
    """Python threads that call at the same time: one has the pool, the others compute alone."""
    random = np.random.default_rng(0)
    # Several tiles each way, so that there are blocks to share out.
    inputs = [random.normal(size=(1200, 50)).astype(np.float32) for _ in range(4)]
    w = random.normal(size=(150, 50)).astype(np.float32)
    expected = [kernels.dense(x, w) for x in inputs]
    found: list[list[Any]] = [[] for _ in inputs]

    def call(index: int) -> None:
        for _ in range(50):
            found[index].append(kernels.dense(inputs[index], w))

    callers = [threading.Thread(target=call, args=(index,)) for index in range(len(inputs))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for results, y in zip(found, expected, strict=True):
        assert len(results) == 50 and all(np.array_equal(result, y) for result in results)


def test_first_calls_at_once_build_each_kernel(tmp_path: Path) -> None:
    script = f"""
import threading, numpy, kernels
x, ready, found = {LARGE}, threading.Barrier(4), []
def call():
    ready.wait()
    found.append(float(kernels.relu(x).sum()))
callers = [threading.Thread(target=call) for _ in range(4)]
for caller in callers: caller.start()
for caller in callers: caller.join()
print(found == [float(x[x > 0].sum())] * 4)
"""
    assert output(script, KERNELS_CACHE_DIR=tmp_path / "cache") == "True\n"
    libraries = [path.name.split("-")[0] for path in (tmp_path / "cache").iterdir()]
    assert sorted(libraries) == ["relu_forward", "thread_pool"]


def test_forked_child_computes_without_the_pool() -> None:
    """The pool's threads do not live on in a child; data loaders and web servers fork."""
    script = f"""
import os, warnings, numpy, kernels
warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: threads and a fork
x = {LARGE}
expected = kernels.relu(x)
child = os.fork()
if child == 0:
    same = [numpy.array_equal(kernels.relu(x), expected) for _ in range(3)]
    grandchild = os.fork()
    if grandchild == 0:
        os._exit(0 if numpy.array_equal(kernels.relu(x), expected) else 1)
    os._exit(0 if all(same) and os.waitpid(grandchild, 0)[1] == 0 else 1)
status = os.waitpid(child, 0)[1]
print(status, numpy.array_equal(kernels.relu(x), expected))
"""
    assert output(script, KERNELS_THREADS=4) == "0 True\n"


def test_fork_before_the_first_call() -> None:
    script = f"""
import os, warnings, numpy, kernels
warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: threads and a fork
x = {LARGE}
child = os.fork()
total = float(kernels.relu(x).sum())
if child == 0:
    os._exit(0 if total == float(x[x > 0].sum()) else 1)
print(os.waitpid(child, 0)[1], total == float(x[x > 0].sum()))
"""
    assert output(script, KERNELS_THREADS=4) == "0 True\n"
