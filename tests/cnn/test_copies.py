"""Models copied and pickled: what `save` writes, and the state of random numbers."""

import copy
import pickle
from dataclasses import dataclass

import numpy as np
import pytest

from cnn import (
    EMA,
    SGD,
    BatchNorm,
    Dense,
    Dropout,
    Ensemble,
    Flatten,
    Layer,
    ReLU,
    Sequential,
    Trainer,
    TrainingDivergedError,
)
from cnn.data.mnist import DataNotFoundError
from tests.lib import fresh_python
from tests.lib.support import host, normal

SHAPE = (4, 3, 2)


@dataclass(eq=False)
class Shrunk(Layer):
    """A layer of the user's own, with a pair among its settings."""

    factors: tuple[int, int] = (2, 3)

    def forward(self, x, training=False):
        return x * (self.factors[0] / self.factors[1])

    def backward(self, dy):
        return dy * (self.factors[0] / self.factors[1])


def trained(target):
    layers = [Flatten(), Dropout(0.5), Dense(5), BatchNorm(), Shrunk((1, 2)), ReLU(), Dense(3)]
    model = Sequential(layers, SHAPE, target.name, seed=3)
    images = np.random.default_rng(0).integers(256, size=(8, *SHAPE), dtype=np.uint8)
    Trainer(model, SGD(0.1)).fit((images, np.arange(8) % 3), batch_size=4)
    return model


WAYS = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    **{f"pickle {n}": lambda m, n=n: pickle.loads(pickle.dumps(m, n)) for n in (2, 5)},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_predicts_and_trains_the_same_and_shares_nothing(target, way):
    model = trained(target)
    x = normal(0, 5, *SHAPE, dtype=np.float32)
    model.predict(x)  # so that it has recordings, and a lock
    twin = WAYS[way](model)
    assert [type(layer) for layer in twin.layers] == [type(layer) for layer in model.layers]
    assert (twin.pixel_mean, twin.pixel_std) == (model.pixel_mean, model.pixel_std)
    assert host(twin.predict(x)).tobytes() == host(model.predict(x)).tobytes()
    before = host(model.parameter_buffer).copy()
    data = normal(1, 8, *SHAPE, dtype=np.float32), np.arange(8) % 3
    Trainer(twin, SGD(0.1), seed=1).fit(data, batch_size=4)
    assert np.array_equal(host(model.parameter_buffer), before)
    Trainer(model, SGD(0.1), seed=1).fit(data, batch_size=4)  # the dropout is the same, too
    assert host(twin.parameter_buffer).tobytes() == host(model.parameter_buffer).tobytes()
    for name, array in twin.state.items():
        assert host(array).tobytes() == host(model.state[name]).tobytes()


def test_a_trainer_copies_with_its_model(target):
    trainer = Trainer(trained(target), SGD(0.1, momentum=0.9))
    data = normal(1, 8, *SHAPE, dtype=np.float32), np.arange(8) % 3
    trainer.fit(data, batch_size=4)
    twin = copy.deepcopy(trainer)
    for each in (trainer, twin):
        each.fit(data, batch_size=4)
    ends = [host(each.model.parameter_buffer).tobytes() for each in (trainer, twin)]
    assert ends[0] == ends[1]


@pytest.mark.parametrize("way", sorted(WAYS.keys() - {"copy"}))
def test_a_trainer_of_mixed_precision_copies_with_its_model(cuda, way):
    layers = [Flatten(), Dropout(0.5), Dense(5), BatchNorm(), ReLU(), Dense(3)]
    model = Sequential(layers, SHAPE, "cuda")
    trainer = Trainer(model, SGD(0.1, momentum=0.9), precision="bf16")
    data = normal(1, 8, *SHAPE, dtype=np.float32), np.arange(8) % 3
    trainer.fit(data, batch_size=4)
    twin = WAYS[way](trainer)
    for each in (trainer, twin):
        each.fit(data, batch_size=4)
    ends = [each.model.content().arrays for each in (trainer, twin)]
    assert all(array.tobytes() == ends[1][name].tobytes() for name, array in ends[0].items())


@pytest.mark.parametrize("way", WAYS)
def test_a_copied_optimizer_and_average_have_arrays_of_their_own(target, way):
    trainer = Trainer(trained(target), SGD(0.1, momentum=0.9), ema=EMA(0.9))
    data = normal(1, 8, *SHAPE, dtype=np.float32), np.arange(8) % 3
    trainer.fit(data, batch_size=4)
    twin = copy.deepcopy(trainer)
    parts = WAYS[way](trainer.optimizer), WAYS[way](trainer.ema)
    Trainer(copy.copy(trainer.model), parts[0], ema=parts[1], seed=5).fit(data, batch_size=4)
    for each in (trainer, twin):
        each.fit(data, batch_size=4)
    ends = [host(each.model.parameter_buffer).tobytes() for each in (trainer, twin)]
    assert ends[0] == ends[1]


@pytest.mark.parametrize("way", WAYS)
def test_an_ensemble_copies_with_its_models(target, way):
    ensemble = Ensemble([trained(target), trained(target)])
    x = normal(0, 5, *SHAPE, dtype=np.float32)
    expected = host(ensemble.predict(x))
    assert host(WAYS[way](ensemble).predict(x)).tobytes() == expected.tobytes()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "error",
    [
        TrainingDivergedError(np.nan, 3, "the output of layer 2 (Dense)", None),
        DataNotFoundError("MNIST is not here: no route to host", "no route to host"),
    ],
)
def test_an_error_comes_from_another_process_as_it_was(way, error):
    """One that cannot be unpickled breaks, or stops for ever, a pool of processes."""
    twin = WAYS[way](error)
    assert type(twin) is type(error) and str(twin) == str(error)
    assert vars(twin) == vars(error)


def test_another_process_unpickles_a_model_and_imports_its_layers(tmp_path):
    (tmp_path / "own_layers.py").write_text(
        "from dataclasses import dataclass\n"
        "from cnn import Layer\n"
        "@dataclass(eq=False)\n"
        "class Twice(Layer):\n"
        "    def forward(self, x, training=False):\n"
        "        return x * 2\n"
    )
    path = f"{fresh_python.REPOSITORY}:{tmp_path}"
    model = "Sequential([Flatten(), Dense(2), own_layers.Twice()], (2, 2, 1), 'cpu')"
    made = fresh_python.output(
        "import pickle, own_layers\n"
        "from cnn import Dense, Flatten, Sequential\n"
        f"print(pickle.dumps({model}).hex())",
        PYTHONPATH=path,
    )
    read = fresh_python.output(
        f"import pickle\nmodel = pickle.loads(bytes.fromhex({made.strip()!r}))\n"
        "print([type(layer).__name__ for layer in model.layers])",
        PYTHONPATH=path,
    )
    assert read == "['Flatten', 'Dense', 'Twice']\n"
