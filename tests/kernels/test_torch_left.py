"""What accelerated layers leave to PyTorch: other calls, and layers that were changed."""

import copy

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

from kernels.torch import accelerate, explain, rules
from tests.lib.accelerated import FORMATS, NETWORKS, both, outcome, pooled
from tests.lib.tensors import normal

pytestmark = pytest.mark.usefixtures("small_images_pay")


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


class Doubled(TorchFunctionMode):
    """What layers compute, times two."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        y = function(*args, **(kwargs or {}))
        return 2 * y if function in (torch.conv2d, nn.functional.max_pool2d) else y


def in_function_mode(module, x):
    with Doubled():
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
    "a mode that overrides functions": in_function_mode,
    "a mode that overrides functions, compiled": lambda module, x: torch.compile(
        in_function_mode, backend="aot_eager"
    )(module, x),
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


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("name", ["convolution", "pool", "pool before ReLU"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler, while it loads
def test_batches_whose_size_the_compiler_does_not_know(name, layout):
    make, shape = NETWORKS[name]
    theirs, ours = both(make, FORMATS[layout])
    x = normal(0, *shape).to(memory_format=FORMATS[layout])

    def some(module, x):
        found = x[x.mean((1, 2, 3)) > 0]
        return module(found), module(torch.cat([x, found]))

    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        found = torch.compile(some, backend="aot_eager", fullgraph=True)(ours, x)
    for y, expected in zip(found, some(theirs, x), strict=True):
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)


def test_a_default_device_leaves_nothing_to_pytorch(calls):
    make, shape = NETWORKS["convolution"]
    _, ours = both(make)
    x = normal(0, *shape)
    with torch.device("meta"):
        assert ours(x).device == x.device
    assert calls == ["conv2d"]


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


@pytest.mark.parametrize(
    "make, shape",
    [
        (NETWORKS["pool"][0], (64, 64, 1, 64)),
        (NETWORKS["pool before ReLU"][0], (64, 3, 120, 3)),
        (lambda: nn.Sequential(*pooled(3, 16)), (64, 3, 200, 5)),
    ],
)
def test_images_smaller_than_a_pools_window_are_refused_as_by_pytorch(make, shape, calls):
    errors = []
    for module in both(make):
        with pytest.raises(RuntimeError, match="Output size is too small") as caught:
            module(normal(0, *shape))
        errors.append(str(caught.value))
    assert errors[0] == errors[1] and not calls


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
        ("convolution", {"kernel_size": 3}),
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


@pytest.mark.parametrize("name", ["pool before ReLU", "convolution"])
@pytest.mark.parametrize("padding", [-1, (0, -1), (1, 1, 1), "full", True, 1.5, None], ids=str)
def test_a_padding_that_pytorch_refuses(name, padding, calls):
    make, shape = NETWORKS[name]
    errors = []
    for module in both(make):
        next(layer for layer in module.modules() if isinstance(layer, nn.Conv2d)).padding = padding
        with pytest.raises((RuntimeError, TypeError)) as caught:
            module(normal(0, *shape))
        errors.append((type(caught.value), str(caught.value)))
    assert errors[0] == errors[1] and not calls


@pytest.mark.parametrize("name", ["pool before ReLU", "convolution"])
def test_sparse_filters_are_refused_as_by_pytorch(name, calls):
    make, shape = NETWORKS[name]
    errors = []
    for module in both(make):
        conv = next(layer for layer in module.modules() if isinstance(layer, nn.Conv2d))
        conv.weight = nn.Parameter(conv.weight.detach().to_sparse())
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


@pytest.mark.parametrize("name", ["pool before ReLU", "convolution"])
def test_a_padding_in_a_form_that_only_pytorch_takes(name, calls):
    make, shape = NETWORKS[name]
    modules = both(make)
    for module in modules:
        conv = next(layer for layer in module.modules() if isinstance(layer, nn.Conv2d))
        conv.padding = (1,)
    assert explain(modules[1])[0].reason
    x = normal(0, *shape)
    theirs, ours = (module(x) for module in modules)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert not {"conv2d", "conv2d_pool"} & {*calls}
