"""`kernels.torch` against `torch.nn.functional`: values, gradients, refusals, memory."""

import contextlib
import math
import sys
import types

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

import kernels.torch
from kernels.runtime import as_array, cuda
from kernels.torch import operators
from tests.lib.comparison import assert_close
from tests.lib.fresh_python import REPOSITORY, output, run
from tests.lib.support import RTOL
from tests.lib.tensors import normal

LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    """Each device on which both PyTorch and the kernels work."""
    if request.param == "cuda":
        reason = cuda.unavailable()
        if reason is None and not torch.cuda.is_available():
            reason = "PyTorch finds no GPU"
        if reason is not None:
            pytest.skip(reason)
    return request.param


def flat(results):
    return results if isinstance(results, tuple) else (results,)


def leaf(tensor, device, dtype, layout):
    """Return a copy that takes gradients."""
    if tensor is None:
        return None
    copy = tensor.to(device, dtype, copy=True)
    return (copy.contiguous(memory_format=layout) if copy.ndim == 4 else copy).requires_grad_()


def assert_same(ours, theirs, *tensors, device="cpu", layout=torch.contiguous_format, **options):
    """Compare two functions of tensors, and their gradients; return our results.

    Ours is given float32. Theirs is given float64 on the CPU, whatever the device: it is exact.
    """
    mine = [leaf(tensor, device, torch.float32, layout) for tensor in tensors]
    exact = [leaf(tensor, "cpu", torch.float64, layout) for tensor in tensors]
    results, expected = flat(ours(*mine, **options)), flat(theirs(*exact, **options))
    dy = normal(99, *results[0].shape)
    results[0].backward(dy.to(device))
    expected[0].backward(dy.double())
    pairs = list(zip(results, expected, strict=True))
    pairs += [(t.grad, e.grad) for t, e in zip(mine, exact, strict=True) if t is not None]
    for actual, reference in pairs:
        assert actual.device.type == device
        assert_close(
            actual.detach().cpu().numpy(), reference.detach().numpy(), rtol=RTOL["float32"]
        )
    return results


# --- values and gradients


@pytest.mark.parametrize("layout", LAYOUTS, ids=["NCHW", "channels_last"])
@pytest.mark.parametrize(
    "x_shape, w_shape, options",
    [
        ((2, 5, 9, 8), (7, 5, 3, 2), {}),
        ((2, 4, 9, 8), (6, 2, 3, 2), {"stride": (2, 1), "padding": (0, 2), "groups": 2}),
        ((2, 4, 9, 8), (8, 1, 3, 3), {"groups": 4, "padding": 1}),  # depthwise
        ((3, 1, 28, 28), (8, 1, 5, 5), {}),  # one channel: either format is both
        ((3, 6, 1, 1), (4, 6, 1, 1), {}),  # one pixel: either format is both
        ((2, 3, 9, 8), (4, 3, 2, 3), {"padding": "same", "dilation": (3, 2)}),  # uneven sides
        ((2, 3, 9, 8), (4, 3, 2, 3), {"padding": "valid", "stride": 2, "dilation": 2}),
        ((0, 3, 9, 8), (4, 3, 3, 3), {"stride": 2}),  # an empty batch
    ],
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_conv2d(device, x_shape, w_shape, options, layout):
    x, w, b = normal(0, *x_shape), normal(1, *w_shape), normal(2, w_shape[0])
    same = {"device": device, "layout": layout, **options}
    for bias in (b, None):
        (y,) = assert_same(kernels.torch.conv2d, functional.conv2d, x, w, bias, **same)
        assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("layout", LAYOUTS, ids=["NCHW", "channels_last"])
@pytest.mark.parametrize(
    "x_shape, options",
    [
        ((2, 5, 9, 8), {"kernel_size": 2}),
        ((2, 5, 9, 8), {"kernel_size": (3, 2), "stride": (1, 2), "padding": (1, 0)}),
        ((2, 5, 9, 8), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
        ((2, 5, 10, 8), {"kernel_size": 2, "stride": 3, "dilation": 2, "ceil_mode": True}),
        ((1, 2, 20, 20), {"kernel_size": 17, "stride": 1}),  # offsets above 255: uint16
        ((0, 5, 9, 8), {"kernel_size": 2}),  # an empty batch
        ((2, 5, 2, 2), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),  # the only window
    ],
)
def test_max_pool2d(device, x_shape, options, layout):
    x = (4 * normal(0, *x_shape)).round()  # with ties
    both = {"device": device, "layout": layout, **options}
    assert_same(kernels.torch.max_pool2d, functional.max_pool2d, x, **both)
    assert_same(kernels.torch.max_pool2d, functional.max_pool2d, x, return_indices=True, **both)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "shape",
    [
        (50, 7),  # after a dense layer
        (6, 7, 9),
        (4, 7, 5, 6),
        (2, 7, 3, 4, 5),
        (9, 7, 1, 1),  # one pixel
    ],
)
def test_batch_norm(device, shape, training, affine):
    x, weight, bias = 3 + 2 * normal(0, *shape), normal(1, 7), normal(2, 7)
    mean, var = normal(3, 7), normal(4, 7).abs()
    moved = {}

    def by(function):
        def call(x, weight, bias):
            running = (mean.to(x, copy=True), var.to(x, copy=True))
            y = function(x, *running, weight, bias, training, 0.3, 1e-3)
            moved[function] = [statistic.cpu().numpy() for statistic in running]
            return y

        return call

    ours, theirs = kernels.torch.batch_norm, functional.batch_norm
    tensors = (x, weight, bias) if affine else (x, None, None)
    assert_same(by(ours), by(theirs), *tensors, device=device)
    for statistic, expected in zip(moved[ours], moved[theirs], strict=True):
        assert_close(statistic, expected, rtol=RTOL["float32"])
    assert (moved[ours][0] != mean.numpy()).any() == training


def test_batch_norm_without_running_statistics(device):
    """As a BatchNorm2d with track_running_stats=False calls it."""

    def by(function):
        return lambda x: function(x, None, None, training=True)

    ours, theirs = by(kernels.torch.batch_norm), by(functional.batch_norm)
    assert_same(ours, theirs, normal(0, 4, 7, 5, 6), device=device)


def test_batch_norm_of_an_empty_batch_moves_nothing(device):
    running = torch.full((3,), 2.0, device=device), torch.full((3,), 5.0, device=device)
    y = kernels.torch.batch_norm(torch.empty(0, 3, 4, 4, device=device), *running, training=True)
    assert y.shape == (0, 3, 4, 4)
    assert (running[0] == 2).all() and (running[1] == 5).all()


# One value per channel, two, none; no channel at all, of one image and of several.
@pytest.mark.parametrize(
    "shape", [(1, 3), (1, 3, 1, 1), (2, 3), (1, 3, 1, 2), (0, 3), (1, 3, 0, 4), (1, 0), (5, 0)]
)
@pytest.mark.parametrize("mode", [contextlib.nullcontext, FakeTensorMode], ids=["real", "fake"])
def test_batch_norm_trains_on_what_pytorch_trains_on(device, shape, mode):
    def outcome(function):
        with mode():
            x, mean = (torch.ones(lengths, device=device) for lengths in (shape, shape[1:2]))
            try:
                return function(x, mean, mean.clone(), training=True).shape
            except ValueError:
                return ValueError

    expected = outcome(functional.batch_norm)
    assert outcome(kernels.torch.batch_norm) == expected
    assert (expected is ValueError) == (math.prod((shape[0], *shape[2:])) == 1)


@pytest.mark.parametrize(
    "shape",
    [
        (20, 11),
        (2, 3, 4, 11),  # linear takes any leading axes
        (11,),  # and none
        (0, 11),  # an empty batch
    ],
)
def test_dense(device, shape):
    x, w, b = normal(0, *shape), normal(1, 5, 11), normal(2, 5)
    for bias in (b, None):
        assert_same(kernels.torch.dense, functional.linear, x, w, bias, device=device)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    "options",
    [{}, {"label_smoothing": 0.1}, {"ignore_index": 3}, {"weight": True, "label_smoothing": 0.2}],
)
def test_softmax_cross_entropy(device, options, reduction):
    target = torch.arange(30) % 7

    def by(function):
        def call(x):
            weighted = {"weight": normal(1, 7).abs().to(x)} if "weight" in options else {}
            settings = {**options, **weighted, "reduction": reduction}
            return function(x, target.to(x.device), **settings)

        return call

    ours, theirs = by(kernels.torch.softmax_cross_entropy), by(functional.cross_entropy)
    assert_same(ours, theirs, 5 * normal(0, 30, 7), device=device)


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("factor", [float("inf"), float("nan")])
def test_a_row_that_is_left_out_has_no_gradient_whatever_comes_back(reduction, factor):
    gradients = []
    for function in (kernels.torch.softmax_cross_entropy, functional.cross_entropy):
        x = torch.tensor([[1.0, 2, 3], [4, 5, 7]], requires_grad=True)
        loss = function(x, torch.tensor([2, -100]), reduction=reduction)
        (factor * loss).sum().backward()
        gradients.append(x.grad)
    assert torch.equal(gradients[0][1], gradients[1][1]) and not gradients[0][1].any()
    assert not gradients[0][0].isfinite().any()


def test_softmax_cross_entropy_of_an_empty_batch(device):
    x, target = torch.empty(0, 7, device=device), torch.empty(0, dtype=torch.int64, device=device)
    assert kernels.torch.softmax_cross_entropy(x, target).isnan()
    assert kernels.torch.softmax_cross_entropy(x, target, reduction="sum") == 0


PRODUCTS = {
    "conv2d": (kernels.torch.conv2d, [(2, 4, 6, 6), (3, 4, 3, 3), (3,)]),
    "conv2d of Winograd": (kernels.torch.conv2d, [(4, 16, 20, 20), (16, 16, 3, 3), (16,)]),
    "conv2d_pool": (
        lambda *tensors: operators.conv2d_pool(*tensors, [1, 1], [0] * 4, [1, 1], [2, 2])[0],
        [(2, 4, 6, 6), (3, 4, 3, 3), (3,)],
    ),
    "conv2d_pool of several kernels": (
        lambda *tensors: operators.conv2d_pool(*tensors, [1, 1], [0] * 4, [1, 1], [4, 1])[0],
        [(2, 4, 6, 6), (3, 4, 3, 3), (3,)],
    ),
    "dense": (kernels.torch.dense, [(5, 4), (3, 4), (3,)]),
}


@pytest.mark.parametrize("needed", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1)])
@pytest.mark.parametrize("name", PRODUCTS)
def test_some_of_the_gradients(device, name, needed):
    function, shapes = PRODUCTS[name]

    def gradients(needed):
        tensors = [
            normal(seed, *shape).to(device).requires_grad_(bool(need))
            for seed, (shape, need) in enumerate(zip(shapes, needed, strict=True))
        ]
        function(*tensors).square().sum().backward()
        return [tensor.grad for tensor in tensors]

    for some, every, need in zip(gradients(needed), gradients((1, 1, 1)), needed, strict=True):
        assert (some is not None) == need
        if need:
            torch.testing.assert_close(some, every)


@pytest.mark.parametrize("name", ["conv2d", "dense"])
def test_gradients_that_nobody_needs_are_not_computed(name, monkeypatch):
    function, shapes = PRODUCTS[name]
    original, asked = getattr(kernels, f"{name}_backward"), []

    def backward(*arrays, **options):
        asked.append({key: options[key] for key in options if key.startswith("need")})
        return original(*arrays, **options)

    monkeypatch.setattr(kernels, f"{name}_backward", backward)
    x, w, b = (normal(seed, *shape) for seed, shape in enumerate(shapes))
    function(x.requires_grad_(), w, b).sum().backward()
    function(x.detach(), w.requires_grad_(), b).sum().backward()
    assert asked == [
        {"need_dx": True, "need_dw": False, "need_db": False},
        {"need_dx": False, "need_dw": True, "need_db": False},
    ]


# --- memory


def test_softmax_cross_entropy_keeps_the_gradient_and_not_the_logits():
    x, saved = normal(0, 5, 7).requires_grad_(), []
    with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda _: None):
        kernels.torch.softmax_cross_entropy(2 * x, torch.arange(5))
    assert [tensor.shape for tensor in saved] == [x.shape]


def test_channels_last_tensors_go_in_and_out_without_a_copy(monkeypatch):
    seen = []
    original = kernels.conv2d

    def conv2d(x, w, b, **options):
        y = original(x, w, b, **options)
        seen.append([as_array("", array)[1].ctypes.data for array in (x, w, b, y)])
        return y

    monkeypatch.setattr(kernels, "conv2d", conv2d)
    x = normal(0, 2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    w = normal(1, 4, 3, 3, 3).contiguous(memory_format=torch.channels_last)
    b = normal(2, 4)
    y = kernels.torch.conv2d(x, w, b)
    assert seen == [[tensor.data_ptr() for tensor in (x, w, b, y)]]


def test_the_memory_of_arguments_can_still_be_resized():
    """As FSDP does with parameters, which it frees between the layers' turns."""
    x, w, dy = (
        torch.randn(shape).contiguous(memory_format=torch.channels_last)
        for shape in ((2, 3, 8, 8), (4, 3, 3, 3), (2, 4, 6, 6))
    )
    b = torch.randn(4)
    kernels.torch.conv2d(x, w.requires_grad_(), b).backward(dy)
    assert all(tensor.untyped_storage().resizable() for tensor in (x, w, b, dy))


def test_tensors_that_are_no_whole_block_of_memory(device):
    x, w = normal(0, 2, 6, 9, 16).to(device)[:, ::2, :, 1::2], normal(1, 4, 3, 3, 3).to(device)
    assert kernels.torch.conv2d(x, w).equal(kernels.torch.conv2d(x.contiguous(), w))


def test_a_broadcast_gradient(device):
    """The gradient of a sum is one number, seen with strides of 0."""
    x = normal(0, 2, 3, 8, 8).to(device).requires_grad_()
    kernels.torch.max_pool2d(x, 2).sum().backward()
    assert x.grad.sum() == 2 * 3 * 4 * 4


def test_a_gpu_is_used_on_the_current_stream_of_pytorch(monkeypatch):
    """A stand-in for CuPy and the GPU shows which stream is CuPy's, and for how long."""
    events = []

    @contextlib.contextmanager
    def entered(kind, value):
        events.append(("enter", kind, value))
        yield
        events.append(("exit", kind, value))

    cupy = types.ModuleType("cupy")
    cupy.cuda = types.SimpleNamespace(
        Device=lambda index: entered("device", index),
        Stream=types.SimpleNamespace(from_external=lambda stream: entered("stream", stream)),
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(kernels.torch.registration, "unavailable", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"current of {device}")
    with kernels.torch.registration._on_current_stream(torch.device("cuda", 1)):
        events.append("launch")
    inside = [("device", 1), ("stream", "current of cuda:1")]
    entering, leaving = ([(word, *pair) for pair in inside] for word in ("enter", "exit"))
    assert events == [*entering, "launch", *leaving[::-1]]


def test_a_negated_view_is_read_as_what_it_stands_for():
    """The imaginary part of a conjugate: its memory holds the negative values."""
    x, w = torch.randn(3, 4, dtype=torch.complex64).conj().imag, normal(1, 5, 4)
    assert x.is_neg()
    torch.testing.assert_close(kernels.torch.dense(x, w), functional.linear(x, w))


def test_a_gpu_that_cupy_cannot_use_is_one_sentence(monkeypatch):
    monkeypatch.setattr(kernels.torch.registration, "unavailable", lambda: "CuPy is not installed")
    sentence = "^the tensors are on a GPU, but CuPy is not installed$"
    with pytest.raises(kernels.KernelError, match=sentence):
        kernels.torch.registration._on_current_stream(torch.device("cuda", 0))


# --- refusals

X, W, V = torch.zeros(2, 4, 8, 8), torch.zeros(6, 4, 3, 3), torch.zeros(4)
LOGITS, CLASSES = torch.zeros(5, 4), torch.zeros(5, dtype=torch.int64)


@pytest.mark.parametrize(
    "function, arguments, kind, sentence",
    [
        ("conv2d", (np.zeros(3), W), TypeError, "input: got ndarray, expected a torch.Tensor"),
        (
            "conv2d",
            (X.half(), W.half()),
            TypeError,
            "input: got torch.float16 on cpu, expected torch.float32 or torch.float64",
        ),
        (
            "conv2d",
            (X[0], W),
            ValueError,
            r"input: got shape \(4, 8, 8\), expected \(N, C, H, W\): im",
        ),
        (
            "conv2d",
            (X, W.double()),
            TypeError,
            "weight: got torch.float64, expected torch.float32 like input",
        ),
        ("conv2d", (X.to("meta"), W), ValueError, "input: is on meta, expected cpu or cuda"),
        ("conv2d", (X.to_sparse(), W), TypeError, "input: got a tensor of torch.sparse_coo, expec"),
        ("dense", (X, LOGITS.to_sparse()), TypeError, "weight: got a tensor of torch.sparse_coo"),
        ("conv2d", (X.to_mkldnn(), W), TypeError, "input: got a tensor of torch._mkldnn, expected"),
        ("dense", (X.to(torch.complex64), W), TypeError, "input: got torch.complex64 on cpu, exp"),
        ("conv2d", (X, W.to("meta")), ValueError, "weight: is on meta, expected cpu like input"),
        (
            "conv2d",
            (X, W, None, 1, 0, 1, 2),
            ValueError,
            r"weight: got shape \(6, 4, 3, 3\), expected \(F, C/groups, KH, KW\) for",
        ),
        (
            "conv2d",
            (X, W[:5, :2], None, 1, 0, 1, 2),
            ValueError,
            "groups: got 2 for 4 channels and 5 filters, expected a divisor of both",
        ),
        (
            "conv2d",
            (X, W, V),
            ValueError,
            r"bias: got shape \(4,\), expected \(6,\): one bias per filter",
        ),
        ("conv2d", (X, W[:0]), ValueError, r"weight: got shape \(0, 4, 3, 3\), expected filters"),
        ("conv2d", (X[:, :0], W[:, :0]), ValueError, r"weight: got shape \(6, 0, 3, 3\), expected"),
        ("conv2d", (X, W, None, 0), ValueError, "stride: got 0, expected at least 1"),
        ("conv2d", (X, W, None, 1, "full"), ValueError, "padding: got 'full', expected"),
        ("conv2d", (X, W, None, 2, "same"), ValueError, r"stride: got \(2, 2\), expected 1 with"),
        ("conv2d", (X[..., :2], W), ValueError, "kernel: extends over 3, larger than the padded"),
        ("conv2d", (X, W, None, 1, 0, 1, None), TypeError, "groups: got None, expected a whole"),
        ("layer_norm", (X, 8), TypeError, "normalized_shape: got 8, expected a sequence of len"),
        ("max_pool2d", (X, 0), ValueError, "kernel_size: got 0, expected at least 1"),
        ("max_pool2d", (X, 2, 2, "same"), TypeError, "padding: got 'same', expected a whole"),
        ("batch_norm", (V, V, V), ValueError, r"input: got shape \(4,\), expected \(N, C, ...\)"),
        ("batch_norm", (X, None, V), ValueError, "running_mean: got None, expected a tensor where"),
        (
            "batch_norm",
            (X, V, V, V[1:]),
            ValueError,
            r"weight: got shape \(3,\), expected \(4,\): one value per channel",
        ),
        (
            "batch_norm",
            (LOGITS[:1], V, V, V, V, True),
            ValueError,
            r"input: got shape \(1, 4\), expected more than one value per channel to train on",
        ),
        ("batch_norm", (X, V, V, V, V, True, 2.0), ValueError, "momentum: got 2.0, expected at"),
        ("dense", (V.sum(), W), ValueError, r"input: got shape \(\), expected \(..., in\)"),
        (
            "dense",
            (X, LOGITS),
            ValueError,
            r"weight: got shape \(5, 4\), expected \(out, 8\): one row per output",
        ),
        ("softmax_cross_entropy", (LOGITS, LOGITS), TypeError, "target: got torch.float32, expect"),
        (
            "softmax_cross_entropy",
            (LOGITS, CLASSES[:2]),
            ValueError,
            r"target: got shape \(2,\), expected \(5,\): one class per row",
        ),
        (
            "softmax_cross_entropy",
            (LOGITS, CLASSES, V.clone().requires_grad_()),
            ValueError,
            "weight: requires a gradient, expected one that does not",
        ),
        (
            "softmax_cross_entropy",
            (LOGITS, CLASSES, None, -100, "max"),
            ValueError,
            "reduction: got 'max', expected 'mean', 'sum' or 'none'",
        ),
    ],
)
def test_bad_arguments_are_named(function, arguments, kind, sentence):
    with pytest.raises(kind, match=f"^{sentence}"):
        getattr(kernels.torch, function)(*arguments)


def test_a_nested_tensor_is_refused():
    nested = torch.nested.nested_tensor([LOGITS, LOGITS[:2]], layout=torch.jagged)
    with pytest.raises(TypeError, match="^input: got a nested tensor, expected a dense one"):
        kernels.torch.dense(nested, LOGITS)


@pytest.mark.parametrize("absent", ["torch", "a_library_of_torch"])
def test_without_pytorch_one_sentence_says_so(tmp_path, absent):
    message = f"No module named '{absent}'"
    (tmp_path / "torch.py").write_text(f'raise ModuleNotFoundError("{message}")')
    path = f"{tmp_path}:{REPOSITORY}"
    said = run("-c", "import kernels.torch", PYTHONPATH=path).stderr.splitlines()[-1]
    assert said == f"ImportError: kernels.torch needs PyTorch, which cannot be imported: {message}"
    assert output("import kernels, cnn", PYTHONPATH=path) == ""
