"""A first look at the GPU: its name, and whether CuPy, NVRTC, a graph and a kernel work on it.

python -m tests.gpu_lane.smoke
"""

from __future__ import annotations

import platform
import subprocess
import sys
import time

import numpy as np

from kernels import relu
from kernels.runtime import cuda, cuda_target
from kernels.runtime.arena import Arena
from kernels.runtime.recording import Recording

from .report import of_this_part


def main() -> int:
    """Write down what the results depend on, then try the shortest programs."""
    report = of_this_part()
    reason = cuda.unavailable()
    if reason is not None:
        report.problem(f"there is no GPU to test on: {reason}")
        return report.status
    import cupy

    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(0)
    report.note(
        device=properties["name"].decode(),
        compute_capability=cupy.cuda.Device(0).compute_capability,
        multiprocessors=properties["multiProcessorCount"],
        l2_bytes=properties["l2CacheSize"],
        memory_bytes=properties["totalGlobalMem"],
        driver=driver(),
        cuda_driver=runtime.driverGetVersion(),
        cuda_runtime=runtime.runtimeGetVersion(),
        nvrtc=".".join(map(str, cupy.cuda.nvrtc.getVersion())),
        cupy=cupy.__version__,
        numpy=np.__version__,
        python=platform.python_version(),
    )
    started = time.perf_counter()
    x = np.arange(-500, 500, dtype=np.float32)
    on_gpu, target = cupy.asarray(x), cuda_target()
    with Recording(Arena(target), [on_gpu]) as recording:
        y = relu(on_gpu)
    y.fill(np.nan)
    recording.replay()
    for name, found in (("relu of CuPy", relu(on_gpu)), ("relu replayed by a graph", y)):
        if not (found.get() == np.maximum(x, 0)).all():
            report.problem(f"{name} gives other numbers than NumPy's")
    report.note(first_kernels_seconds=round(time.perf_counter() - started, 3))
    return report.status


def driver() -> str:
    """Return the driver's version, as nvidia-smi has it, or "unknown" where it cannot be asked."""
    words = "nvidia-smi --query-gpu=driver_version --format=csv,noheader --id=0".split()
    try:
        done = subprocess.run(words, capture_output=True, text=True)
    except OSError:
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"


if __name__ == "__main__":
    sys.exit(main())
