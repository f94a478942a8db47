"""The `cuda` target: kernels compiled by NVRTC and launched through CuPy on its current stream."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any

import numpy as np

from .allocator import Allocator
from .errors import KernelError
from .jobs import run
from .program import Program
from .recording import in_order
from .types import Array, Binder, Grid, Launch, Shape

_NOTHING = 'extern "C" __global__ void nothing() {}'
_BLOCKS = 32 * 132  # enough for every multiprocessor of the largest GPUs, several times over


class CudaTarget(Allocator):
    """One NVIDIA GPU; arrays are CuPy's."""

    name = "cuda"
    constants: dict[str, int] = {}
    dtypes: tuple[str, ...] = ("float32", "float64", "float16", "bfloat16")
    near_bytes = 48 * 1024
    in_lanes = False
    shared_bytes = 48 * 1024
    threads = 256

    def __init__(self, device: int) -> None:
        import cupy

        self._cupy = cupy
        self.device = device

    def __repr__(self) -> str:
        """Return the name of the device in messages."""
        return f"cuda:{self.device}"

    @cached_property
    def multiprocessors(self) -> int:
        """The GPU's multiprocessors, among which blocks are divided."""
        runtime = self._cupy.cuda.runtime
        what = runtime.cudaDevAttrMultiProcessorCount
        return int(runtime.deviceGetAttribute(what, self.device))

    @cached_property
    def precisions(self) -> tuple[str, ...]:
        """Precisions in which float32 arrays can be multiplied; see gemm/precision.py."""
        capability = int(self._cupy.cuda.Device(self.device).compute_capability)
        if capability >= 80:
            return ("fp32", "tf32", "bf16", "fp16")
        return ("fp32", "fp16") if capability >= 75 else ("fp32",)

    def binder(self, program: Program, entry: str, constants: dict[str, Any]) -> Binder:
        """Return a function that binds launches of one entry point, compiled or from the cache."""
        cupy = self._cupy
        text = program.specialised(constants, entry)
        with self.on():
            function = self._module(program.name, text).get_function(entry)
        conversions = [
            _pointer if p.pointer else _structure if dtype is None else dtype.type
            for p, dtype in ((p, p.dtype(constants)) for p in program.entries[entry])
        ]

        def bind(grid: Grid, threads: int, shared: int, arguments: list[Any]) -> Launch:
            pairs = zip(conversions, arguments, strict=True)
            packed = tuple([convert(value) for convert, value in pairs])

            def launch() -> None:
                with cupy.cuda.Device(self.device):
                    function(grid, (threads,), packed, shared_mem=shared)

            return launch

        return bind

    def stream(self) -> Any:
        """Return CuPy's current stream of this device."""
        with self._cupy.cuda.Device(self.device):
            return self._cupy.cuda.get_current_stream()

    @contextmanager
    def on(self, stream: Any = None) -> Iterator[None]:
        """Make the device, and the stream if given, CuPy's current ones in a ``with`` block.

        Work launched in the block runs after all earlier work of the outer stream, and before all
        its later work.
        """
        with self._cupy.cuda.Device(self.device):
            outer = self._cupy.cuda.get_current_stream()
            if stream is None or stream == outer:
                yield
                return
            stream.wait_event(outer.record())
            try:
                with stream:
                    yield
            finally:
                outer.wait_event(stream.record())

    def fresh(self, shape: Shape, dtype: Any) -> Array:
        """Return an uninitialised C-contiguous array with memory of its own."""
        with self._cupy.cuda.Device(self.device):
            return self._cupy.empty(shape, dtype)

    def array(self, values: Any, dtype: Any = None) -> Array:
        """Return values as a C-contiguous array here, copied only where needed."""
        cupy = self._cupy
        with self.on():
            if hasattr(values, "__cuda_array_interface__"):
                # Not ascontiguousarray, which makes 0-d arrays one-dimensional.
                return cupy.asarray(values, dtype, order="C")
            values = np.asarray(values)
            # CuPy makes a 0-d array by a fill, which turns -0.0 into 0: so copy at least one
            # dimension. Without `blocking`, pinned memory may be read after this returns.
            flat = cupy.asarray(np.atleast_1d(values), dtype, order="C", blocking=True)
            return flat.reshape(values.shape)

    def fill_bytes(self, array: Array, byte: int) -> None:
        """Fill a C-contiguous array with a byte, without a kernel that CuPy would compile."""
        with self.on():
            array.data.memset_async(byte, array.nbytes)

    def address(self, array: Array) -> int:
        """Return the address of an array's first element."""
        return int(array.data.ptr)

    def replayer(self, launches: list[Launch]) -> Launch:
        """Return a function that runs bound launches in order, as one CUDA graph."""
        cupy = self._cupy
        with self.on():
            # A stream of its own: the default one cannot be captured. Captured work does not run.
            stream = cupy.cuda.Stream(non_blocking=True)
            with stream:
                stream.begin_capture()
                in_order(launches)
                graph = stream.end_capture()

        def run() -> None:
            with cupy.cuda.Device(self.device):
                graph.launch(cupy.cuda.get_current_stream())

        return run

    def stride_grid(self, count: int) -> Grid:
        """Return the grid of a GRID_STRIDE kernel over `count` elements."""
        return (min(-(-count // self.threads), _BLOCKS), 1, 1)

    def block(self, items: int) -> int:
        """Return the threads of a block that shares so many items, in whole warps."""
        return min(max(-(-items // 32), 1) * 32, self.threads)

    def lanes(self, itemsize: int) -> int:
        """Return how many elements a thread computes at once: one."""
        return 1

    def compile(self, jobs: Iterable[Callable[[], Any]]) -> None:
        """Run jobs, each of which compiles one kernel; as many at a time as there are cores.

        NVRTC, which takes nearly all of the time, runs without Python's lock.
        """
        run(jobs)

    def _module(self, name: str, text: str) -> Any:
        cupy = self._cupy
        try:
            module = cupy.RawModule(code=text, options=("-std=c++17",))
            module.compile()
        # CuPy raises several classes of RuntimeError if NVRTC or CUDA's headers are not installed,
        # or if the driver refuses NVRTC's output.
        except (cupy.cuda.compiler.CompileException, RuntimeError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            first = next((line for line in lines if "error" in line), lines[0])
            raise KernelError(f"NVRTC failed on {name}: {first.strip()}") from error
        return module


def _pointer(array: Array | None) -> np.uint64 | None:
    """Return an array's address, so that a recorded launch does not keep the array alive."""
    return None if array is None else np.uint64(array.data.ptr)


def _structure(value: ctypes.Structure) -> np.void:
    """Return what CuPy passes to a kernel as a structure."""
    packed: np.void = np.void(bytes(value))
    return packed


@cache
def unavailable() -> str | None:
    """Return why there is no GPU to use, or None if there is one."""
    try:
        import cupy
    except (ImportError, OSError) as error:  # CuPy makes its cache folder, in the user's home
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            return "CuPy is not installed"
        return f"CuPy cannot be imported ({_sentence(error)})"
    try:
        if not cupy.cuda.runtime.getDeviceCount():
            return "CuPy finds no GPU"
        cupy.cuda.Device().compute_capability  # noqa: B018  the first real use of a driver
        driver = cupy.cuda.runtime.driverGetVersion() // 1000
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CuPy finds no working GPU ({_sentence(error)})"
    try:
        nvrtc, _ = cupy.cuda.nvrtc.getVersion()
        if nvrtc > driver:  # another package installed it
            return (
                f"CuPy finds NVRTC of CUDA {nvrtc}, whose code a driver of CUDA {driver} does not "
                f"run; uninstall what has brought it, such as nvidia-cuda-nvrtc {nvrtc}"
            )
        cupy.RawModule(code=_NOTHING).compile()
    except (cupy.cuda.compiler.CompileException, RuntimeError, OSError) as error:
        return f"CuPy cannot compile for the GPU ({_sentence(error)})"
    return None


def current_device() -> int:
    """Return the number of CuPy's current device."""
    import cupy

    return int(cupy.cuda.Device().id)


def borrowed(value: Any) -> Array:
    """Return an object that supports DLPack as a CuPy array, ordered after its owner's work on it.

    If the owner is PyTorch, its later work is ordered after CuPy's: when the last view of the array
    is gone, PyTorch's stream waits for CuPy's current stream.
    """
    import cupy

    array = cupy.from_dlpack(value)
    torch: Any = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        return array
    with array.device:
        lender = cupy.cuda.Stream.from_external(torch.cuda.current_stream(array.device.id))
        if lender == cupy.cuda.get_current_stream():
            return array
        loan = _Loan(array, lender)
        memory = cupy.cuda.UnownedMemory(array.data.ptr, array.nbytes, loan, array.device.id)
        pointer = cupy.cuda.MemoryPointer(memory, 0)
        return cupy.ndarray(array.shape, array.dtype, pointer, array.strides)


class _Loan:
    """Owns the memory of a borrowed array; orders streams when the last view is gone."""

    def __init__(self, array: Array, lender: Any) -> None:
        self._array, self._lender = array, lender

    def __del__(self) -> None:
        import cupy

        with self._array.device:
            self._lender.wait_event(cupy.cuda.get_current_stream().record())


def describe() -> str:
    """Return name, memory and versions of the current GPU."""
    import cupy

    device = cupy.cuda.Device()
    properties = cupy.cuda.runtime.getDeviceProperties(device.id)
    return (
        f"{properties['name'].decode()}, compute capability {device.compute_capability}, "
        f"{properties['totalGlobalMem'] / 2**30:.0f} GiB, CuPy {cupy.__version__}, "
        f"driver CUDA {cupy.cuda.runtime.driverGetVersion()}"
    )


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())
