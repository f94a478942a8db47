"""Batches cut into shards: what a step is then, and that any number of processes can share them."""

import ml_dtypes
import numpy as np
import pytest

from cnn import (
    EMA,
    SGD,
    Augment,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    OneCycle,
    ReLU,
    Run,
    Sequential,
    SoftmaxCrossEntropy,
    Trainer,
)
from cnn.parallel.world import World
from tests.lib.comparison import assert_close
from tests.lib.planned import OPTIMIZERS, assert_equal, noise, normalised, pair, small
from tests.lib.resumed import held
from tests.lib.support import host
from tests.lib.thread_world import in_threads

# 41 images in batches of 16: the last step's 9 are shards of 3, 2, 2 and 2.
DATA, BATCH, SHARDS = noise(41), 16, 4


def layers():
    # Running statistics and random draws, with and without parameters before them.
    conv = [Conv2D(4, 3, bias=False), BatchNorm(), ReLU()]
    return [*conv, Dropout(0.2), Flatten(), Dropout(0.4), Dense(4)]


def make(world=None, shards=SHARDS, seed=3, ema=None, **options):
    model = Sequential(layers(), (8, 7, 2), "cpu", seed=1)
    return Trainer(
        model,
        SGD(0.05, momentum=0.9),
        schedule=OneCycle(),
        augment=Augment(rotate=10, shift=1, zoom=0.1),
        seed=seed,
        ema=ema and EMA(ema),
        shards=shards,
        world=world,
        **options,
    )


def fit(trainer, data=DATA, epochs=2):
    return trainer.fit(data, epochs, BATCH, validation=DATA)


# What a step is


@pytest.mark.parametrize("shards", [2, 3])  # the batch of 5: 3 + 2, and 2 + 2 + 1
@pytest.mark.parametrize("plan", [True, False])
def test_a_step_takes_the_mean_of_its_shards(target, plan, shards):
    """Gradients are the mean over the images, and running statistics that over the shards."""
    images, labels = noise(5, "float64")
    ends = [0, 3, 5] if shards == 2 else [0, 2, 4, 5]
    model, other = (
        Sequential(normalised(), (8, 7, 2), target.name, "float64", seed=1) for _ in range(2)
    )
    trainer = Trainer(model, SGD(0.5), plan=plan, shards=shards, seed=9)
    trainer.fit((images, labels), 1, 6 if shards == 3 else 8)
    order = np.random.default_rng((9, 0)).permutation(5)
    gradient, state, loss = 0, 0, 0
    start = host(other.state_buffer).copy()
    for begin, end in zip(ends, ends[1:], strict=False):
        other.state_buffer[...] = target.array(start)
        chosen, share = order[begin:end], (end - begin) / 5
        x, expected = target.array(images[chosen]), target.array(labels[chosen])
        of_shard, dy = SoftmaxCrossEntropy()(other.forward(x, training=True), expected)
        other.backward(dy)
        gradient += share * host(other.gradient_buffer)
        state += share * host(other.state_buffer)
        loss += share * float(of_shard)
    assert_close(model.gradient_buffer, gradient, rtol=1e-12)
    assert_close(model.state_buffer, state, rtol=1e-12)
    assert_close(model.parameter_buffer, host(other.parameter_buffer) - 0.5 * gradient, rtol=1e-12)
    assert trainer.history[0]["train_loss"] == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize("name", ["momentum", "Adam"])
def test_planned_and_layer_by_layer_are_the_same(target, name):
    trainers = pair(target, normalised, OPTIMIZERS[name], 0.9, augment=Augment(shift=1), shards=2)
    for trainer in trainers:
        trainer.fit(noise(13), epochs=2, batch_size=4)
    assert_equal(*trainers)


def test_random_numbers_of_a_plan_are_those_of_layers():
    planned, plain = make(), make(plan=False)
    for trainer in (planned, plain):
        fit(trainer)
    assert [layer.draws for layer in planned.model.layers] == [0, 0, 0, 24, 0, 24, 0]
    assert_equal(planned, plain)


def test_each_shard_has_random_numbers_of_its_own():
    offsets = []

    def spy(images, *, seed, offset):
        offsets.append((offset, len(images)))
        return images

    model = Sequential(small(), (8, 7, 2), "cpu")
    Trainer(model, SGD(0.1), augment=spy, shards=SHARDS).fit(DATA, 2, BATCH)
    assert offsets == [*enumerate([4] * 8 + [3, 2, 2, 2] + [4] * 8 + [3, 2, 2, 2])]


def test_precision_and_loss_scale(cuda):
    """An overflow in one shard leaves out the step."""
    for precision in ("bf16", "fp16"):
        trainers = pair(cuda, normalised, augment=Augment(shift=1), shards=2, precision=precision)
        for trainer in trainers:
            trainer.fit(noise(6), epochs=1, batch_size=4)
        assert_equal(*trainers)


# Any number of processes


@pytest.mark.parametrize("options", [{}, {"ema": 0.9, "plan": False}], ids=["planned", "plain"])
def test_any_number_of_processes_gives_the_same_bits(options):
    def work(world):
        trainer = make(world, **options)
        fit(trainer)
        return held(trainer), trainer.evaluate(DATA, batch_size=7)

    alone = work(World())
    for size in (2, 4):
        for found in in_threads(size, work):
            assert found == alone


def test_the_number_of_processes_may_change_when_a_training_is_resumed(tmp_path):
    whole = make()
    fit(whole, epochs=3)

    def go_on(world):
        trainer = make(world)
        trainer.restore(tmp_path / "run" / "checkpoints" / "epoch-0001.safetensors")
        fit(trainer, epochs=3)
        return held(trainer)

    fit(make(run=Run.create(tmp_path / "run", keep=9)), epochs=3)
    for size in (1, 2, 4):
        for found in in_threads(size, go_on):
            assert found == held(whole)


def test_processes_agree_about_images_of_bfloat16():
    def work(world):
        trainer = make(world)
        trainer.augment = None  # takes none on a CPU
        fit(trainer, noise(41, ml_dtypes.bfloat16))
        return held(trainer)

    alone = work(World())
    assert in_threads(2, work) == [alone, alone]


def test_processes_have_one_shard_each_unless_told_otherwise():
    assert make(shards=None).shards == 1
    assert in_threads(2, lambda world: make(world, shards=None).shards) == [2, 2]


@pytest.mark.parametrize("plan", [True, False])
def test_all_processes_see_where_a_loss_that_is_not_finite_began(plan):
    images, labels = noise(41, "float32")
    # Of the last shard of the third step: only the last process has it.
    images[np.random.default_rng((3, 0)).permutation(41)[40]] = 3e38

    def work(world):
        model = Sequential([Flatten(), Dense(4)], (8, 7, 2), "cpu", seed=1)
        model.parameters["1.weight"][...] = 100
        trainer = Trainer(model, SGD(0.05), seed=3, shards=SHARDS, world=world, plan=plan)
        trainer.fit((images, labels), 2, BATCH)

    messages = {str(error) for size in (1, 2, 4) for error in in_threads(size, work)}
    expected = "the loss is nan at step 3, first in the output of layer 1 (Dense)"
    assert messages == {f"{expected}; there is no checkpoint"}


DISAGREEMENTS = {
    "seed": lambda world: fit(make(world, seed=world.rank)),
    "optimizer": lambda world: fit(changed(make(world), world.rank)),
    "training data": lambda world: fit(make(world), noise(41, seed=world.rank)),
    "images": lambda world: fit(make(world), noise(41 + world.rank)),
    "epochs": lambda world: fit(make(world), epochs=1 + world.rank),
    "weights": lambda world: fit(poked(make(world), world.rank)),
    "shards": lambda world: fit(make(world, shards=2 + 2 * world.rank)),
    "fresh statistics": lambda world: fit(make(world, fresh_statistics=world.rank == 1)),
    "batch size": lambda world: make(world).evaluate(DATA, batch_size=7 + world.rank),
}


def changed(trainer, rank):
    trainer.optimizer.lr += rank
    return trainer


def poked(trainer, rank):
    trainer.model.parameter_buffer[0] += rank
    return trainer


@pytest.mark.parametrize("what", DISAGREEMENTS)
def test_processes_that_disagree(what):
    errors = in_threads(2, DISAGREEMENTS[what])
    assert {type(error) for error in errors} == {ValueError} and len(set(map(str, errors))) == 1
    assert str(errors[0]).startswith(f"{what}: process 1 has ")
    assert str(errors[0]).endswith(" as in process 0")


def test_weights_that_drift_apart_are_noticed():
    """Such as on processors of two kinds, which round differently."""

    class Drifting(SGD):
        def update(self, parameters, *arguments, **options):
            super().update(parameters, *arguments, **options)
            parameters[0] += drift.pop()

    drift = [0, 1] * 3

    def work(world):
        trainer = make(world, shards=2)
        trainer.optimizer = Drifting(0.1)
        fit(trainer)

    errors = in_threads(2, work)
    assert all(str(error).startswith("weights of this epoch: process 1 has ") for error in errors)


# What cannot be cut


@pytest.mark.parametrize(
    ("work", "sentence"),
    [
        (
            lambda: make().fit(DATA, 1, 18),
            "batch_size: got 18, expected a multiple of 4, the number of shards",
        ),
        (
            lambda: make().fit(noise(3), 1, 16),
            "data: got 3 images, expected at least 4, one per shard",
        ),
        (
            lambda: in_threads(2, lambda world: make(world, shards=3))[0],
            "shards: got 3, expected a multiple of 2, the number of processes",
        ),
        (lambda: make(shards=0), "shards: got 0, expected at least 1 and below 2**31"),
        (
            # A step of 16, and one of 5, whose last shards are of 1.
            lambda: single_pixels().fit(noise(21, shape=(1, 1, 2)), 1, 16),
            "batch_size: got 16 for 21 images, expected no step with one of 4 shards of one image, "
            "since layer 0 (BatchNorm) trains on more than one value per channel",
        ),
    ],
)
def test_what_cannot_be_cut(work, sentence):
    try:
        error = work()
    except ValueError as raised:
        error = raised
    assert isinstance(error, ValueError) and str(error) == sentence


def single_pixels():
    model = Sequential([BatchNorm(), Flatten(), Dense(4)], (1, 1, 2), "cpu")
    return Trainer(model, SGD(0.1), shards=SHARDS)


def test_a_training_goes_on_with_its_number_of_shards(tmp_path):
    first = make(run=Run.create(tmp_path / "run"))
    fit(first)
    other = make(shards=2)
    other.restore(tmp_path / "run" / "checkpoints" / "epoch-0001.safetensors")
    with pytest.raises(ValueError, match="shards: got 2, expected 4 as in the training restored"):
        fit(other)
