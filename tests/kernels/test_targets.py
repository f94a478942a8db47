"""Which device is chosen, and what is said without a GPU.

A stand-in behaves as CuPy does in each situation.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lib.fresh_python import REPOSITORY, error, output, run

CUPY_WITHOUT_DRIVER = """
class cuda:
    class runtime:
        class CUDARuntimeError(RuntimeError):
            pass
        def getDeviceCount():
            raise cuda.runtime.CUDARuntimeError("cudaErrorInsufficientDriver: no\\n driver")
"""
CUPY_WITHOUT_DEVICE = """
class cuda:
    class runtime:
        class CUDARuntimeError(RuntimeError):
            pass
        def getDeviceCount():
            return 0
"""
CUPY_WITH_BROKEN_DEVICE = """
class cuda:
    class runtime:
        class CUDARuntimeError(RuntimeError):
            pass
        def getDeviceCount():
            return 1
    class Device:
        def __init__(self):
            raise cuda.runtime.CUDARuntimeError("cudaErrorDevicesUnavailable: busy")
"""
CUPY_WITHOUT_COMPILER = """
class cuda:
    class compiler:
        class CompileException(Exception):
            pass
    class runtime:
        CUDARuntimeError = OSError
        getDeviceCount = lambda: 1
        driverGetVersion = lambda: 12080
    class Device:
        compute_capability = "90"
    class nvrtc:
        def getVersion():
            VERSION
class RawModule:
    def __init__(self, code):
        pass
    def compile(self):
        raise RuntimeError("Failed to find CUDA headers.")
"""
NEWER = (
    "CuPy finds NVRTC of CUDA 13, whose code a driver of CUDA 12 does not run; "
    "uninstall what has brought it, such as nvidia-cuda-nvrtc 13"
)
SITUATIONS = {
    "raise ModuleNotFoundError(\"No module named 'cupy'\", name='cupy')": "CuPy is not installed",
    "import cupy_needs_this": "CuPy cannot be imported (No module named 'cupy_needs_this')",
    "raise ImportError('libcuda:\\n  not found')": "CuPy cannot be imported (libcuda: not found)",
    "import os; os.mkdir('/dev/null/.cupy')": (
        "CuPy cannot be imported ([Errno 20] Not a directory: '/dev/null/.cupy')"
    ),
    CUPY_WITHOUT_DRIVER: "CuPy finds no working GPU (cudaErrorInsufficientDriver: no driver)",
    CUPY_WITHOUT_DEVICE: "CuPy finds no GPU",
    CUPY_WITH_BROKEN_DEVICE: "CuPy finds no working GPU (cudaErrorDevicesUnavailable: busy)",
    # cuda.pathfinder's DynamicLibNotFoundError is a RuntimeError.
    CUPY_WITHOUT_COMPILER.replace("VERSION", "raise RuntimeError('no libnvrtc.so:\\n none')"): (
        "CuPy cannot compile for the GPU (no libnvrtc.so: none)"
    ),
    CUPY_WITHOUT_COMPILER.replace("VERSION", "raise OSError('its cache is read-only')"): (
        "CuPy cannot compile for the GPU (its cache is read-only)"
    ),
    CUPY_WITHOUT_COMPILER.replace("VERSION", "return 13, 0"): NEWER,
    # _core.assemble_cupy_compiler_options raises this.
    CUPY_WITHOUT_COMPILER.replace("VERSION", "return 12, 4"): (
        "CuPy cannot compile for the GPU (Failed to find CUDA headers.)"
    ),
}


@pytest.fixture(
    params=SITUATIONS,
    ids=[
        "absent",
        "half",
        "library",
        "no cache",
        "driver",
        "device",
        "broken device",
        "no NVRTC",
        "read-only cache",
        "newer NVRTC",
        "no headers",
    ],
)
def situation(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """The PYTHONPATH with CuPy in some situation, and the reason that it gives."""
    (tmp_path / "cupy.py").write_text(request.param)
    return f"{tmp_path}:{REPOSITORY}", SITUATIONS[request.param]


def test_auto_takes_the_cpu_and_says_why(situation: tuple[str, str]) -> None:
    path, reason = situation
    script = "from kernels.runtime import choose_target; print(*choose_target('auto'), sep=': ')"
    assert output(script, PYTHONPATH=path) == f"cpu: {reason}\n"


def test_cuda_is_refused_with_the_reason(situation: tuple[str, str]) -> None:
    path, reason = situation
    script = "from kernels.runtime import choose_target; choose_target('cuda')"
    assert error(script, PYTHONPATH=path) == f"device 'cuda' is not available: {reason}"


def test_cpu_does_not_ask_for_a_gpu(tmp_path: Path) -> None:
    (tmp_path / "cupy.py").write_text("raise SystemExit('CuPy was imported')")
    script = "from kernels.runtime import choose_target; print(choose_target('cpu'))"
    assert output(script, PYTHONPATH=f"{tmp_path}:{REPOSITORY}") == "(cpu, None)\n"


def test_command_line_fails_in_one_line(situation: tuple[str, str]) -> None:
    path, reason = situation
    arguments = "-m cnn train --device cuda --dataset synthetic".split()
    done = run(*arguments, PYTHONPATH=path)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == f"cnn: error: device 'cuda' is not available: {reason}\n"


def test_info_gives_the_reason(situation: tuple[str, str], tmp_path: Path) -> None:
    path, reason = situation
    shown = run("-m", "cnn", "info", PYTHONPATH=path, KERNELS_CACHE_DIR=tmp_path / "cache").stdout
    lines = dict(line.split(maxsplit=1) for line in shown.splitlines())
    assert lines["targets"] == "cpu" and lines["GPU"] == reason


def test_unknown_device_is_named() -> None:
    from kernels.runtime import choose_target

    with pytest.raises(ValueError, match="^device: got 'gpu', expected 'auto', 'cpu' or 'cuda'$"):
        choose_target("gpu")
