"""`kernels.torch.explain`: which layers are replaced, and why the others are not."""

import re

import pytest
import torch
from torch import nn

from kernels.torch import accelerate, explain, layers
from tests.lib.accelerated import LeNet


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
    assert lines[1] == (
        "features.1 (ReLU): replaced, one kernel for features.0 features.1 features.2"
    )
    assert lines[6] == "classifier.0 (Linear): left: PyTorch is as fast"


@pytest.mark.parametrize(
    "away, back, found",
    [
        (nn.Module.double, nn.Module.float, "torch.float64 on cpu"),
        (lambda m: m.to("meta"), lambda m: m.to_empty(device="cpu"), "torch.float32 on meta"),
    ],
)
def test_a_module_may_be_moved_before_and_after(away, back, found):
    module = nn.Sequential(LeNet().features, nn.Conv2d(32, 32, 3))
    expected = str(explain(module))
    accelerate(away(module))
    assert expected.count(", one kernel for") == 6 and expected.endswith("1 (Conv2d): replaced")
    reason = f"the kernels are known to be faster with torch.float32 on cpu, not {found}"
    assert [layer.reason for layer in explain(module) if layer.kind == "Conv2d"] == [reason] * 3
    assert str(explain(back(module))) == expected
    assert {type(layer).__module__ for layer in (module[0], module[1])} == {layers.__name__}


def test_a_parametrized_layer_is_explained():
    """One that was replaced before it was parametrized stays replaced."""
    module = nn.Sequential(nn.Conv2d(32, 32, 3), nn.Conv2d(32, 32, 3))
    nn.utils.parametrizations.weight_norm(module[0])
    accelerate(module)
    nn.utils.parametrizations.weight_norm(module[1])
    assert str(explain(module)).splitlines() == [
        "0 (ParametrizedConv2d): left: it is parametrized, and was not replaced before",
        "1 (ParametrizedConv2d): replaced",
    ]


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_scripted_layer_is_explained():
    (said,) = explain(accelerate(torch.jit.script(nn.ReLU())))
    assert said.reason == "its forward is its own"


def test_a_container_with_a_forward_of_its_own_is_left():
    module = LeNet().features
    module.forward = lambda x: module[0](x)
    assert accelerate(module) is module and type(module) is nn.Sequential
    assert "one kernel for" not in str(explain(module))


@pytest.mark.parametrize("function", [accelerate, explain])
def test_what_is_no_module_is_refused(function):
    with pytest.raises(TypeError, match=r"^module: got int, expected a torch.nn.Module$"):
        function(3)
