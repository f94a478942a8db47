"""`kernels.torch` within PyTorch: its own checks of operators, gradients, compiling, training."""

import shutil

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import kernels.torch
from kernels.torch import operators, registration
from tests.cases import CASES
from tests.lib.fresh_python import REPOSITORY, output
from tests.lib.tensors import normal

POOL = ([3, 2], [2, 1], [1, 0], [1, 1], True)
CONV_POOL = ([1, 1], [1, 1, 0, 1], [1, 1], [2, 2])
CONV = ([2, 1], [1, 1, 0, 1], [1, 2], 2)
OF_IMAGES, OF_FILTERS = [True, False, False], [False, True, False]


def calls(N):
    """Every operator with arguments of a batch of N images; only the forward ones differentiate."""
    x, w = normal(0, N, 4, 7, 6, grad=True), normal(1, 6, 2, 3, 2, grad=True)
    y, argmax = operators.max_pool2d(x, *POOL)
    channels = [normal(i, 4).abs() for i in range(4)]
    gamma, beta = (channel.requires_grad_() for channel in channels[:2])
    rows, classes = normal(2, N, 5, grad=True), torch.arange(N) % 5
    matrix, b = normal(3, 3, 5, grad=True), normal(4, 3, grad=True)
    w2 = normal(1, 6, 4, 3, 2, grad=True)
    pooled = [v.detach() for v in operators.conv2d_pool(x, w2, None, *CONV_POOL)]
    pooled = [normal(3, *pooled[0].shape), *pooled, x.detach(), w2.detach()]
    dense_dy = normal(6, N, 3)
    conv_dy = operators.conv2d(x, w, None, *CONV).detach()
    statistics = operators.batch_norm(x, *channels, True, 0.1, 1e-5)[1:3]
    return {
        "conv2d": (x, w, normal(5, 6, grad=True), *CONV),
        "conv2d without bias": (x.detach(), w, None, *CONV),
        "conv2d_backward": (conv_dy, x.detach(), w.detach(), *CONV, [True] * 3),
        "conv2d_backward of the filters": (conv_dy, x.detach(), w.detach(), *CONV, OF_FILTERS),
        "conv2d_backward of the images": (conv_dy, x.detach(), w.detach(), *CONV, OF_IMAGES),
        "conv2d_pool": (x, w2, normal(5, 6, grad=True), *CONV_POOL),
        "conv2d_pool without bias": (x.detach(), w2, None, *CONV_POOL),
        "conv2d_pool of several kernels": (x, w2, None, *CONV_POOL[:3], [3, 1]),
        "conv2d_pool_backward": (*pooled, *CONV_POOL, [True] * 3),
        "conv2d_pool_backward of the filters": (*pooled, *CONV_POOL, OF_FILTERS),
        "conv2d_pool_backward of the images": (*pooled, *CONV_POOL, OF_IMAGES),
        "max_pool2d": (x, *POOL),
        "max_pool2d_backward": (y.detach(), argmax, 7, 6, *POOL),
        "pool_indices": (argmax, 7, 6, *POOL),
        "batch_norm": (x, *channels, True, 0.1, 1e-5),
        "batch_norm of running statistics": (x, gamma, beta, *channels[2:], False, 0.1, 1e-5),
        "batch_norm_backward": (*map(torch.Tensor.detach, (x, x, gamma, *statistics)), True),
        "dense": (rows, matrix, b),
        "dense without bias": (rows, matrix, None),
        "dense_backward": (dense_dy, rows.detach(), matrix.detach(), [True] * 3),
        "dense_backward of the weights": (dense_dy, rows.detach(), matrix.detach(), OF_FILTERS),
        "dense_backward of the rows": (dense_dy, rows.detach(), matrix.detach(), OF_IMAGES),
        "softmax_cross_entropy": (rows, classes, None, -100, "sum", 0.1),
        "softmax_cross_entropy by row": (rows, classes, normal(7, 5).abs(), 2, "none", 0.0),
        "softmax_cross_entropy_backward": (normal(8, N), normal(9, N, 5)),
    }


def tabled(N):
    """Those of the table's functions: its arrays, then its options."""
    found = {}
    for name, case in CASES.items():
        forward = CASES[name.removesuffix("_backward")]
        if not (forward.functional and hasattr(operators, name)):
            continue
        call = case.call({**case.small, "N": N})
        arrays = call.cast(np.float32).values()
        tensors = [torch.from_numpy(array).requires_grad_(not case.gradients) for array in arrays]
        found[name] = (*tensors, *call.options.values())
    return found


def every(N):
    return calls(N) | tabled(N)


NAMES = list(every(0))  # no image: nothing is compiled before the tests run


def test_every_operator_is_listed():
    namespace = getattr(torch.ops, registration.NAMESPACE)
    packets = {name: getattr(namespace, name, None) for name in vars(operators)}
    defined = [n for n, found in packets.items() if isinstance(found, torch._ops.OpOverloadPacket)]
    assert {name.partition(" ")[0] for name in NAMES} == set(defined)


@pytest.mark.parametrize("N", [3, 0])  # 0: an empty batch has strides of its own
@pytest.mark.parametrize("name", NAMES)
def test_opcheck(name, N):
    """Schema, autograd registration, fake results (strides, too), and tracing with any sizes."""
    namespace = getattr(torch.ops, registration.NAMESPACE)
    operator = getattr(namespace, name.partition(" ")[0]).default
    checked = torch.library.opcheck(operator, every(N)[name])
    assert set(checked.values()) == {"SUCCESS"}


def test_operators_of_two_copies_do_not_clash(tmp_path):
    """A copy of the package in another, under another name, has operators of its own."""
    copied = tmp_path / "yours" / "_kernels"
    shutil.copytree(REPOSITORY / "kernels", copied, ignore=shutil.ignore_patterns("__pycache__"))
    script = """
import torch
import kernels.torch
from yours import _kernels
import yours._kernels.torch
x = torch.arange(16.0).reshape(1, 1, 4, 4)
for copy in (kernels, _kernels):
    print(copy.torch.registration.NAMESPACE, copy.torch.max_pool2d(x, 4).item())
names = torch.ops.cnn_kernels, torch.ops.cnn_yours___kernels
assert names[0].max_pool2d.default is not names[1].max_pool2d.default
"""
    path = f"{tmp_path}:{REPOSITORY}"
    said = output(script, PYTHONPATH=path, KERNELS_CACHE_DIR=tmp_path / "cache").splitlines()
    assert said == ["cnn_kernels 15.0", "cnn_yours___kernels 15.0"]


# --- gradients

X = normal(0, 2, 4, 5, 4, dtype=torch.float64, grad=True)
C = [normal(i, 4, dtype=torch.float64, grad=True) for i in (1, 2)]
RUNNING = [torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)]
ROWS = normal(3, 3, 4, dtype=torch.float64, grad=True)
F = normal(4, 6, 2, 3, 2, dtype=torch.float64, grad=True)
F4 = normal(4, 6, 4, 3, 2, dtype=torch.float64, grad=True)
FUNCTIONS = {
    "conv2d": (
        lambda x, w, b: kernels.torch.conv2d(x, w, b, (2, 1), (1, 2), (1, 2), 2),
        (X, F, normal(5, 6, dtype=torch.float64, grad=True)),
    ),
    "conv2d_pool": (
        lambda x, w, b: operators.conv2d_pool(x, w, b, *CONV_POOL)[0],
        (X, F4, normal(5, 6, dtype=torch.float64, grad=True)),
    ),
    "conv2d_pool of several kernels": (
        lambda x, w, b: operators.conv2d_pool(x, w, b, *CONV_POOL[:3], [3, 1])[0],
        (X, F4, normal(5, 6, dtype=torch.float64, grad=True)),
    ),
    "max_pool2d": (lambda x: kernels.torch.max_pool2d(x, 3, 2, 1), (X,)),
    "batch_norm of the batch": (
        lambda x, w, b: kernels.torch.batch_norm(x, None, None, w, b, training=True),
        (X, *C),
    ),
    "batch_norm": (lambda x, w, b: kernels.torch.batch_norm(x, *RUNNING, w, b), (X, *C)),
    "dense": (kernels.torch.dense, (ROWS, normal(6, 5, 4, dtype=torch.float64, grad=True), None)),
    "softmax_cross_entropy": (
        lambda x: kernels.torch.softmax_cross_entropy(x, torch.arange(3), label_smoothing=0.1),
        (ROWS,),
    ),
}


def of_table(name):
    case = CASES[name]
    call = case.call(case.small)
    tensors = [torch.from_numpy(array).requires_grad_() for array in call.arrays.values()]
    return lambda *tensors: case.functional(kernels.torch, *tensors, **call.options), tensors


FUNCTIONS |= {
    name: of_table(name)
    for name, case in CASES.items()
    if case.functional and hasattr(kernels.torch, name)
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradcheck(name):
    function, arguments = FUNCTIONS[name]
    assert torch.autograd.gradcheck(function, arguments)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_results_can_be_written_to(name):
    """As by a ReLU(inplace=True) that follows."""
    function, (x, *others) = FUNCTIONS[name]
    x = x.detach().requires_grad_()
    (expected,) = torch.autograd.grad((2 * function(x, *others)).sum(), x)
    (dx,) = torch.autograd.grad(function(x, *others).mul_(2).sum(), x)
    torch.testing.assert_close(dx, expected)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_in_a_checkpoint(name):
    """It computes the saved tensors anew, and lets them be read once."""
    function, (x, *others) = FUNCTIONS[name]
    x = x.detach().requires_grad_()
    (expected,) = torch.autograd.grad(function(x, *others).sum(), x)
    y = checkpoint(function, x, *others, use_reentrant=False)
    (dx,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(dx, expected)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_differentiating_twice_is_refused(name):
    function, arguments = FUNCTIONS[name]
    result = function(*arguments).square().sum()
    sentence = "^the gradients of kernels.torch cannot be differentiated again$"
    for argument in filter(torch.is_tensor, arguments):  # also a gradient that is not the first
        (gradient,) = torch.autograd.grad(result, argument, create_graph=True)
        with pytest.raises(RuntimeError, match=sentence):
            torch.autograd.grad(gradient.sum(), arguments[0], retain_graph=True)
    if name.startswith("max_pool2d"):  # linear: there, the gradient does not depend on x
        return
    x, *_ = arguments
    (dx,) = torch.autograd.grad(function(*arguments).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=sentence):
        torch.autograd.grad((dx * x).sum(), x)


def of_first(name):
    """Return a function of its first argument alone, and that."""
    function, (x, *others) = FUNCTIONS[name]
    return lambda x: function(x, *others), x.detach()


def by_dual_tensors(function, x):
    with forward_ad.dual_level():
        function(forward_ad.make_dual(x, torch.ones_like(x)))


def of_gradients(function, x):
    """Forward over reverse: the gradient of y is the dual tensor."""
    x = x.requires_grad_()
    y = function(x)
    with forward_ad.dual_level():
        torch.autograd.grad(y, x, forward_ad.make_dual(y.detach(), torch.ones_like(y)))


def by_jvp(function, x):
    return torch.func.jvp(function, (x,), (torch.ones_like(x),))


REFUSED = {
    "dual tensors": by_dual_tensors,
    "dual tensors, in reverse, too": lambda f, x: by_dual_tensors(f, x.requires_grad_()),
    "dual gradients": of_gradients,
    "gradcheck": lambda f, x: torch.autograd.gradcheck(
        f, x.requires_grad_(), check_forward_ad=True, check_backward_ad=False
    ),
    "jvp": by_jvp,
    "jvp of vmap": lambda f, x: by_jvp(torch.vmap(f), torch.stack([x, x])),
    "vmap of jvp": lambda f, x: torch.vmap(lambda x: by_jvp(f, x))(torch.stack([x, x])),
    "jvp of a compiled function": lambda f, x: by_jvp(torch.compile(f, backend="aot_eager"), x),
    "linearize": lambda f, x: torch.func.linearize(f, x),
    "jacfwd": lambda f, x: torch.func.jacfwd(f)(x),
    "jacrev": lambda f, x: torch.func.jacrev(f)(x),
    "vjp": lambda f, x: torch.func.vjp(f, x),
    "grad": lambda f, x: torch.func.grad(lambda x: f(x).sum())(x),
    "hessian": lambda f, x: torch.func.hessian(lambda x: f(x).sum())(x),
    "vmap of grad": lambda f, x: torch.vmap(torch.func.grad(lambda x: f(x).sum()))(
        torch.stack([x, x])
    ),
}


@pytest.mark.parametrize("transform", REFUSED)
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch, while its compiler loads
def test_transforms_without_gradients_are_refused(name, transform):
    """They do not return zeros as tangents."""
    function, x = of_first(name)
    with pytest.raises(RuntimeError, match="^kernels.torch supports torch.autograd in reverse"):
        REFUSED[transform](function, x)


@pytest.mark.parametrize("argument", [1, 2])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch, while its compiler loads
def test_tangents_of_any_argument_are_seen(argument):
    function, arguments = FUNCTIONS["conv2d"]
    values = [tensor.detach() for tensor in arguments]
    with forward_ad.dual_level():
        values[argument] = forward_ad.make_dual(values[argument], values[argument])
        with pytest.raises(RuntimeError, match="^kernels.torch supports torch.autograd in rev"):
            function(*values)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_does_not_depend_on_the_variable_takes_part_in_transforms(name):
    function, x = of_first(name)
    y = function(x).sum()
    two = torch.tensor(2.0, dtype=x.dtype)
    torch.testing.assert_close(torch.func.grad(lambda s: (s * function(x)).sum())(two), y)
    _, tangent = torch.func.jvp(lambda s: (s * function(x)).sum(), (two,), (two,))
    torch.testing.assert_close(tangent, 2 * y)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_vmap_calls_for_each_slice(name):
    function, x = of_first(name)
    both = torch.stack([x, 2 * x])
    expected = torch.stack([function(x), function(2 * x)])
    torch.testing.assert_close(torch.vmap(function)(both), expected)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_batches_of_gradients(name):
    function, x = of_first(name)
    x.requires_grad_()
    y = function(x)
    dy = normal(7, 2, *y.shape, dtype=y.dtype)
    (together,) = torch.autograd.grad(y, x, dy, is_grads_batched=True, retain_graph=True)
    alone = [torch.autograd.grad(y, x, each, retain_graph=True)[0] for each in dy]
    torch.testing.assert_close(together, torch.stack(alone))


# --- training


class Network(nn.Module):
    """A small network, from `torch.nn.functional` or from its namesakes in `kernels.torch`."""

    def __init__(self, ours):
        super().__init__()
        torch.manual_seed(0)
        self.ours = ours
        self.first = nn.Conv2d(1, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 16, 3)
        self.dense = nn.Linear(16 * 2 * 2, 10)

    def forward(self, images, classes):
        lib = kernels.torch if self.ours else functional
        linear = lib.dense if self.ours else lib.linear
        cross_entropy = lib.softmax_cross_entropy if self.ours else lib.cross_entropy
        norm = self.norm
        running = (norm.running_mean, norm.running_var)
        x = lib.conv2d(images, self.first.weight, self.first.bias, padding="same")
        x = lib.batch_norm(x, *running, norm.weight, norm.bias, training=self.training)
        x = lib.max_pool2d(x.relu(), 2)
        x = lib.conv2d(x, self.second.weight, self.second.bias, stride=2, padding=1)
        x = linear(lib.max_pool2d(x.relu(), 2).flatten(1), self.dense.weight, self.dense.bias)
        return cross_entropy(x, classes, label_smoothing=0.1)


def train(network, call=None, sizes=(32,) * 6 + (20,)):
    """Return the losses of some steps, the last one of fewer images, and one loss of evaluation."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    images, classes = normal(1, 32, 1, 16, 16), torch.arange(32) % 10
    call, losses = call if call is not None else network, []
    for size in sizes:
        loss = call(images[:size], classes[:size])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        return [*losses, network.eval()(images, classes).item()]


def test_a_network_trains_as_with_pytorch():
    ours, theirs = Network(ours=True), Network(ours=False)
    losses = train(ours)
    assert losses == pytest.approx(train(theirs), rel=1e-4)
    assert losses[5] < 0.9 * losses[0]
    for name, values in ours.state_dict().items():
        if values.is_floating_point():
            torch.testing.assert_close(values, theirs.state_dict()[name], rtol=1e-3, atol=1e-4)


def test_one_replaced_layer_trains_as_before():
    """A module of PyTorch's whose convolution is ours; the rest stays, and the optimizer."""

    class KernelConv2d(nn.Conv2d):
        def forward(self, x):
            geometry = (self.stride, self.padding, self.dilation, self.groups)
            return kernels.torch.conv2d(x, self.weight, self.bias, *geometry)

    def network(convolution):
        torch.manual_seed(0)
        features = [convolution(1, 8, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten()]
        stack = nn.Sequential(*features, nn.Linear(8 * 4 * 4, 10))
        stack.forward = lambda x, classes, of=stack.forward: functional.cross_entropy(
            of(x), classes
        )
        return stack

    losses = train(network(KernelConv2d))
    assert losses == pytest.approx(train(network(nn.Conv2d)), rel=1e-4)
    assert losses[5] < 0.9 * losses[0]


@pytest.fixture
def inductor(tmp_path, monkeypatch):
    """PyTorch's compiler with an empty cache, and without processes of its own."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler, while it loads
def test_torch_compile_gives_the_same_gradients(inductor, backend):
    """All functions in one graph, forward and backward; aot_eager runs it without C++."""

    def loss(x, filters, weight, running_mean):
        y = kernels.torch.conv2d(x, filters, padding="same")
        y = kernels.torch.batch_norm(y, running_mean, None, training=True)
        y = kernels.torch.max_pool2d(y, 2).flatten(1)
        return kernels.torch.softmax_cross_entropy(kernels.torch.dense(y, weight), torch.arange(5))

    x, filters, weight = normal(0, 5, 2, 6, 8), normal(1, 3, 2, 3, 3), normal(2, 5, 36)

    def results(function):
        arguments = [values.clone().requires_grad_() for values in (x, filters, weight)]
        running_mean = torch.zeros(3)
        result = function(*arguments, running_mean)
        return [result, running_mean, *torch.autograd.grad(result, arguments)]

    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    for actual, expected in zip(results(compiled), results(loss), strict=True):
        torch.testing.assert_close(actual, expected)
        assert expected.any()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler, while it loads
def test_torch_compile_trains_the_same_network(inductor):
    """In one graph, for any batch size."""
    eager, compiled = Network(ours=True), Network(ours=True)
    call = torch.compile(compiled, fullgraph=True, dynamic=True)
    assert train(compiled, call) == pytest.approx(train(eager), rel=1e-4)
    torch.testing.assert_close(compiled.norm.running_var, eager.norm.running_var)
