"""A stand-in for the parts of CuPy 14.2 that the host side of the `cuda` target uses.

Kernels do nothing. It follows CuPy's sources for devices, streams and arrays: in which order work
runs, and where arrays differ from NumPy's. `install` puts it in CuPy's place.
"""

import contextlib
import operator
import sys
import types

import numpy as np

from kernels.runtime import cuda, targets


class Stream:
    """cupy/cuda/stream.pyx: equal by their pointers; one is the current one of its device."""

    def __init__(self, non_blocking=False, ptr=None):
        self.ptr = id(self) if ptr is None else ptr
        self.done = set()  # all work that the next work comes after
        self.captured = None

    def __eq__(self, other):
        return self.ptr == other.ptr

    def __hash__(self):
        return hash(self.ptr)

    def __enter__(self):
        gpu.streams.append(self)

    def __exit__(self, *_):
        gpu.streams.pop()

    @staticmethod
    def from_external(stream):
        return stream

    def record(self):
        return frozenset(self.done)

    def wait_event(self, event):
        self.done |= event

    def begin_capture(self):
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        self.captured = []

    def end_capture(self):
        captured, self.captured = self.captured, None
        return Graph(captured)


class Graph:
    """cupy/cuda/graph.pyx."""

    def __init__(self, captured):
        self.captured = captured

    def launch(self, stream):
        with stream:
            work("graph")


class Gpu:
    """The state of the stand-in: devices, streams and the work that they were given."""

    def __init__(self):
        self.devices, self.streams, self.work = [0], [Stream(ptr=0)], []


gpu = Gpu()


def work(name, device=None):
    """Give the current stream some work: a tuple (number, name), and what it comes after."""
    if device is not None and device != gpu.devices[-1]:
        # CuPy would refuse it, or run it on a stream of the other device, in no order.
        raise AssertionError(f"{name} on device {gpu.devices[-1]}, the array is on {device}")
    stream = gpu.streams[-1]
    if stream.captured is not None:
        stream.captured.append(name)
        return
    done = (len(gpu.work), name)
    gpu.work.append((done, frozenset(stream.done)))
    stream.done.add(done)


class Device:
    """cupy/cuda/device.pyx: without a number, the current one."""

    compute_capability = "90"

    def __init__(self, number=None):
        self.id = gpu.devices[-1] if number is None else int(number)

    def __enter__(self):
        gpu.devices.append(self.id)

    def __exit__(self, *_):
        gpu.devices.pop()


def pointer(address, values, device):
    """memory.pyx, MemoryPointer; it does not keep the array, which PyTorch may wait for."""

    def memset_async(byte, size):
        work("memset", device.id)
        values.reshape(-1).view(np.uint8)[:size] = byte

    return types.SimpleNamespace(ptr=address, memset_async=memset_async)


class ndarray:  # noqa: N801  CuPy's name
    """A NumPy array that says it is on a device."""

    def __init__(self, shape, dtype, memptr=None, strides=None):
        self.values = np.empty(shape, dtype) if memptr is None else memptr.mem.owner._array.values
        self.device = Device() if memptr is None else memptr.mem.owner._array.device
        self.owner = None if memptr is None else memptr.mem.owner
        address = self.values.ctypes.data if self.values.size else 0
        self.data = pointer(address, self.values, self.device)

    def like(self, values):
        """Return an array, also for a scalar, as CuPy does, with the memory of this one."""
        array = ndarray((), np.uint8)
        array.values, array.device, array.owner = np.asarray(values), self.device, self.owner
        array.data = pointer(array.values.ctypes.data, array.values, array.device)
        return array

    dtype = property(lambda self: self.values.dtype)
    shape = property(lambda self: self.values.shape)
    strides = property(lambda self: self.values.strides)
    size = property(lambda self: self.values.size)
    ndim = property(lambda self: self.values.ndim)
    nbytes = property(lambda self: self.values.nbytes)
    itemsize = property(lambda self: self.values.itemsize)
    flags = property(
        lambda self: types.SimpleNamespace(c_contiguous=self.values.flags.c_contiguous)
    )
    __cuda_array_interface__ = property(lambda self: self.values.__array_interface__)

    def __len__(self):
        return len(self.values)

    def __float__(self):
        return float(self.values)

    def __bool__(self):
        return bool(self.values)

    __int__ = __index__ = lambda self: int(self.values)

    def get(self):
        return self.values.copy()

    def fill(self, value):
        """core.pyx, fill: what equals 0 is a memset."""
        work("fill", self.device.id)
        self.values[...] = 0 if value == 0 else value

    def __setitem__(self, key, value):
        """_routines_indexing.pyx, _scatter_op: what is no array of CuPy's is filled in."""
        if not isinstance(value, ndarray):
            self[key].fill(value)
            return
        work("copy", self.device.id)
        self.values[key] = value.values

    def astype(self, dtype, copy=True):
        if not copy and self.dtype == dtype:
            return self
        return self._launched("astype", dtype)

    def _launched(self, name, *others, **options):
        work(name, self.device.id)
        others = [other.values if isinstance(other, ndarray) else other for other in others]
        method = getattr(self.values, name, None) or getattr(operator, name)
        return self.like(method(*others, **options))


for _name in ("reshape", "view", "__getitem__"):  # of fancy indices, one of an array is enough
    setattr(
        ndarray,
        _name,
        lambda self, *a, _name=_name: self.like(
            getattr(self.values, _name)(*(o.values if isinstance(o, ndarray) else o for o in a))
        ),
    )
for _name in (
    "copy",
    "clip",
    "all",
    "min",
    "max",
    "sum",
    "argmax",
    "__mul__",
    "__eq__",
    "__iadd__",
):
    setattr(ndarray, _name, lambda self, *a, _name=_name, **k: self._launched(_name, *a, **k))


def asarray(values, dtype=None, order=None, blocking=False):
    """core.pyx, _array_default: an array of no dimension is filled, others are copied.

    Not yet when this returns, unless it is blocking: pinned memory is read later.
    """
    if isinstance(values, ndarray):
        array = values
        if array.device.id != gpu.devices[-1]:
            array = empty(values.shape, values.dtype)
            array.values[...] = values.values
        wanted = np.asarray(array.values, dtype, order=order)
        return array if wanted is array.values else array.like(wanted)
    host = np.asarray(values, dtype, order=order)
    if hasattr(values, "__cuda_array_interface__"):
        return empty((), np.uint8).like(host)
    array = empty(host.shape, host.dtype)
    if host.ndim == 0:
        array.fill(host)
    else:
        work("copy")
        array = array.like(host.copy() if blocking else host)
    return array


def ascontiguousarray(values):
    """core.pyx: an array of no dimension becomes one of one."""
    wanted = np.ascontiguousarray(values.values)
    return values if wanted is values.values else values.like(wanted)


def empty(shape, dtype):
    return ndarray(shape, dtype)


def from_dlpack(tensor):
    """dlpack.pyx: the lender orders the current stream after its own."""
    return tensor.lend(gpu.streams[-1])


class RawModule:
    """_core/raw.pyx: compiling raises what the test says."""

    error = None

    def __init__(self, code, options=()):
        pass

    def compile(self):
        if self.error is not None:
            raise self.error

    def get_function(self, name):
        return lambda grid, block, arguments, shared_mem=0: work(name)


class CompileException(Exception):  # noqa: N818  CuPy's name
    """cupy/cuda/compiler.py."""


@contextlib.contextmanager
def installed(monkeypatch):
    """Put the stand-in in CuPy's place, with two devices and all state new."""
    global gpu
    gpu = Gpu()
    module = types.ModuleType("cupy")
    names = (ndarray, asarray, ascontiguousarray, empty, from_dlpack, RawModule)
    vars(module).update({thing.__name__: thing for thing in names})
    module.cuda = types.SimpleNamespace(
        Device=Device,
        Stream=Stream,
        UnownedMemory=lambda ptr, size, owner, device: types.SimpleNamespace(owner=owner),
        MemoryPointer=lambda memory, offset: types.SimpleNamespace(mem=memory),
        compiler=types.SimpleNamespace(CompileException=CompileException),
        get_current_stream=lambda: gpu.streams[-1],
        nvrtc=types.SimpleNamespace(getVersion=lambda: (13, 0)),
        runtime=types.SimpleNamespace(
            CUDARuntimeError=type("CUDARuntimeError", (RuntimeError,), {}),
            getDeviceCount=lambda: 2,
            driverGetVersion=lambda: 13000,
        ),
    )
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(targets, "_CUDA", {})  # without what CuPy itself has made
    monkeypatch.setattr(RawModule, "error", None)
    cuda.unavailable.cache_clear()
    yield gpu
    cuda.unavailable.cache_clear()
