"""Several models as one: probabilities are the mean of theirs."""

import numpy as np
import pytest

from cnn import Conv2D, Dense, Ensemble, Flatten, Sequential, Softmax, evaluate
from tests.lib.reference import softmax
from tests.lib.support import host, normal

SHAPE = (6, 5, 1)


def model(seed, *layers, device="cpu", dtype="float32", shape=SHAPE):
    made = Sequential([Flatten(), Dense(4), *layers], shape, device, dtype, seed=seed)
    made.pixel_mean, made.pixel_std = seed / 10, 1 + seed  # each has statistics of its own
    return made


@pytest.fixture
def models(target, dtype):
    device = target.name
    return [model(1, device=device, dtype=dtype), model(2, Softmax(), device=device, dtype=dtype)]


def test_probabilities_are_the_mean(models):
    images = np.random.default_rng(0).integers(256, size=(11, *SHAPE), dtype=np.uint8)
    # Of the second, whose last layer is a softmax, they are the outputs.
    logits, chances = (host(one.predict(images)).astype(np.float64) for one in models)
    expected = (softmax(logits) + chances) / 2
    found = host(Ensemble(models).predict(images, 4))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, atol=1e-2 if models[0].dtype.itemsize < 4 else 1e-6)


def test_evaluating_measures_the_mean(models):
    x, labels = normal(0, 30, *SHAPE, dtype=np.float32), np.arange(30) % 4
    ensemble = Ensemble(models)
    chances = host(ensemble.predict(x))
    found = evaluate(ensemble, (x, labels), batch_size=7)
    assert found["accuracy"] == (chances.argmax(axis=1) == labels).mean()
    expected = -np.log(chances[np.arange(30), labels]).mean()
    assert found["loss"] == pytest.approx(expected, rel=1e-5)


def test_one_alone_is_the_model():
    one = model(1)
    x, labels = normal(0, 30, *SHAPE, dtype=np.float32), np.arange(30) % 4
    alone = evaluate(one, (x, labels))
    assert evaluate(Ensemble([one]), (x, labels)) == pytest.approx(alone, rel=1e-5)


def test_a_model_without_layers(target):
    models = [Sequential(layers, (4,), target.name) for layers in ([], [Softmax()])]
    x = normal(0, 30, 4, dtype=np.float32)
    np.testing.assert_allclose(host(Ensemble(models).predict(x, 8)), softmax(x), atol=1e-6)


@pytest.mark.parametrize(
    ("models", "error", "sentence"),
    [
        ([], ValueError, "models: got none, expected at least one"),
        (model(1), TypeError, "models: got Sequential, expected a sequence of models"),
        ([model(1), "b"], TypeError, r"models\[1\]: got 'b', expected an object of class Seq"),
        (
            [model(1), model(1, shape=(6, 5, 2))],
            ValueError,
            r"models\[1\]: is for inputs of shape \(6, 5, 2\) and outputs \(4,\) on cpu, expected "
            r"for inputs of shape \(6, 5, 1\) and outputs \(4,\) on cpu as models\[0\]",
        ),
        (
            [Sequential([Conv2D(3, 1)], SHAPE, "cpu")],
            ValueError,
            r"models\[0\]: gives outputs of shape \(6, 5, 3\), expected \(classes,\)",
        ),
    ],
)
def test_what_does_not_fit_together(models, error, sentence):
    with pytest.raises(error, match=f"^{sentence}"):
        Ensemble(models)


def test_its_models_stay():
    """One that was added would be averaged unchecked: (N, 1) with the others' (N, 4)."""
    together = Ensemble([model(1)])
    assert isinstance(together.models, tuple) and together.models[0].output_shape == (4,)
