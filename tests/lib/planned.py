"""Trainers with a plan and without, and networks for them."""

import numpy as np

from cnn import (
    EMA,
    SGD,
    Adam,
    AdamW,
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    MaxPool2D,
    ReLU,
    Sequential,
    Softmax,
    Trainer,
)
from cnn.fused import ConvPool, Norm
from cnn.fusion import fuse
from cnn.plan import Plan
from tests.lib.comparison import assert_close
from tests.lib.support import NARROW, RTOL, host, unit_roundoff

SHAPE = (8, 7, 2)


def noise(count, kind="uint8", seed=0, shape=SHAPE):
    random = np.random.default_rng(seed)
    images = random.integers(256, size=(count, *shape), dtype=np.uint8)
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
    "batch-norm and pool": lambda: [
        *(Conv2D(3, 3, padding="same"), BatchNorm(), MaxPool2D(2), ReLU()),
        *(BatchNorm(), ReLU(), MaxPool2D((2, 1)), Flatten(), Dense(4)),
    ],
    "textbook": lambda: [*small(), Softmax()],
    "pools": lambda: [AvgPool2D(2), Conv2D(4, 2, groups=2), Dropout(0.3), GlobalAvgPool2D()],
    # Two dropouts per step, before and after the trained layers.
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
    """Whether planned steps add up in the same order as the others."""
    return not any(isinstance(layer, (ConvPool, Norm)) for layer in fuse(model))


def pair(
    target,
    layers=small,
    optimizer=OPTIMIZERS["momentum"],
    decay=None,
    dtype="float32",
    shape=SHAPE,
    **options,
):
    """Return a planned trainer and one without a plan, otherwise equal."""
    trainers = []
    for plan in (True, False):
        model = Sequential(layers(), shape, target.name, dtype, seed=1)
        ema = None if decay is None else EMA(decay)
        trainers.append(Trainer(model, optimizer(), seed=3, plan=plan, ema=ema, **options))
    return trainers


def assert_equal(planned, plain):
    assert planned.planned and planned.obstacle is None
    assert not plain.planned and plain.obstacle == "plan is False"
    if to_the_bit(planned.model):
        assert bits(planned.model) == bits(plain.model)
    else:
        name = planned.model.dtype.name
        # Sums in another order are rounded to another number now and then: activations and
        # parameters, in each of the steps.
        rtol = RTOL[name] * (2 * planned.steps if name in NARROW else 1)
        for found, expected in zip(buffers(planned.model), buffers(plain.model), strict=True):
            assert_close(found, expected, rtol=rtol)
    for name in ("images_seen", "steps"):
        assert getattr(planned, name) == getattr(plain, name)
    assert planned.optimizer.steps == plain.optimizer.steps
    losses = [[record["train_loss"] for record in t.history] for t in (planned, plain)]
    # Layer by layer a batch's loss is rounded to the model's type; in a planned step it may not be.
    assert_close(losses[0], losses[1], rtol=1e-6 + unit_roundoff(planned.model.dtype))
    rates = [[record["learning_rate"] for record in t.history] for t in (planned, plain)]
    assert rates[0] == rates[1]


def a_plan(trainer, data, steps=8):
    images, labels = (trainer.model.target.array(array) for array in data)
    plan = Plan(trainer, images, labels, steps)
    plan.begin_epoch(trainer.model.target.array(np.arange(len(labels))), [1.0] * steps)
    return plan
