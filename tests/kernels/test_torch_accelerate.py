"""`kernels.torch.accelerate`: which layers it replaces, and that all else is as before."""

import copy
import io
import pickle
import re

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

from kernels.torch import accelerate, explain, functional, rules
from tests.lib.comparison import assert_close
from tests.lib.support import RTOL

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def normal(seed, *shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def pooled(channels=1, filters=6, kernel=5, **options):
    return [nn.Conv2d(channels, filters, kernel, **options), nn.ReLU(), nn.MaxPool2d(2)]


class LeNet(nn.Module):
    """As it is often written: `view` takes contiguous images alone."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(*pooled(padding=2), *pooled(6, 16))
        self.classifier = nn.Sequential(nn.Linear(400, 84), nn.ReLU(), nn.Linear(84, 10))

    def forward(self, x):
        return self.classifier(self.features(x).view(len(x), -1))


NETWORKS = {
    "LeNet": (LeNet, (48, 1, 28, 28)),
    "pool before ReLU": (
        lambda: nn.Sequential(nn.Conv2d(3, 32, 3), nn.MaxPool2d((1, 2)), nn.ReLU()),
        (16, 3, 18, 18),
    ),
    "no bias, same padding": (
        lambda: nn.Sequential(*pooled(3, 8, 5, padding="same", bias=False)),
        (32, 3, 28, 28),
    ),
    "convolution": (lambda: nn.Conv2d(32, 32, 3, padding=1), (16, 32, 12, 12)),
    "convolution without bias": (lambda: nn.Conv2d(32, 48, 3, bias=False), (16, 32, 12, 12)),
    "one filter": (lambda: nn.Sequential(*pooled(3, 1, 5)), (256, 3, 28, 28)),
    "one pixel": (lambda: nn.Sequential(*pooled(32, 32, 3)), (256, 32, 4, 4)),
    "pool": (lambda: nn.Sequential(nn.MaxPool2d(2)), (64, 16, 32, 32)),
    "written to": (
        lambda: nn.Sequential(
            nn.Conv2d(32, 32, 3), nn.ReLU(inplace=True), *pooled(32, 16, 3), nn.Hardtanh(0, 1, True)
        ),
        (32, 32, 12, 12),
    ),
}


@pytest.fixture(autouse=True)
def small_images_pay(monkeypatch):
    """Take the kernels for contiguous images for which they are not faster, too."""
    monkeypatch.setattr(rules, "CONTIGUOUS", rules.CHANNELS)
    monkeypatch.setattr(rules, "LEAST_POOLED_CONTIGUOUS", 2**17)


@pytest.fixture
def calls(monkeypatch):
    """The names of the kernels' functions that layers have called."""
    found = []

    def counting(name, function):
        def call(*arguments):
            found.append(name)
            return function(*arguments)

        return call

    for name in ("conv2d", "conv2d_pool", "max_pool2d"):
        monkeypatch.setattr(functional, name, counting(name, getattr(functional, name)))
    return found


def both(make, layout=torch.contiguous_format):
    """Return a module of PyTorch's and the same, accelerated."""
    torch.manual_seed(0)
    theirs = make().to(memory_format=layout)
    return theirs, accelerate(copy.deepcopy(theirs))


def outcome(module, x):
    """Return y, and the gradients of x and of all parameters."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = module(x)
    dy = normal(99, *y.shape, dtype=torch.float64).to(y.dtype)
    return y, *torch.autograd.grad(y, [x, *module.parameters()], dy)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("name", NETWORKS)
def test_values_gradients_and_formats_are_those_of_pytorch(name, layout, calls):
    make, shape = NETWORKS[name]
    layout = FORMATS[layout]
    if (name, layout) == ("LeNet", torch.channels_last):
        pytest.skip("PyTorch's own images cannot be viewed then")
    theirs, ours = both(make, layout)
    x = normal(0, *shape).contiguous(memory_format=layout)
    found, wide = outcome(ours, x), outcome(copy.deepcopy(theirs).double(), x.double())
    assert calls
    for actual, exact, usual in zip(found, wide, outcome(theirs, x), strict=True):
        assert_close(actual.detach().numpy(), exact.detach().numpy(), rtol=RTOL["float32"])
        assert actual.dtype == usual.dtype
        # One channel with channels last has the memory of a contiguous one, and PyTorch's own
        # layers differ in what its strides are.
        one = layout is torch.channels_last and actual.is_contiguous() and usual.is_contiguous()
        assert one or actual.stride() == usual.stride()


def test_the_module_and_its_parameters_are_the_same_objects():
    module = LeNet()

    def identities():
        tensors = {name: id(tensor) for name, tensor in module.named_parameters()}
        return tensors, list(module.state_dict()), [id(each) for each in module.modules()]

    before = identities()
    assert accelerate(module) is module
    assert identities() == before
    assert repr(module) == repr(LeNet())


def test_an_optimizer_made_before_still_trains_it(calls):
    theirs, _ = both(LeNet)
    ours = copy.deepcopy(theirs)
    images, classes = normal(1, 48, 1, 28, 28), torch.arange(48) % 10
    trained = []
    for module in (theirs, ours):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        if module is ours:
            accelerate(module)
        losses = []
        for _ in range(6):
            loss = nn.functional.cross_entropy(module(images), classes)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        trained.append(losses)
    assert trained[1] == pytest.approx(trained[0], rel=1e-4)
    assert trained[1][-1] < trained[1][0]
    assert len(calls) == 12
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize("name", ["LeNet", "convolution"])
def test_frozen_parameters_have_no_gradients(name, calls):
    make, shape = NETWORKS[name]
    found = []
    for module in both(make):
        (next(module.parameters())).requires_grad_(False)
        module(normal(0, *shape)).square().sum().backward()
        found.append([p.grad for p in module.parameters()])
    theirs, ours = found
    assert calls and ours[0] is None
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_only_predicts(name, mode, calls):
    make, shape = NETWORKS[name]
    theirs, ours = both(make)
    x = normal(0, *shape)
    with mode():
        found, expected = ours.eval()(x), theirs.eval()(x)
    assert calls
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert found.is_inference() == expected.is_inference() and not found.requires_grad


def test_copies_and_pickles_are_accelerated(calls):
    _, ours = both(LeNet)
    saved = io.BytesIO()
    torch.save(ours, saved)
    saved.seek(0)
    x = normal(0, 48, 1, 28, 28)
    for other in (
        copy.deepcopy(ours),
        pickle.loads(pickle.dumps(ours)),
        torch.load(saved, weights_only=False),
    ):
        calls.clear()
        assert torch.equal(other(x), ours(x))
        assert len(calls) == 4


def test_accelerating_twice_changes_nothing():
    _, ours = both(LeNet)
    said = str(explain(ours))
    assert str(explain(accelerate(ours))) == said


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler, while it loads
@pytest.mark.parametrize("name", ["LeNet", "convolution", "pool", "written to"])
def test_torch_compile_gives_the_same(name, calls):
    make, shape = NETWORKS[name]
    _, ours = both(make)
    x = normal(0, *shape)
    expected = outcome(ours, x)
    calls.clear()
    compiled = torch.compile(copy.deepcopy(ours), fullgraph=True, backend="aot_eager")
    for actual, usual in zip(outcome(compiled, x), expected, strict=True):
        torch.testing.assert_close(actual, usual)
        assert actual.stride() == usual.stride()
    assert calls


# --- what goes to PyTorch


def in_func(module, x):
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    loss = lambda p: torch.func.functional_call(module, p, (x,)).square().sum()  # noqa: E731
    return list(torch.func.grad(loss)(parameters).values())


def in_compiled_func(module, x):
    loss = lambda x: module(x).square().sum()  # noqa: E731
    return torch.compile(torch.func.grad(loss), backend="aot_eager")(x)


def in_mkldnn(module, x):
    y = module(x.to_mkldnn())
    return y.to_dense() if y.is_mkldnn else y


def in_forward_mode(module, x):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(module(forward_ad.make_dual(x, torch.ones_like(x))))


def in_fake_mode(module, x):
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        return module(mode.from_tensor(x)).shape


def in_autocast(module, x):
    with torch.autocast("cpu", torch.bfloat16):
        return module(x)


LEFT = {
    "float64": lambda module, x: copy.deepcopy(module).double()(x.double()),
    "bfloat16": lambda module, x: copy.deepcopy(module).bfloat16()(x.bfloat16()),
    "meta": lambda module, x: copy.deepcopy(module).to("meta")(x.to("meta")).shape,
    "autocast": in_autocast,
    "one image without N": lambda module, x: module(x[0]),
    "few images": lambda module, x: module(x[:1]),
    "no images": lambda module, x: module(x[:0]),
    "images that are no block of memory": lambda module, x: module(x[..., ::2]),
    "torch.func": in_func,
    "torch.func, compiled": in_compiled_func,
    "forward mode": in_forward_mode,
    "vmap": lambda module, x: torch.vmap(module)(torch.stack([x, x])),
    "vmap of images with gaps": lambda module, x: torch.vmap(module, 4)(torch.stack([x, x], 4)),
    "a fake tensor": in_fake_mode,
    "a tensor of oneDNN": in_mkldnn,
    "torch.export": lambda module, x: torch.export.export(module, (x,)).module()(x),
    "torch.jit.trace": lambda module, x: torch.jit.trace(module, (x,), check_trace=False)(x),
}


@pytest.mark.parametrize("way", LEFT)
@pytest.mark.parametrize("name", ["convolution", "pool", "no bias, same padding"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_anything_else_is_left_to_pytorch(name, way, calls):
    make, shape = NETWORKS[name]
    theirs, ours = both(make)
    x = normal(0, *shape)
    ours(x)
    assert calls
    calls.clear()
    torch.testing.assert_close(LEFT[way](ours, x), LEFT[way](theirs, x), rtol=0, atol=0)
    assert not calls


@pytest.mark.parametrize("name", ["convolution", "pool before ReLU"])
@pytest.mark.parametrize("height, width", [(2, 900), (900, 2), (1, 900)])
def test_images_smaller_than_a_window_are_left_to_pytorch(name, height, width, calls):
    make, shape = NETWORKS[name]
    theirs, ours = both(make)
    for module in (theirs, ours):
        next(layer for layer in module.modules() if isinstance(layer, nn.Conv2d)).padding = 2
    x = normal(0, 16, shape[1], height, width)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)
    assert "conv2d" not in calls and "conv2d_pool" not in calls


@pytest.mark.parametrize("name", ["convolution", "pool", "pool before ReLU"])
def test_more_values_than_the_kernels_count_are_left_to_pytorch(name, calls, monkeypatch):
    make, shape = NETWORKS[name]
    theirs, ours = both(make)
    x = normal(0, *shape)
    monkeypatch.setattr(rules, "MOST_VALUES", x.numel() - 1)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)
    assert not calls


def test_images_that_are_too_large_for_one_kernel_go_through_several(calls):
    theirs, ours = both(lambda: nn.Sequential(*pooled(16, 16, 3)))
    x = normal(0, 1, 16, 100, 100)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)
    assert calls and "conv2d_pool" not in calls


@pytest.mark.parametrize(
    "channels, layout, taken",
    [
        (64, "channels_last", {"conv2d", "max_pool2d"}),
        (64, "contiguous", {"conv2d_pool"}),
        (32, "channels_last", {"conv2d_pool"}),
    ],
)
def test_many_channels_in_channels_last_take_a_kernel_for_each_layer(
    channels, layout, taken, calls, monkeypatch
):
    monkeypatch.setattr(rules, "LEAST_POOLED", 2**14)
    layout = FORMATS[layout]
    theirs, ours = both(lambda: nn.Sequential(*pooled(channels, 16, 3, padding=1)), layout)
    x = normal(0, 32, channels, 12, 12).to(memory_format=layout)
    assert rules.conv2d_pays(ours[0], x, layout == torch.channels_last)
    for found, expected in zip(outcome(ours, x), outcome(theirs, x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert {*calls} == taken


def test_hooks_within_see_what_they_would(calls):
    seen = []
    for module in both(lambda: nn.Sequential(*pooled(padding=2))):
        module[0].register_forward_hook(lambda _, inputs, y: seen.append(y.detach()))
        module(normal(0, 48, 1, 28, 28))
    torch.testing.assert_close(*seen)
    assert "conv2d_pool" not in calls


def test_hooks_outside_are_called(calls):
    seen = []
    for module in both(NETWORKS["convolution"][0]):
        module.register_forward_hook(lambda _, inputs, y: seen.append(y.detach()))
        module(normal(0, 16, 32, 12, 12))
    torch.testing.assert_close(*seen)
    assert calls == ["conv2d"]


def test_layers_may_be_exchanged_afterwards(calls):
    theirs, ours = both(lambda: nn.Sequential(*pooled(padding=2)))
    ours[1] = theirs[1] = nn.Sigmoid()
    x = normal(0, 48, 1, 28, 28)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)
    assert "conv2d_pool" not in calls


@pytest.mark.parametrize(
    "name, changes",
    [
        ("pool", {"padding": 1}),
        ("pool", {"stride": 1}),
        ("pool", {"dilation": 2}),
        ("pool", {"ceil_mode": True}),
        ("convolution", {"stride": (2, 2)}),
        ("no bias, same padding", {"dilation": (2, 2)}),
    ],
)
def test_attributes_may_be_changed_afterwards(name, changes, calls):
    make, shape = NETWORKS[name]
    modules = both(make)
    for module in modules:
        layer = next(each for each in module.modules() if not any(each.children()))
        for attribute, value in changes.items():
            setattr(layer, attribute, value)
    x = normal(0, *shape)
    theirs, ours = (module(x) for module in modules)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert "conv2d_pool" not in calls and "conv2d" not in calls


@pytest.mark.parametrize("name", ["pool before ReLU", "convolution"])
@pytest.mark.parametrize(
    "weight, bias",
    [(0.5, 1), (2, 1), (1, 0.5), ("filters", 1), (1, "one"), (1, "images"), ("flat", 1)],
)
def test_parameters_of_other_shapes_are_refused_as_by_pytorch(name, weight, bias, calls):
    """They can be replaced at any time; the kernels would read past their ends."""
    make, shape = NETWORKS[name]
    errors = []
    for module in both(make):
        conv = next(layer for layer in module.modules() if isinstance(layer, nn.Conv2d))
        F, C, KH, KW = conv.weight.shape
        channels = C if isinstance(weight, str) else max(2, int(C * weight)) if weight != 1 else C
        shapes = {"filters": (2 * F, C, KH, KW), "flat": (F, C * KH * KW)}
        conv.weight = nn.Parameter(torch.zeros(shapes.get(weight, (F, channels, KH, KW))))
        shapes = {"one": (1,), "images": (F, 1, 1), 0.5: (F // 2,)}
        conv.bias = nn.Parameter(torch.zeros(shapes.get(bias, (F,))))
        with pytest.raises(RuntimeError) as caught:
            module(normal(0, *shape))
        errors.append(str(caught.value))
    assert errors[0] == errors[1] and not calls


class Noise(nn.Module):
    def forward(self, weight):
        return weight + torch.randn_like(weight)


@pytest.mark.parametrize("size", [12, 2])  # one that the kernels take, one that PyTorch does
def test_a_parametrized_weight_is_computed_once(size):
    modules = both(lambda: nn.Conv2d(32, 32, 3, padding=1))
    results = []
    for module in modules:
        nn.utils.parametrize.register_parametrization(module, "weight", Noise())
        torch.manual_seed(1)
        results.append(module(normal(0, 16, 32, size, size)))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("name", ["pool before ReLU", "convolution"])
def test_a_padding_of_its_own_is_kept(name, before, calls):
    make, shape = NETWORKS[name]

    def circular(layer):
        def forward(x, weight, bias):
            padded = nn.functional.pad(x, (2, 2, 2, 2), mode="circular")
            return nn.functional.conv2d(padded, weight, bias)

        layer._conv_forward = forward

    theirs, ours = both(make)
    ours = copy.deepcopy(theirs) if before else ours
    for module in (theirs, ours):
        circular(next(layer for layer in module.modules() if isinstance(layer, nn.Conv2d)))
    x = normal(0, *shape)
    torch.testing.assert_close(accelerate(ours)(x), theirs(x), rtol=0, atol=0)
    assert not {"conv2d", "conv2d_pool"} & {*calls}


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d((2,)),
        nn.MaxPool2d([2]),
        nn.MaxPool2d(2, stride=(2,)),
        nn.MaxPool2d(2, stride=()),
        nn.MaxPool2d(2, padding=(0,)),
        nn.MaxPool2d(2, 2, 0, dilation=(1,)),
    ],
    ids=str,
)
def test_a_pool_in_a_form_that_only_pytorch_takes(pool):
    theirs, ours = both(lambda: nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), pool))
    assert "left" in str(explain(ours)).splitlines()[2]
    x = normal(0, 16, 1, 30, 30)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)


# --- what is said


class OwnConv2d(nn.Conv2d):
    def forward(self, x):
        return super().forward(2 * x)


def with_own_forward():
    layer = nn.Conv2d(32, 32, 3)
    layer.forward = lambda x: x
    return layer


LAYERS = {
    "Conv2d 3x3": (nn.Conv2d(32, 32, 3), "replaced"),
    "Conv2d 5x5": (nn.Conv2d(32, 32, 5), r"left: PyTorch is faster at a kernel of \(5, 5\)"),
    "Conv2d stride": (nn.Conv2d(32, 32, 3, 2), r"left: PyTorch is faster at a stride of \(2, 2\)"),
    "Conv2d dilation": (
        nn.Conv2d(32, 32, 3, dilation=2),
        r"left: PyTorch is faster at a dilation of \(2, 2\)",
    ),
    "Conv2d channels": (
        nn.Conv2d(3, 32, 3),
        "left: PyTorch is faster at 3 channels and 32 filters",
    ),
    "Conv2d groups": (nn.Conv2d(32, 32, 3, groups=2), "left: PyTorch is faster at groups"),
    "Conv2d circular": (
        nn.Conv2d(32, 32, 3, padding=1, padding_mode="circular"),
        "left: the kernels pad with zeros, not by 'circular'",
    ),
    "Conv2d float64": (
        nn.Conv2d(32, 32, 3, dtype=torch.float64),
        "left: the kernels are known to be faster with torch.float32 on cpu, not torch.float64 on",
    ),
    "OwnConv2d": (OwnConv2d(32, 32, 3), "left: it is a kind of Conv2d of its own"),
    "Conv2d own forward": (with_own_forward(), "left: its forward is its own"),
    "MaxPool2d": (nn.MaxPool2d(2), "replaced"),
    "MaxPool2d overlap": (
        nn.MaxPool2d(3, 2),
        "left: PyTorch is as fast at windows that overlap",
    ),
    "MaxPool2d large": (nn.MaxPool2d(257), "left: its windows are too large for the kernel"),
    "MaxPool2d indices": (
        nn.MaxPool2d(2, return_indices=True),
        "left: PyTorch is as fast at a pool that returns indices",
    ),
    "Linear": (nn.Linear(3, 4), "left: PyTorch is as fast"),
    "Dropout": (nn.Dropout(), "left: there is no kernel for it"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_replaced_or_left_with_a_reason(name):
    layer, sentence = LAYERS[name]
    kind = type(layer)
    (said,) = explain(layer)
    assert (said.reason is None) == (sentence == "replaced")
    assert accelerate(layer) is layer
    assert (type(layer) is kind) == (said.reason is not None)
    assert re.match(rf"the module itself \({kind.__name__}\): {sentence}", str(explain(layer)))


def test_a_container_without_layers_is_no_layer():
    assert len(explain(nn.Sequential(nn.Sequential(nn.Sequential()), nn.ReLU()))) == 2


def test_the_explanation_has_a_line_for_each_layer():
    lines = str(explain(LeNet())).splitlines()
    assert len(lines) == 9
    assert lines[1] == ("features.1 (ReLU): replaced, as one of features.0 features.1 features.2")
    assert lines[6] == "classifier.0 (Linear): left: PyTorch is as fast"


@pytest.mark.parametrize("function", [accelerate, explain])
def test_what_is_no_module_is_refused(function):
    with pytest.raises(TypeError, match=r"^module: got int, expected a torch.nn.Module$"):
        function(3)
