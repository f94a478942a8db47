"""The planned step against the layer-by-layer one: the same values, without its Python code.

The same bits, but where convolution or batch-norm is fused with a pool, and sums are taken in
another order: there the same values to rounding.
"""

from dataclasses import dataclass

import numpy as np
import pytest

import kernels
from cnn import (
    EMA,
    SGD,
    Adam,
    AdamW,
    Augment,
    AvgPool2D,
    BatchNorm,
    Conv2D,
    CrossEntropy,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    Layer,
    MaxPool2D,
    OneCycle,
    ReLU,
    Sequential,
    Softmax,
    SoftmaxCrossEntropy,
    Trainer,
)
from cnn.fused import ConvPool, Norm, fuse
from cnn.plan import Plan
from comparison import assert_close
from kernels.runtime.memory import Arena
from support import RTOL, device_of, host

SHAPE = (8, 7, 2)


def noise(count, kind="uint8", seed=0):
    random = np.random.default_rng(seed)
    images = random.integers(256, size=(count, *SHAPE), dtype=np.uint8)
    if kind != "uint8":
        images = (images / 100).astype(kind)
    return images, random.integers(4, size=count)


def small():
    return [Conv2D(3, 3), ReLU(), MaxPool2D(2), Flatten(), Dense(4)]


def normalised():
    return [Conv2D(3, 3, padding="same", bias=False), BatchNorm(), ReLU(), Flatten(), Dense(4)]


NETWORKS = {
    "small": small,
    "fused twice": lambda: [
        *(Conv2D(3, 3, padding="same"), MaxPool2D(2), ReLU()),
        *(Conv2D(5, (2, 1), dilation=(2, 1)), ReLU(), MaxPool2D((2, 1))),
        *(Flatten(), Dense(4)),
    ],
    "ReLU taken up": lambda: [Conv2D(3, 3), ReLU(), Flatten(), Dense(5), ReLU(), Dense(4)],
    "overlapping pool": lambda: [Conv2D(3, 3), MaxPool2D(2, 1), ReLU(), Flatten(), Dense(4)],
    "batch-norm": normalised,
    "textbook": lambda: [*small(), Softmax()],
    "pools": lambda: [AvgPool2D(2), Conv2D(4, 2, groups=2), Dropout(0.3), GlobalAvgPool2D()],
    # Two draws a step, dropout ahead of what is trained, and behind it.
    "dropouts": lambda: [Dropout(0.2), Flatten(), Dense(5), ReLU(), Dropout(0.5), Dense(4)],
    "nothing to train": lambda: [GlobalAvgPool2D(), Softmax()],
}
OPTIMIZERS = {
    "SGD": lambda: SGD(0.1, weight_decay=0.01),
    "momentum": lambda: SGD(0.1, momentum=0.9, weight_decay=0.01),
    "Nesterov": lambda: SGD(0.1, momentum=0.9, nesterov=True),
    "Adam": lambda: Adam(1e-2, weight_decay=0.01),
    "AdamW": lambda: AdamW(1e-2),
}


def buffers(model):
    return model.parameter_buffer, model.gradient_buffer, *model.state.values()


def bits(model):
    return [host(array).tobytes() for array in buffers(model)]


def to_the_bit(model):
    """Whether planned steps sum up as the others do."""
    return not any(isinstance(layer, (ConvPool, Norm)) for layer in fuse(model))


def pair(
    target, layers=small, optimizer=OPTIMIZERS["momentum"], decay=None, dtype="float32", **options
):
    """Return a planned trainer and one without a plan, otherwise equal."""
    trainers = []
    for plan in (True, False):
        model = Sequential(layers(), SHAPE, device_of(target), dtype, seed=1)
        ema = None if decay is None else EMA(decay)
        trainers.append(Trainer(model, optimizer(), seed=3, plan=plan, ema=ema, **options))
    return trainers


def assert_equal(planned, plain):
    assert planned.planned and planned.obstacle is None
    assert not plain.planned and plain.obstacle == "plan is False"
    if to_the_bit(planned.model):
        assert bits(planned.model) == bits(plain.model)
    else:
        for found, expected in zip(buffers(planned.model), buffers(plain.model), strict=True):
            assert_close(found, expected, rtol=RTOL[planned.model.dtype.name])
    for name in ("images_seen", "steps"):
        assert getattr(planned, name) == getattr(plain, name)
    assert planned.optimizer.steps == plain.optimizer.steps
    losses = [[record["train_loss"] for record in t.history] for t in (planned, plain)]
    assert_close(losses[0], losses[1], rtol=1e-6)
    rates = [[record["learning_rate"] for record in t.history] for t in (planned, plain)]
    assert rates[0] == rates[1]


@pytest.mark.parametrize("network", NETWORKS)
def test_every_layer_trains_the_same(target, dtype, network):
    classes = 2 if network == "nothing to train" else 4
    images, labels = noise(13)
    trainers = pair(target, NETWORKS[network], dtype=dtype)
    for trainer in trainers:
        # Two epochs, each with a last batch of one.
        trainer.fit((images, labels % classes), epochs=2, batch_size=4)
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


# --- the recording


def a_plan(trainer, data, steps=8):
    images, labels = (trainer.model.target.array(array) for array in data)
    plan = Plan(trainer, images, labels, [1.0] * steps)
    plan.begin_epoch(trainer.model.target.array(np.arange(len(labels))))
    return plan


def test_python_runs_once_per_batch_size(target, monkeypatch):
    calls = []
    forward = Dense.forward
    monkeypatch.setattr(
        Dense, "forward", lambda self, x, training: calls.append(len(x)) or forward(self, x)
    )
    planned, _ = pair(target)
    planned.fit(noise(14), epochs=3, batch_size=4)
    assert planned.planned and calls == [4, 2]


def test_replays_allocate_nothing(target, monkeypatch):
    planned, _ = pair(target, NETWORKS["dropouts"], decay=0.9)
    plan = a_plan(planned, noise(20))
    plan.step(4)
    arrays = plan.arena.bytes
    for name in ("empty", "fresh", "zeros", "array"):
        monkeypatch.setattr(type(target), name, None)
    for _ in range(4):
        plan.step(4)
    assert plan.arena.bytes == arrays


def test_replays_from_one_state_have_the_same_bits(target):
    """Also where weights and counters are set back in between, as loading a checkpoint does."""
    trainer, _ = pair(target, normalised, OPTIMIZERS["Adam"])
    plan, model = a_plan(trainer, noise(20)), trainer.model
    plan.step(4)
    arrays = [model.parameter_buffer, *model.state.values(), *trainer.optimizer.state.values()]
    arrays += [plan.progress.counters, plan.progress.totals]
    held = [array.copy() for array in arrays]
    ends = []
    for _ in range(2):
        for array, values in zip(arrays, held, strict=True):
            array[...] = values
        plan.step(4)
        plan.step(4)
        ends.append([host(array).tobytes() for array in arrays])
    assert ends[0] == ends[1] != [host(array).tobytes() for array in held]


def test_memory_that_is_freed_is_not_needed(target, monkeypatch):
    """Freed blocks are overwritten while the step is recorded, so a use of one would show."""
    give_back = Arena.give_back

    def poisoning(self, address, size):
        for first, last, memory in self._chunks:
            if first <= address < last:
                memory[address - first : address - first + size].fill(0xFF)  # NaN
        give_back(self, address, size)

    monkeypatch.setattr(Arena, "give_back", poisoning)
    trainers = pair(target, normalised, augment=Augment(shift=1))
    for trainer in trainers:
        trainer.fit(noise(13), epochs=2, batch_size=4)
    assert_equal(*trainers)


def test_backward_takes_the_memory_that_it_frees(monkeypatch):
    asked = []
    array = Arena.array

    def counting(self, shape, dtype):
        result = array(self, shape, dtype)
        asked.append(result.nbytes)
        return result

    monkeypatch.setattr(Arena, "array", counting)
    layers = [layer for _ in range(4) for layer in (Conv2D(32, 3, padding="same"), ReLU())]
    model = Sequential([*layers, Flatten(), Dense(4)], SHAPE, "cpu")
    trainer = Trainer(model, SGD(0.1))
    plan = a_plan(trainer, noise(64))
    plan.step(64)
    # Eight activations are live at once, and a gradient or two; not their eight gradients.
    assert plan.arena.bytes < 0.7 * sum(asked)
    before = plan.arena.bytes
    plan.begin_epoch(np.arange(64))
    plan.step(63)
    assert plan.arena.bytes == before


def test_steps_beyond_the_order_or_the_schedule_are_refused(target):
    plan = a_plan(pair(target)[0], noise(9), steps=3)
    plan.step(4)
    for rows in (6, 0):
        with pytest.raises(ValueError, match=f"rows: got {rows}, expected 1 to 5, what the order"):
            plan.step(rows)
    plan.step(4)
    plan.step(1)
    plan.begin_epoch(target.array(np.arange(9)))
    with pytest.raises(ValueError, match="step: 3 were taken, expected no more"):
        plan.step(4)


def test_layers_remember_nothing_of_a_planned_step(target):
    planned, _ = pair(target, NETWORKS["dropouts"])
    before = [set(vars(layer)) for layer in planned.model.layers]
    planned.fit(noise(13), batch_size=4)
    after = [set(vars(layer)) - {"draws"} for layer in planned.model.layers]
    assert after == [names - {"draws"} for names in before]
    assert [layer.draws for layer in planned.model.layers] == [4, 0, 0, 0, 4, 0]


def test_a_check_sees_the_loss_before_it_does_harm(target):
    planned, _ = pair(target)
    plan, model = a_plan(planned, noise(20)), planned.model

    def check():
        if not np.isfinite(float(plan.progress.totals[0])):
            raise FloatingPointError

    plan.step(4, check)  # recorded
    plan.step(4, check)  # replayed
    model.parameter_buffer[...] = np.inf
    held = bits(model)
    for rows in (4, 3):
        with pytest.raises(FloatingPointError), np.errstate(invalid="ignore"):
            plan.step(rows, check)
        assert bits(model) == held


# --- what cannot be recorded


@dataclass(eq=False)
class Clip(Layer):
    """Not by kernels, so that a replay would give the first step's values."""

    def forward(self, x, training=False):
        self._x = self.ready(x)
        return x.clip(-1, 1)

    def backward(self, dy):
        return dy * (abs(self._x) < 1)


class Doubled(Conv2D):
    """Derived from a layer that can be recorded."""

    def forward(self, x, training=False):
        return 2 * super().forward(x, training)

    def backward(self, dy):
        return super().backward(2 * dy)


class PlainSGD(SGD):
    """Clips gradients by an operation that is no kernel."""

    def step(self, parameters, gradients, *others):
        gradients.clip(-1e-3, 1e-3, out=gradients)
        super().step(parameters, gradients, *others)


def loss_of_ones_own(outputs, labels, grad=True):
    loss, gradient = kernels.softmax_cross_entropy(outputs, labels)
    return 2 * loss, 2 * gradient


def flipped(images, *, seed, offset):
    return images[:, ::-1]


@pytest.mark.parametrize(
    ("options", "obstacle"),
    [
        ({"layers": lambda: [*small()[:1], Clip(), *small()[1:]]}, "Clip is not recordable"),
        ({"layers": lambda: [Doubled(3, 3), Flatten(), Dense(4)]}, "Doubled is not recordable"),
        ({"optimizer": lambda: PlainSGD(0.1)}, "PlainSGD is not recordable"),
        ({"loss": loss_of_ones_own}, "loss_of_ones_own is not recordable"),
        ({"augment": flipped}, "flipped is not recordable"),
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
    """Of kernels alone, and says so."""

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
