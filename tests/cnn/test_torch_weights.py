"""Weights to and from PyTorch: the same network gives the same logits there."""

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from cnn import (
    AvgPool2D,
    BatchNorm,
    CheckpointError,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    MaxPool2D,
    ReLU,
    Sequential,
    Softmax,
    load_torch,
    save_torch,
)
from cnn.layers import Layer
from tests.cases.layers import LAYERS
from tests.lib.comparison import assert_close
from tests.lib.fresh_python import REPOSITORY, output
from tests.lib.support import host, normal

IMAGES = normal(0, 6, 11, 10, 2, dtype=np.float32)


SHAPE = (11, 10, 2)


def layers():
    """Every kind of layer but the global average; a Flatten makes pixels of H, W and C differ."""
    return [
        Conv2D(4, (3, 2), stride=(1, 2), bias=False),
        BatchNorm(),
        ReLU(),
        Conv2D(8, 3, padding="same", groups=2),
        MaxPool2D(2, stride=1, padding=1),
        AvgPool2D((2, 1), ceil_mode=True),
        Flatten(),
        BatchNorm(),  # of pixels, not of channels
        Dropout(0.5),
        Dense(7),
        ReLU(),
        Dense(5, bias=False),
        Softmax(),
    ]


def theirs():
    """The same in PyTorch."""
    module = nn.Sequential(
        nn.Conv2d(2, 4, (3, 2), stride=(1, 2), bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 8, 3, padding="same", groups=2),
        nn.MaxPool2d(2, stride=1, padding=1),
        nn.AvgPool2d((2, 1), ceil_mode=True),
        nn.Flatten(),
        nn.BatchNorm1d(8 * 5 * 6),
        nn.Dropout(0.5),
        nn.Linear(8 * 5 * 6, 7),
        nn.ReLU(),
        nn.Linear(7, 5, bias=False),
        nn.Softmax(1),
    )
    return filled(module.eval())


def pooled():
    """A model with a global average, and its twin."""
    model = Sequential(
        [Conv2D(4, 3), BatchNorm(), ReLU(), GlobalAvgPool2D(), Dense(5)], SHAPE, "cpu"
    )
    average = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    modules = [nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), average, nn.Linear(4, 5)]
    return filled(model), filled(nn.Sequential(*modules).eval())


def filled(model):
    """Set every array of a model or a module, away from its initial values."""
    if isinstance(model, nn.Module):
        arrays = {k: v.numpy() for k, v in model.state_dict().items() if v.is_floating_point()}
    else:
        arrays = {**model.parameters, **model.state}
    for seed, array in enumerate(arrays.values()):
        values = normal(seed, *array.shape) / np.sqrt(max(1, np.prod(array.shape[1:])))
        values = abs(values) + 0.5 if array.ndim == 1 else values  # a variance is positive
        array[...] = getattr(model, "target", np).array(values.astype(array.dtype))
    return model


def contents(model):
    return {name: host(array).copy() for name, array in (model.parameters | model.state).items()}


def assert_same_logits(model, module):
    expected = module(torch.from_numpy(IMAGES).permute(0, 3, 1, 2)).detach().numpy()
    assert_close(model.predict(IMAGES), expected, rtol=1e-5)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.safetensors"


# --- both ways


def test_pytorch_loads_what_is_saved(path, target):
    model, module = filled(Sequential(layers(), SHAPE, target.name)), theirs()
    save_torch(model, path)
    with torch.no_grad():
        for values in module.state_dict().values():
            values.fill_(9)
    module.load_state_dict(safetensors.torch.load_file(path))  # strict: no key more, none less
    assert_same_logits(model, module)


def test_what_pytorch_saves_is_loaded(path, target):
    model, module = Sequential(layers(), SHAPE, target.name), theirs()
    safetensors.torch.save_file(module.state_dict(), path)
    load_torch(model, path)
    assert_same_logits(model, module)


def test_a_global_average(path):
    model, module = pooled()
    module[0].weight.data *= 2  # unlike the model's
    safetensors.torch.save_file(module.state_dict(), path)
    load_torch(model, path)
    assert_same_logits(model, module)
    model.parameters["4.weight"] *= 3
    save_torch(model, path)
    module.load_state_dict(safetensors.torch.load_file(path))
    assert_same_logits(model, module)


@pytest.mark.parametrize("name", [name for name, case in LAYERS.items() if case.pytorch])
def test_every_layer_of_the_table_both_ways(name, path):
    case = LAYERS[name]
    x = normal(0, *case.input, dtype=np.float32)
    model = Sequential([case.make()], case.input[1:], "cpu")
    module = nn.Sequential(case.pytorch(nn)).eval()

    def assert_same():
        y = module(torch.from_numpy(x).movedim(-1, 1)).detach().movedim(1, -1)
        assert_close(model.predict(x), y.numpy(), rtol=1e-5)

    safetensors.torch.save_file(filled(module).state_dict(), path)
    load_torch(model, path)
    assert_same()
    for array in model.parameters.values():
        array *= 3
    save_torch(model, path)
    module.load_state_dict(safetensors.torch.load_file(path))
    assert_same()


def test_there_and_back_gives_the_same_bits(path):
    model, again = (Sequential(layers(), SHAPE, "cpu", seed=seed) for seed in (0, 1))
    save_torch(filled(model), path)
    load_torch(again, path)
    for name, array in contents(model).items():
        assert contents(again)[name].tobytes() == array.tobytes()
    assert again.parameter_buffer.tobytes() == model.parameter_buffer.tobytes()


def test_images_without_channels_are_flattened_alike(path):
    model = filled(Sequential([Flatten(), Dense(3)], (5, 4), "cpu"))
    save_torch(model, path)
    weight = safetensors.torch.load_file(path)["1.weight"]
    assert weight.equal(torch.from_numpy(model.parameters["1.weight"]))


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_floating_types_are_converted(path, dtype):
    model, module = pooled()
    module.to(getattr(torch, dtype))
    safetensors.torch.save_file(module.state_dict(), path)
    load_torch(model, path)
    assert model.parameters["0.weight"].dtype == np.float32
    assert_same_logits(model, module.float())


def test_pytorch_is_not_needed(path, tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('PyTorch was imported')")
    script = f"""
from cnn import Dense, Sequential, load_torch, save_torch
model = Sequential([Dense(2)], (3,), "cpu")
save_torch(model, {str(path)!r})
load_torch(model, {str(path)!r})
"""
    assert output(script, PYTHONPATH=f"{tmp_path}:{REPOSITORY}") == ""


# --- refusals


@pytest.fixture
def state(path):
    """What `refusal` writes before it loads."""
    module = pooled()[1]
    return dict(module.state_dict())


def refusal(path, state):
    """Return what loading says, after the path; the model must be as before."""
    safetensors.torch.save_file(state, path)
    model = Sequential(
        [Conv2D(4, 3), BatchNorm(), ReLU(), GlobalAvgPool2D(), Dense(5)], SHAPE, "cpu"
    )
    before = contents(model)
    with pytest.raises(CheckpointError) as caught:
        load_torch(model, path)
    for name, array in contents(model).items():
        np.testing.assert_array_equal(array, before[name])
    return str(caught.value).removeprefix(f"{path} ")


def test_missing_arrays(path, state):
    del state["1.running_mean"], state["4.bias"]
    assert refusal(path, state) == "is not this model's: it lacks 1.running_mean, 4.bias"


def test_unexpected_arrays(path, state):
    state["5.weight"] = torch.zeros(3)
    sentence = "is not this model's: it has 5.weight, which the model has not"
    assert refusal(path, state) == sentence


def test_arrays_of_other_shapes(path, state):
    state["0.weight"] = state["0.weight"].permute(0, 2, 3, 1).contiguous()
    sentence = "is not this model's: 0.weight has shape (4, 3, 3, 2), expected (4, 2, 3, 3)"
    assert refusal(path, state) == sentence


@pytest.mark.parametrize("dtype, name", [(torch.bfloat16, "BF16"), (torch.int64, "I64")])
def test_arrays_of_other_types(path, state, dtype, name):
    state["4.bias"] = state["4.bias"].to(dtype)
    sentence = f"4.bias has type {name}, expected one of float16, float32, float64"
    assert refusal(path, state) == f"is not this model's: {sentence}"


def test_several_differences_are_one_sentence(path, state):
    state = {f"features.{name}": values for name, values in state.items()}
    state["4.weight"] = torch.zeros(5, 5)
    said = refusal(path, state)
    assert (
        "lacks 0.bias, 0.weight, 1.bias, 1.running_mean, 1.running_var, 1.weight, 4.bias; " in said
    )
    assert "has features.0.bias, " in said and said.endswith("shape (5, 5), expected (5, 4)")


def test_files_without_the_count_of_batches_are_loaded(path, state):
    """PyTorch before 0.4.1 kept none, and other libraries' files have none."""
    del state["1.num_batches_tracked"]
    safetensors.torch.save_file(state, path)
    model, module = pooled()
    load_torch(model, path)
    assert_same_logits(model, module)


def test_files_that_are_none(path):
    model = Sequential([Dense(2)], (3,), "cpu")
    with pytest.raises(FileNotFoundError, match="weights.safetensors"):
        load_torch(model, path)
    path.write_bytes(b"PK\x03\x04, a pickle")
    with pytest.raises(CheckpointError, match="is damaged or no safetensors file"):
        load_torch(model, path)


def test_layers_of_ones_own(path):
    """Layers without arrays are passed over; of those with some, PyTorch's names are unknown."""

    class Double(Layer):
        def forward(self, x, training=False):
            return 2 * x

    class Scale(Layer):
        def build(self, shape):
            self.declare("slope", shape, lambda _, shape: np.ones(shape))
            return shape

    save_torch(Sequential([Double(), Dense(2)], (3,), "cpu"), path)
    with pytest.raises(ValueError, match="^model: got Scale at position 1, expected Conv2D, Dense"):
        save_torch(Sequential([Dense(2), Scale()], (3,), "cpu"), path)

    class Doubling(Dense):
        def forward(self, x, training=False, relu=False):
            return 2 * super().forward(x, training, relu)

    with pytest.raises(ValueError, match="^model: got Doubling at position 0, expected Conv2D, De"):
        load_torch(Sequential([Doubling(2)], (3,), "cpu"), path)
