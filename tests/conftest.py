"""Targets, element types and poisoned outputs for the tests of the kernels."""

import gc
import importlib.util
import os

import hypothesis
import ml_dtypes  # noqa: F401  NumPy knows bfloat16 by its name then
import numpy as np
import pytest

import cnn.model
import cnn.network
import kernels.lowlevel
from kernels import runtime
from kernels.gemm import division
from kernels.runtime import checks, choose_target
from kernels.runtime.cpu import CpuTarget
from kernels.runtime.cuda import CudaTarget, unavailable
from kernels.runtime.recording import Rehearsal, current
from tests.gpu import device, plugin
from tests.lib.cells import Cells, is_whole
from tests.lib.support import NARROW

# The same examples on every machine, so that a failure in CI can be reproduced.
hypothesis.settings.register_profile(
    "kernels",
    derandomize=True,
    deadline=None,
    max_examples=40,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("kernels")

#: The extra for CUDA 12 has no PyTorch: its wheels bring CUDA 13.
PYTORCH = importlib.util.find_spec("torch") is not None
collect_ignore_glob = [] if PYTORCH else ["*/test_torch*.py", "*/test_dlpack.py"]


def pytest_report_header():
    return [] if PYTORCH else "PyTorch is not installed: its tests are left out"


def pytest_addoption(parser):
    parser.addoption(
        "--write-cells", action="store_true", help="write the table of tests/README.md"
    )


def pytest_configure(config):
    cells = Cells(write=config.getoption("--write-cells"))
    cells.start()
    config.pluginmanager.register(cells)
    config.pluginmanager.register(plugin)


def pytest_collection_finish():
    """Leave the tests themselves, some million objects, out of garbage collections."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """One process per core for the whole suite; a part of it takes less time in this process."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # others would only wait for a core
    return len(os.sched_getaffinity(0)) if is_whole(config) else 0


@pytest.fixture(params=["cpu", "cuda"])
def target(request):
    """Each target; `target.array(values)` makes an array on it."""
    return runtime.cpu_target() if request.param == "cpu" else _cuda_target()


@pytest.fixture(params=["cuda"])  # so that names of tests contain it, as with `target`
def cuda():
    """The target `cuda` alone."""
    return _cuda_target()


def _cuda_target():
    reason = unavailable()
    if reason is not None:
        pytest.skip(reason)
    return runtime.cuda_target()


@pytest.fixture(scope="session", params=["float32", "float64", *NARROW])
def dtype(request):
    """Each floating type; float16 and bfloat16 only on `cuda`, which alone has them."""
    return np.dtype(request.param)


@pytest.fixture
def undivided(monkeypatch):
    """Do not divide k among blocks on `cuda`, so that every epilogue gets the same sums."""
    monkeypatch.setattr(division, "_SPLITS", (1,))


@pytest.fixture(scope="session", params=["uint8", "float32", "float64", *NARROW])
def pixel_type(request):
    """Each type of images; float16 and bfloat16 only on `cuda`."""
    return np.dtype(request.param)


def pytest_collection_modifyitems(items):
    items[:] = [item for item in items if _taken(item)]


def _taken(item):
    """Whether a test's target has its types."""
    values = getattr(getattr(item, "callspec", None), "params", {})
    narrow = any(values.get(name) in NARROW for name in ("dtype", "pixel_type"))
    return not narrow or "cuda" in (values.get("target"), values.get("cuda"))


@pytest.fixture(scope="session", autouse=True)
def a_gpu_that_is_emulated_is_chosen_by_name():
    """Make "auto" a real GPU or the CPU: whole trainings take too long on the emulated GPU."""

    def choose(device="auto"):
        if device == "auto":
            reason = runtime.cuda.unavailable() or "the GPU is an emulated one"
            return choose_target("cpu")[0], reason
        return choose_target(device)

    with pytest.MonkeyPatch.context() as patch:
        if not device.real_gpu():
            for module in (runtime, runtime.targets, kernels.lowlevel, cnn.network, cnn.model):
                patch.setattr(module, "choose_target", choose)
        yield


@pytest.fixture(scope="session", autouse=True)
def poisoned_outputs():
    """Fill every buffer that a kernel will write with NaN, or bytes 0xAB.

    The emulated GPU is told that it was never written, so reading it is a fault.
    """
    with pytest.MonkeyPatch.context() as patch:
        for kind in (CpuTarget, CudaTarget):
            patch.setattr(kind, "empty", _poisoned(kind.empty))
        yield


def _poisoned(empty):
    def poisoned_empty(self, shape, dtype):
        array = empty(self, shape, dtype)
        # In a rehearsal nothing is written: whoever calls CuPy then reads what never counts.
        checked = self.name == "cuda" and not isinstance(current(), Rehearsal)
        if checked and device.forget(self.address(array), array.nbytes):
            return array
        with self.on():
            if checks.floating(array.dtype):
                array.fill(np.nan)
            else:
                array.reshape(-1).view(np.uint8).fill(0xAB)
        return array

    return poisoned_empty
