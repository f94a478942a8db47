"""Training in 16 bits: narrow activations, gradients and copies, float32 master weights."""

import numpy as np
import pytest

from cnn import (
    EMA,
    SGD,
    Adam,
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Flatten,
    LayerNorm,
    MaxPool2D,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
    Trainer,
)
from cnn.narrow import NarrowNetwork
from cnn.recipes import RECIPES
from tests.lib import network_reference, reference
from tests.lib.planned import NETWORKS, OPTIMIZERS, SHAPE, noise, pair
from tests.lib.support import host, unit_roundoff

TYPES = {"bf16": "bfloat16", "fp16": "float16"}
TRAINED = [name for name in NETWORKS if name != "nothing to train"]

pytestmark = pytest.mark.usefixtures("cuda")


@pytest.fixture(params=TYPES)
def precision(request, cuda):
    if request.param not in cuda.precisions:
        pytest.skip(f"{cuda} has no {request.param} products")
    return request.param


def layers():
    return [Conv2D(6, 3), ReLU(), MaxPool2D(2), Conv2D(8, 2), ReLU(), Flatten(), Dense(4)]


def build(made=layers):
    return Sequential(made(), SHAPE, "cuda", seed=1)


def train(precision, made=layers, optimizer=None, data=None, model=None, epochs=2, **options):
    model = build(made) if model is None else model
    optimizer = SGD(0.05, momentum=0.9) if optimizer is None else optimizer
    trainer = Trainer(model, optimizer, precision=precision, seed=3, **options)
    trainer.fit(noise(20) if data is None else data, epochs, batch_size=8)
    return trainer


def bits(trainer):
    optimizer = trainer.optimizer.state.values()
    return [host(array).tobytes() for array in (trainer.model.parameter_buffer, *optimizer)]


def rounded(array, dtype):
    return host(array).astype(dtype).astype(np.float64)


@pytest.mark.parametrize("plan", [True, False])
def test_copies_are_the_master_weights_rounded(precision, plan):
    trainer = train(precision, plan=plan)
    assert trainer.planned is plan and isinstance(trainer.network, NarrowNetwork)
    assert trainer.model.parameter_buffer.dtype == np.float32
    assert all(array.dtype == np.float32 for array in trainer.optimizer.state.values())
    copy = trainer.network.parameter_buffer
    assert copy.dtype.name == TYPES[precision] == trainer.network.gradient_buffer.dtype.name
    expected = host(trainer.model.parameter_buffer).astype(copy.dtype)
    assert host(copy).tobytes() == expected.tobytes() and expected.any()


@pytest.mark.parametrize("plan", [True, False])
def test_activations_are_narrow(cuda, precision, plan, monkeypatch):
    """Every array that a layer takes or returns in a step is narrow."""
    seen = set()
    for kind in (Conv2D, ReLU, MaxPool2D, Dense):
        forward = kind.forward

        def watched(layer, x, *arguments, _forward=forward, **options):
            y = _forward(layer, x, *arguments, **options)
            seen.update((x.dtype.name, y.dtype.name))
            return y

        monkeypatch.setattr(kind, "forward", watched)
    train(
        precision, lambda: [Conv2D(6, 3), ReLU(), Flatten(), Dense(5), ReLU(), Dense(4)], plan=plan
    )
    assert seen == {TYPES[precision]}


def test_steps_are_those_of_the_oracle(precision):
    """The oracle computes in float64 with rounded weights and images; activations are not rounded.

    No ReLU and no maximum: their gradients jump if a value is rounded across an edge.
    """
    optimizer, (images, labels) = SGD(0.05, momentum=0.9), noise(8)
    model = build(lambda: [Conv2D(6, 3), AvgPool2D(2), Conv2D(8, 2), Flatten(), Dense(4)])
    network = network_reference.Network(model)
    before = {name: host(array).astype(np.float64) for name, array in model.parameters.items()}
    velocity = {name: np.zeros_like(values) for name, values in before.items()}
    master = {name: values.copy() for name, values in before.items()}
    trainer = Trainer(model, optimizer, precision=precision)
    trainer.fit((images, labels), 3, batch_size=8)
    dtype = trainer.network.dtype
    x = rounded((images - model.pixel_mean) / model.pixel_std, dtype)
    for _ in range(3):
        for name, values in master.items():
            position, _, key = name.partition(".")
            network.parameters[int(position)][key] = rounded(values, dtype)
        logits = network.forward(x, training=True)
        _, dlogits = reference.softmax_cross_entropy(logits, labels)
        _, gradients = network.backward(dlogits)
        for name, values in master.items():
            position, _, key = name.partition(".")
            gradient = gradients[int(position)][key]
            master[name], velocity[name] = reference.sgd_step(
                values, gradient, velocity[name], lr=0.05, momentum=0.9
            )
    for name, expected in master.items():
        found = host(model.parameters[name]).astype(np.float64)
        moved = np.abs(expected - before[name]).max()
        assert moved > 0
        # A dozen roundings of values of the largest size.
        assert np.abs(found - expected).max() < 12 * unit_roundoff(dtype) * moved, name


def test_steps_too_small_for_16_bits_add_up(precision):
    """Each step is far smaller than the copy's rounding."""
    optimizer = SGD(1e-6)
    model = build(lambda: [Flatten(), Dense(4)])
    before = host(model.parameter_buffer)
    trainer = train(precision, model=model, optimizer=optimizer, epochs=4)
    after = host(model.parameter_buffer)
    assert (after != before).mean() > 0.5
    copies = [values.astype(trainer.network.dtype) for values in (before, after)]
    assert (copies[0] == copies[1]).mean() > 0.9


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_train(precision, name):
    recipe = RECIPES[name]
    model = Sequential(recipe.layers(), (28, 28, 1), "cuda")
    trainer = Trainer(model, recipe.optimizer(recipe.lr), loss=recipe.loss, precision=precision)
    (epoch,) = trainer.fit(noise(2, shape=(28, 28, 1)), 1, batch_size=2)
    assert trainer.planned and np.isfinite(epoch["train_loss"])


@pytest.mark.parametrize("network", TRAINED)
def test_planned_steps_train_as_plain_ones(cuda, undivided, precision, network):
    trainers = pair(cuda, NETWORKS[network], precision=precision)
    for trainer in trainers:
        trainer.fit(noise(20), epochs=2, batch_size=8)
        assert isinstance(trainer.network, NarrowNetwork)
    planned, plain = (host(trainer.model.parameter_buffer) for trainer in trainers)
    losses = [[record["train_loss"] for record in trainer.history] for trainer in trainers]
    np.testing.assert_allclose(*losses, rtol=1e-2)
    # Fused layers round fewer times: a last bit here and there.
    scale = np.abs(plain).max(initial=0)
    np.testing.assert_allclose(planned, plain, rtol=0, atol=2e-3 * scale)


@pytest.mark.parametrize("plan", [True, False])
def test_running_statistics_are_float32(precision, plan):
    """They change by less than 16 bits resolve."""
    layers = lambda: [Conv2D(3, 3), BatchNorm(momentum=1e-4), ReLU(), Flatten(), Dense(4)]  # noqa: E731
    trainer = train(precision, layers, epochs=1, plan=plan)
    found = {name: host(array) for name, array in trainer.model.state.items()}
    assert isinstance(trainer.network, NarrowNetwork)
    assert all(array.dtype == np.float32 for array in found.values())
    moved = np.abs(found["1.running_var"] - 1)
    assert (moved > 0).all() and moved.max() < 1e-3


@pytest.mark.parametrize("plan", [True, False])
def test_settings_changed_after_the_trainer_was_made_are_followed(precision, plan):
    layers = lambda: [BatchNorm(), Flatten(), LayerNorm(), Dense(4)]  # noqa: E731
    found = []
    for early in (True, False):
        model = build(layers)
        norm, _, other, _ = model.layers
        trainer = None if early else Trainer(model, SGD(0.05), precision=precision, plan=plan)
        norm.eps, norm.momentum, other.eps = 4.0, 0.75, 2.0
        trainer = trainer or Trainer(model, SGD(0.05), precision=precision, plan=plan)
        trainer.fit(noise(20), 1, batch_size=8)
        found.append([host(a).tobytes() for a in (model.parameter_buffer, *model.state.values())])
    assert found[0] == found[1]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_writes_the_copy(precision, optimizer):
    found = []
    for plan in (True, False):
        trainer = train(
            precision,
            lambda: [Flatten(), Dense(4)],
            OPTIMIZERS[optimizer](),
            plan=plan,
            ema=EMA(0.9),
        )
        narrow = trainer.network
        trained = trainer.ema.average  # exchanged for the weights after a training
        assert host(narrow.parameter_buffer).tobytes() == (
            host(trained).astype(narrow.dtype).tobytes()
        )
        found.append(bits(trainer))
    assert len(found) == 2


def test_the_same_bits_on_every_run(precision):
    assert bits(train(precision)) == bits(train(precision))


def test_weights_that_changed_between_trainings_are_taken(precision):
    first, second = build(), build()
    trainer = Trainer(first, SGD(0.05), precision=precision)
    trainer.fit(noise(16), 1, batch_size=8)
    second.parameter_buffer *= 0.5
    second.pixel_mean, second.pixel_std = first.pixel_mean, first.pixel_std
    first.parameter_buffer[...] = second.parameter_buffer
    other = Trainer(second, SGD(0.05), precision=precision)
    other.images_seen = trainer.images_seen  # and so the order of the images
    for one in (trainer, other):
        one.fit(noise(16), 1, batch_size=8)
    assert host(first.parameter_buffer).tobytes() == host(second.parameter_buffer).tobytes()


def test_scaled_gradients_are_scaled_before_they_are_narrow(cuda):
    """A wrong class has probability 1e-9: its unscaled gradient would be 0 in float16."""
    for plan in (True, False):
        model = Sequential([Flatten(), Dense(4)], SHAPE, "cuda")
        model.parameter_buffer[...] = 0
        bias = model.parameters["1.bias"]
        bias[...] = cuda.array([21, 0, 0, 0], np.float32)
        trainer = Trainer(model, SGD(1.0), precision="fp16", plan=plan)
        images, labels = noise(8)
        trainer.fit((images, np.zeros_like(labels)), 1, batch_size=8)
        assert trainer.planned is plan
        # Each wrong class has probability exp(-21).
        np.testing.assert_allclose(host(bias)[1:], -np.exp(-21), rtol=2e-2)


class Scaled(Dense):
    """A layer of the user's."""


def own_loss(outputs, labels, grad=True):
    return SoftmaxCrossEntropy()(outputs, labels, grad)


class OwnSGD(SGD):
    """An optimizer of the user's."""


@pytest.mark.parametrize(
    ("made", "options"),
    [
        (lambda: [Flatten(), Scaled(4)], {}),
        (lambda: [Flatten(), Dense(4)], {"loss": own_loss}),
        (lambda: [Flatten(), Dense(4)], {"optimizer": OwnSGD(0.05)}),
    ],
    ids=["layer", "loss", "optimizer"],
)
def test_others_keep_float32(precision, made, options):
    trainer = train(precision, made, **options)
    assert trainer.network is trainer.model and trainer.narrow is None
    assert np.isfinite(host(trainer.model.parameter_buffer)).all()


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_other_precisions_keep_float32(precision):
    assert Trainer(build(), Adam(), precision=precision).narrow is None
