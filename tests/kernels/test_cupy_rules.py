"""The host's side of the `cuda` target keeps CuPy's rules; see cupy_stand_in.py."""

import sys
import types

import numpy as np
import pytest

import kernels
from cnn import SGD, Flatten, Sequential, Trainer
from kernels import KernelError
from kernels.runtime import Source, as_array, choose_target, cuda_target
from kernels.runtime.arena import Arena
from kernels.runtime.recording import Recording
from tests.lib import cupy_stand_in as cupy


@pytest.fixture
def gpu(monkeypatch):
    """The state of the stand-in for a GPU."""
    with cupy.installed(monkeypatch) as state:
        yield state


def on_device(values, number=0):
    with cupy.Device(number):
        return cupy.asarray(values)


def after(later, earlier):
    """Return whether a piece of work comes after another; both by their places in the list."""
    work = cupy.gpu.work
    return work[earlier][0] in work[later][1]


# --- arrays


def test_an_array_of_no_dimension_keeps_its_shape_and_its_bits(gpu):
    target = cuda_target()
    for values in (np.array(2.5), np.float32(-0.0), np.array(-0.0), on_device(np.ones(()))):
        array = target.array(values)
        assert array.shape == ()
        assert array.get().tobytes() == np.asarray(getattr(values, "values", values)).tobytes()
    assert target.array(on_device(np.array(1, np.int32)), np.int64).dtype == np.int64


@pytest.mark.parametrize("values", [np.arange(6.0).reshape(2, 3).T, [1.0, 2.0]])
def test_other_arrays_are_contiguous(gpu, values):
    target = cuda_target()
    array = target.array(values)
    assert array.flags.c_contiguous
    np.testing.assert_array_equal(array.get(), values)
    assert target.array(array) is array


def test_memory_of_the_host_may_change_once_it_was_taken(gpu):
    """Pinned memory may change, too."""
    values = np.ones(3)
    array = cuda_target().array(values)
    values[:] = 2
    assert array.get().tolist() == [1, 1, 1]


def test_casts_are_made_on_the_device_of_the_labels(gpu):
    logits, labels = on_device(np.ones((3, 4)), 1), on_device(np.arange(3, dtype=np.uint64), 1)
    losses, _ = kernels.softmax_cross_entropy(logits, labels, reduction="none")
    assert losses.device.id == 1


def test_zeros_are_written_on_their_device(gpu):
    assert gpu.devices[-1] == 0
    zeros = cuda_target(1).zeros((3,), np.float32)
    assert zeros.device.id == 1 and not zeros.get().any()


def test_the_gpu_of_a_model_is_the_current_one(gpu):
    with cupy.Device(1):
        target, _ = choose_target("cuda")
    assert target is cuda_target(1)


def test_a_model_is_used_whatever_the_current_device(gpu):
    with cupy.Device(1):
        model = Sequential([Flatten()], (2, 3, 1), "cuda")
    x = np.ones((4, 2, 3, 1), np.float32)
    assert model.predict(x).device.id == 1
    labels = np.arange(4)

    def loss(outputs, labels, grad=True):
        return on_device(np.float32(2), 1), outputs * 0

    for data in ((x, labels), (on_device(x.astype(np.float16), 1), on_device(labels, 1))):
        trainer = Trainer(model, SGD(0.1), loss)
        assert trainer.fit(data)[-1]["train_loss"] == 2
        assert trainer.evaluate(data)["loss"] == 2


def test_losses_of_a_narrow_type_add_up_in_a_wide_one(gpu):
    """The sum, 256 times 300, is beyond float16."""
    model = Sequential([Flatten()], (1, 1, 1), "cuda", "float16")

    def loss(outputs, labels, grad=True):
        return on_device(np.array(300, np.float16)), outputs * 0

    data = np.ones((512, 1, 1), np.float32), np.zeros(512, np.int64)
    assert Trainer(model, SGD(0.1), loss).fit(data)[-1]["train_loss"] == 300


# --- compiling and taking arrays


@pytest.mark.parametrize(
    "error",
    [
        cupy.CompileException("x.cu(1): note\nx.cu(2): error: no such thing"),
        RuntimeError("error: no headers of CUDA"),  # _core.assemble_cupy_compiler_options
        type("DynamicLibNotFoundError", (RuntimeError,), {})("error: no libnvrtc.so"),
        type("CUDADriverError", (RuntimeError,), {})(""),  # the driver refuses the code
    ],
)
def test_what_keeps_from_compiling_is_a_kernel_error(gpu, monkeypatch, error):
    target = cuda_target()
    monkeypatch.setattr(cupy.RawModule, "error", error)
    source = Source("x.cu", "KERNEL none(int n) {}", packaged=False)
    said = str(error).splitlines()[-1] if str(error) else "CUDADriverError"
    with pytest.raises(KernelError) as caught:
        source.kernel("none", target, np.float32).compile()
    assert str(caught.value) == f"NVRTC failed on x.cu: {said}"


class Tensor:
    """PyTorch's, on a GPU: lent out, it orders the borrower's stream after its own."""

    stream = cupy.Stream()
    __torch_dispatch__ = None  # as of all tensors that have values

    def __init__(self, values, error=None):
        self.values, self.error = values, error

    def is_neg(self):
        return False

    def __dlpack_device__(self):
        return 2, 0

    def lend(self, borrower):
        if self.error is not None:
            raise self.error
        borrower.wait_event(self.stream.record())
        return self.values


@pytest.mark.parametrize("kind", [BufferError, NotImplementedError, TypeError, ValueError])
def test_a_tensor_that_cupy_does_not_take_is_named(gpu, kind):
    tensor = Tensor(None, kind("requires a gradient"))
    sentence = "^x: CuPy cannot take it through DLPack: requires a gradient$"
    with pytest.raises(TypeError, match=sentence):
        kernels.relu(tensor)


# --- streams


@pytest.fixture
def pytorch(monkeypatch, gpu):
    """PyTorch with a current stream that is not CuPy's."""
    stream = cupy.Stream()
    monkeypatch.setattr(Tensor, "stream", stream)
    current = types.SimpleNamespace(current_stream=lambda device: stream)
    torch = types.SimpleNamespace(Tensor=Tensor, cuda=current)
    monkeypatch.setitem(sys.modules, "torch", torch)
    return stream


def test_pytorch_waits_for_what_was_done_with_its_tensors(gpu, pytorch):
    with pytorch:
        cupy.work("before")
    param, grad = (Tensor(on_device(np.ones(3, np.float32))) for _ in range(2))
    kernels.sgd_step(param, grad, lr=0.1)
    update = len(gpu.work) - 1
    assert gpu.work[update][0][1] == "sgd" and after(update, 0)
    with pytorch:
        cupy.work("after")
    assert after(update + 1, update)


def test_views_of_a_tensor_keep_pytorch_waiting(gpu, pytorch):
    _, array = as_array("x", Tensor(on_device(np.ones((3, 2), np.float32))))
    view = array.reshape(6)
    del array
    cupy.work("with the view")
    assert not pytorch.done & {gpu.work[-1][0]}
    del view
    assert gpu.work[-1][0] in pytorch.done


def test_on_one_stream_nobody_waits(gpu, pytorch):
    with pytorch:
        values = on_device(np.ones(3, np.float32))
        _, array = as_array("x", Tensor(values))
    assert array is values


def recorded(target, x):
    with Recording(Arena(target), [x]) as recording:
        kernels.relu(x)
    return recording


def test_a_replay_comes_after_its_recording_and_what_was_before_it(gpu):
    """This holds on any stream; what is launched later on the same stream comes after it."""
    target, x = cuda_target(), on_device(np.ones(5, np.float32))
    recording = recorded(target, x)
    first = len(gpu.work) - 1
    with cupy.Stream():
        cupy.work("before")
        recording.replay()
        cupy.work("after")
    before, replay, later = first + 1, first + 2, first + 3
    assert gpu.work[replay][0][1] == "graph"
    assert after(replay, first) and after(replay, before) and after(later, replay)
    with cupy.Stream():
        recording.replay()
    assert after(later + 1, replay)


def test_replays_where_they_were_recorded_wait_for_nothing(gpu, monkeypatch):
    with cupy.Stream():
        recording = recorded(cuda_target(), on_device(np.ones(5, np.float32)))
        monkeypatch.setattr(cupy.Stream, "wait_event", None)
        recording.replay()


def test_predictions_on_several_streams_take_turns(gpu):
    """They share the memory of a recording: its input, its arena, its result."""
    model = Sequential([Flatten()], (2, 3, 1), "cuda")
    x = on_device(np.arange(24, dtype=np.float32).reshape(4, 2, 3, 1))
    model.predict(x)
    ends = [len(gpu.work)]
    for _ in range(2):
        with cupy.Stream():
            cupy.work("before")
            np.testing.assert_array_equal(model.predict(x).get(), x.get().reshape(4, 6))
            cupy.work("after")
        ends.append(len(gpu.work))
    for begin, end in zip(ends, ends[1:], strict=False):
        shared = [place for place in range(end) if gpu.work[place][0][1] in ("copy", "graph")]
        own = [place for place in shared if place >= begin]
        assert [gpu.work[place][0][1] for place in own] == ["copy", "graph", "copy"]
        previous = [begin, *(place for place in shared if place < begin)]
        assert all(after(later, earlier) for later in own for earlier in previous)
        assert all(after(end - 1, place) for place in own)
