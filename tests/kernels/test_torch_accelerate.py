"""`kernels.torch.accelerate`: results, gradients and all else of a module are as before."""

import copy
import io
import itertools
import pickle

import pytest
import torch
from torch import nn

from kernels.torch import accelerate, explain
from kernels.torch.layers import is_channels_last
from tests.lib.accelerated import FORMATS, NETWORKS, LeNet, both, outcome
from tests.lib.comparison import assert_close
from tests.lib.support import RTOL
from tests.lib.tensors import normal

pytestmark = pytest.mark.usefixtures("small_images_pay")


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


@pytest.mark.parametrize(
    "name, size", [("pool before ReLU", 72), ("convolution", 48), ("pool", 96)]
)
def test_one_image_in_a_view_of_its_channels_last(name, size, calls):
    """PyTorch returns it contiguous, and `view` may follow; the stride of N alone tells."""
    make, (_, channels, _, _) = NETWORKS[name]
    theirs, ours = both(make)
    x = normal(0, size, size, channels).permute(2, 0, 1)[None]
    assert x.is_contiguous(memory_format=torch.channels_last)
    found, expected = ours(x), theirs(x)
    assert calls and found.stride() == expected.stride()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_strides_mean_channels_last_where_they_do_to_pytorch():
    memory = torch.zeros(100)
    for shape in itertools.product((1, 2), (1, 3), (1, 2), (1, 2)):
        last = torch.empty(shape, memory_format=torch.channels_last).stride()
        if last == torch.empty(shape).stride():
            continue  # a result does not show which of the two PyTorch has made
        for strides in itertools.product((0, 1, 3, 6), repeat=4):
            x = memory.as_strided(shape, strides)
            expected = nn.functional.max_pool2d(x, 1).stride() == last
            assert is_channels_last(x) == expected, (shape, strides)


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
