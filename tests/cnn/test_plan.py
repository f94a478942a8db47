"""The planned step and the layer-by-layer one give the same values.

They give the same bits, unless convolution or batch-norm is fused with a pool, or the last dense
layer with the loss divides k into other parts on `cuda`: sums are then taken in another order, and
the values are the same up to rounding.
"""

from dataclasses import dataclass

import pytest

import kernels
from cnn import (
    SGD,
    Augment,
    Conv2D,
    CrossEntropy,
    Dense,
    Flatten,
    Layer,
    OneCycle,
    Sequential,
    SoftmaxCrossEntropy,
    Trainer,
)
from tests.cases.layers import LAYERS
from tests.lib.comparison import assert_close
from tests.lib.planned import (
    NETWORKS,
    OPTIMIZERS,
    SHAPE,
    assert_equal,
    bits,
    noise,
    pair,
    small,
    to_the_bit,
)
from tests.lib.support import NARROW, RTOL


@pytest.mark.parametrize("network", NETWORKS)
def test_every_layer_trains_the_same(target, dtype, network):
    classes = 2 if network == "nothing to train" else 4
    images, labels = noise(13)
    trainers = pair(target, NETWORKS[network], dtype=dtype)
    for trainer in trainers:
        # Two epochs, each with a last batch of one.
        trainer.fit((images, labels % classes), epochs=2, batch_size=4)
    assert_equal(*trainers)


@pytest.mark.parametrize("name", [name for name, case in LAYERS.items() if len(case.input) == 4])
def test_every_layer_of_the_table_trains_the_same(target, name):
    """Each stands between two layers, so that forward and backward are both used."""
    case = LAYERS[name]
    shape = case.input[1:]
    layers = lambda: [Conv2D(shape[-1], 1), case.make(), Flatten(), Dense(4)]  # noqa: E731
    trainers = pair(target, layers, shape=shape)
    for trainer in trainers:
        trainer.fit(noise(13, shape=shape), epochs=2, batch_size=4)
    assert_equal(*trainers)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("network", "decay"), [("ReLU taken up", 0.9), ("small", None)])
def test_every_optimizer_trains_the_same(target, dtype, optimizer, network, decay):
    options = {"decay": decay, "dtype": dtype, "schedule": OneCycle()}
    trainers = pair(target, NETWORKS[network], OPTIMIZERS[optimizer], **options)
    for trainer in trainers:
        # Weights and average are exchanged for each validation.
        trainer.fit(noise(13), epochs=2, batch_size=4, validation=noise(5, seed=1))
    assert_equal(*trainers)
    validation = [[record["validation_loss"] for record in t.history] for t in trainers]
    if to_the_bit(trainers[0].model):
        assert validation[0] == validation[1]
    else:
        assert_close(validation[0], validation[1], rtol=RTOL[dtype.name])


@pytest.mark.parametrize("kind", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("augment", [None, Augment(rotate=10, shift=1, zoom=0.1)])
def test_every_form_of_images_trains_the_same(target, dtype, kind, augment):
    trainers = pair(target, NETWORKS["ReLU taken up"], dtype=dtype, augment=augment)
    for trainer in trainers:
        trainer.fit(noise(13, kind), epochs=2, batch_size=4)
    assert_equal(*trainers)


# Of float32 models alone: test_batch.py has every pair of types.
@pytest.mark.parametrize("pixel_type", NARROW)
@pytest.mark.parametrize("augment", [None, Augment(rotate=10, shift=1, zoom=0.1)])
def test_narrow_images_train_the_same(target, pixel_type, augment):
    trainers = pair(target, NETWORKS["ReLU taken up"], augment=augment)
    for trainer in trainers:
        trainer.fit(noise(13, pixel_type), epochs=2, batch_size=4)
    assert_equal(*trainers)


# A batch of one, one beyond the data, and one that divides it.
@pytest.mark.parametrize("batch_size", [1, 20, 5])
def test_any_batch_size_trains_the_same(target, batch_size):
    trainers = pair(target, NETWORKS["dropouts"])
    for trainer in trainers:
        trainer.fit(noise(10), epochs=2, batch_size=batch_size)
    assert_equal(*trainers)


def test_a_second_fit_goes_on_with_what_has_changed(target):
    trainers = pair(target, NETWORKS["dropouts"], OPTIMIZERS["Adam"], decay=0.9)
    for trainer in trainers:
        trainer.augment = Augment(shift=1)
        trainer.fit(noise(13), batch_size=4)
        trainer.optimizer.lr *= 3
        trainer.augment = None
        trainer.fit(noise(9, "float32", seed=2), epochs=2, batch_size=5)
    assert_equal(*trainers)


def test_losses_are_those_of_their_settings(target):
    for loss, layers in (
        (SoftmaxCrossEntropy(label_smoothing=0.2), small),
        (CrossEntropy(), NETWORKS["textbook"]),
    ):
        trainers = pair(target, layers, loss=loss)
        for trainer in trainers:
            trainer.fit(noise(13), batch_size=4)
        assert_equal(*trainers)


# --- what cannot be recorded


@dataclass(eq=False)
class Clip(Layer):
    """Uses no kernels: a replay would repeat the first step's values."""

    def forward(self, x, training=False):
        self._x = self.ready(x)
        return x.clip(-1, 1)

    def backward(self, dy):
        return dy * (abs(self._x) < 1)


class Doubled(Conv2D):
    """A class derived from a layer that can be recorded."""

    def forward(self, x, training=False):
        return 2 * super().forward(x, training)

    def backward(self, dy):
        return super().backward(2 * dy)


class PlainSGD(SGD):
    """Clips gradients by an operation that is not a kernel."""

    def step(self, parameters, gradients, *others):
        gradients.clip(-1e-3, 1e-3, out=gradients)
        super().step(parameters, gradients, *others)


def loss_of_ones_own(outputs, labels, grad=True):
    loss, gradient = kernels.softmax_cross_entropy(outputs, labels)
    return 2 * loss, 2 * gradient


def flipped(images, *, seed, offset):
    return images[:, ::-1]


class Flipping(Augment):
    recordable = True

    def __call__(self, images, *, seed, offset):
        return flipped(super().__call__(images, seed=seed, offset=offset), seed=0, offset=0)


@pytest.mark.parametrize(
    ("options", "obstacle"),
    [
        ({"layers": lambda: [*small()[:1], Clip(), *small()[1:]]}, "Clip is not recordable"),
        ({"layers": lambda: [Doubled(3, 3), Flatten(), Dense(4)]}, "Doubled is not recordable"),
        ({"optimizer": lambda: PlainSGD(0.1)}, "PlainSGD is not recordable"),
        ({"loss": loss_of_ones_own}, "loss_of_ones_own is not recordable"),
        ({"augment": flipped}, "flipped is not recordable"),
        ({"augment": Flipping(1)}, "Flipping is not recordable"),  # even if it says so
    ],
)
def test_what_is_not_recordable_trains_layer_by_layer(target, options, obstacle):
    trainers = pair(target, **options)
    for trainer in trainers:
        trainer.fit(noise(13), epochs=2, batch_size=4)
    planned, plain = trainers
    assert not planned.planned and planned.obstacle == obstacle
    assert bits(planned.model) == bits(plain.model)


@pytest.mark.parametrize("kind", ["float16", ">f4"])
def test_images_that_no_kernel_takes_train_layer_by_layer(kind):
    model = Sequential(small(), SHAPE, "cpu")
    trainer = Trainer(model, SGD(0.1))
    trainer.fit(noise(13, kind), batch_size=4)
    assert not trainer.planned and "are not gathered by a kernel" in trainer.obstacle


@dataclass(eq=False)
class Rectified(Layer):
    """Uses only kernels, and says so: `recordable`."""

    recordable = True

    def forward(self, x, training=False):
        self._y = kernels.relu(x)
        return self._y

    def backward(self, dy):
        return kernels.relu_backward(dy, self._y)


def test_a_layer_of_ones_own_is_planned_where_it_says_so(target):
    trainers = pair(target, lambda: [Conv2D(3, 3), Rectified(), Flatten(), Dense(4)])
    for trainer in trainers:
        trainer.fit(noise(13), epochs=2, batch_size=4)
    assert_equal(*trainers)
