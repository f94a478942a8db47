"""Predicting: recorded passes over fused layers equal the layers' own forward."""

import copy
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import pytest

import kernels
from cnn import (
    EMA,
    SGD,
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    Layer,
    MaxPool2D,
    ReLU,
    Sequential,
    Softmax,
    Trainer,
    load_torch,
    save_torch,
)
from cnn.evaluation import evaluate
from cnn.formats.onnx import to_onnx
from cnn.inference import Inference
from kernels import KernelError
from kernels.conv import winograd
from kernels.norm.fold import fold_norm
from kernels.runtime import cpu_target
from kernels.runtime.arena import Arena
from kernels.runtime.recording import Recording, Rehearsal, current
from tests.lib.comparison import assert_close
from tests.lib.reference import batch_norm, relu
from tests.lib.reference_windows import conv2d
from tests.lib.support import RTOL, host, normal, numbers

SHAPE = (9, 8, 2)


class Doubled(Layer):
    """A layer of NumPy's or CuPy's functions, which cannot be recorded."""

    def forward(self, x, training=False):
        return x * 2


def convolution(**options):
    return Conv2D(5, 3, padding="same", **options)


NETWORKS = {
    "pooled": lambda: [convolution(), MaxPool2D(2), ReLU(), Flatten(), Dense(4)],
    "pooled after the ReLU": lambda: [convolution(), ReLU(), MaxPool2D((1, 2))],
    "normalised": lambda: [convolution(), BatchNorm()],
    "normalised and clipped": lambda: [convolution(bias=False), BatchNorm(eps=0.1), ReLU()],
    "normalised and pooled": lambda: [convolution(), BatchNorm(), ReLU(), MaxPool2D(2)],
    # What must not be fused: windows that overlap, groups, a pool or a norm on its own.
    "overlapping": lambda: [convolution(), MaxPool2D(3, stride=2), ReLU()],
    "grouped": lambda: [Conv2D(4, 3, groups=2), BatchNorm(), MaxPool2D(2), ReLU()],
    "alone": lambda: [BatchNorm(), ReLU(), MaxPool2D(2), BatchNorm(), AvgPool2D(2)],
    # On `cpu` all but the first keep transformed filters.
    "wide": lambda: [
        *(Conv2D(16, 3, bias=False), BatchNorm(), Conv2D(17, 3, padding="same"), ReLU()),
        *(Conv2D(16, 3, padding="same"), MaxPool2D(2), ReLU()),
        *(Conv2D(18, 3, padding="same"), BatchNorm(), ReLU(), GlobalAvgPool2D()),
    ],
    "dense": lambda: [Flatten(), Dropout(0.5), Dense(33), ReLU(), Dense(3), Softmax()],
    "global": lambda: [convolution(), GlobalAvgPool2D(), Dense(3, bias=False), ReLU()],
    "one's own layer": lambda: [convolution(), ReLU(), Doubled(), Flatten(), Dense(3)],
}


def trained(target, network, dtype="float32"):
    """Return a model whose parameters and statistics differ from the initial ones."""
    model = Sequential(NETWORKS[network](), SHAPE, target.name, dtype, seed=1)
    for index, (name, array) in enumerate([*model.parameters.items(), *model.state.items()]):
        values = normal(index, *array.shape, dtype=dtype)
        array[...] = target.array(abs(values) + 0.5 if name.endswith("var") else values)
    return model


@pytest.mark.parametrize("network", NETWORKS)
def test_predictions_equal_the_forward_pass(target, dtype, network):
    model = trained(target, network, dtype)
    # Batches of one, of fewer rows than a micro-tile, and with a tail; one of them twice.
    for count, batch_size in ((1, 4), (7, 4), (13, 13), (7, 4)):
        x = target.array(normal(count, count, *SHAPE, dtype=dtype))
        expected = host(model.forward(x)).astype(np.float64)
        assert_close(model.predict(x, batch_size), expected, rtol=RTOL[np.dtype(dtype).name])


@pytest.mark.parametrize("network", ["normalised and pooled", "wide"])
def test_predictions_follow_training_and_the_pixel_statistics(target, network):
    model = Sequential(NETWORKS[network]() + [Flatten(), Dense(3)], SHAPE, target.name)
    random = np.random.default_rng(0)
    images = random.integers(256, size=(8, *SHAPE), dtype=np.uint8)
    before = host(model.predict(images)).copy()
    Trainer(model, SGD(0.1)).fit((images, random.integers(3, size=8)), batch_size=4)
    after = host(model.predict(images))
    assert abs(after - before).max() > 1e-3
    expected = model.forward(model.prepare(images))
    assert_close(after, host(expected).astype(np.float64), rtol=RTOL["float32"])


def test_predictions_follow_every_write(target, dtype):
    model = trained(target, "wide", dtype)
    x = target.array(normal(0, 1, *SHAPE, dtype=dtype))
    views = {**model.parameters, **model.state}
    for name, array in views.items():
        for factor in (1024, np.nan, 1):  # so large that no type rounds it away
            before = numbers(model.predict(x))
            kept = array.copy()
            array.reshape(-1)[-1] *= factor  # in place, a single one
            after, anew = numbers(model.predict(x)), target.empty((1, 18), dtype)
            Inference(model)(x, anew)
            np.testing.assert_array_equal(after, numbers(anew), err_msg=name)
            same = np.array_equal(after, before, equal_nan=True)
            assert same == (factor == 1), (name, factor)
            array[...] = kept


@pytest.mark.parametrize("network", ["normalised", "alone", "wide"])
def test_predictions_follow_the_settings_of_layers(target, network):
    model = trained(target, network)
    x = target.array(normal(0, 2, *SHAPE, dtype=np.float32))
    before = host(model.predict(x)).copy()
    for layer in model.layers:
        if isinstance(layer, BatchNorm):
            layer.eps = 0.5
    after, expected = model.predict(x), host(model.forward(x)).astype(np.float64)
    assert_close(after, expected, rtol=RTOL["float32"])
    assert abs(host(after) - before).max() > 1e-3


def test_predictions_follow_how_a_pool_counts(target):
    model = Sequential([AvgPool2D(3, padding=1)], SHAPE, target.name)
    x = target.array(normal(0, 2, *SHAPE, dtype=np.float32))
    model.predict(x)
    model.layers[0].count_include_pad = False
    np.testing.assert_array_equal(host(model.predict(x)), host(model.forward(x)))


@dataclass(eq=False)
class Powers(Layer):
    """A layer of the user's own, with a whole number among its settings."""

    recordable = True

    times: int = 1

    def forward(self, x, training=False):
        for _ in range(self.times):
            x = kernels.softmax(x)
        return x


def test_predictions_follow_the_settings_of_own_layers(target):
    model = Sequential([Powers()], SHAPE, target.name)
    x = target.array(normal(0, 2, *SHAPE, dtype=np.float32))
    for times in (1, 2):
        model.layers[0].times = times
        np.testing.assert_array_equal(host(model.predict(x)), host(model.forward(x)))


def test_few_tiles_are_multiplied_by_winograd(monkeypatch):
    counts, convolve = [], winograd._convolve

    def count(target, entry, x, *arguments, **options):
        if not isinstance(current(), Rehearsal):
            counts.append(len(x))
        convolve(target, entry, x, *arguments, **options)

    monkeypatch.setattr(winograd, "_convolve", count)
    model = trained(cpu_target(), "wide")
    model.predict(normal(0, 1, *SHAPE, dtype=np.float32))
    assert counts == [1, 1, 1]


def test_many_sizes_and_none(target):
    model = trained(target, "pooled")
    x = normal(0, 6, *SHAPE, dtype=np.float32)
    expected = host(model.forward(target.array(x))).astype(np.float64)
    for size in (1, 2, 3, 4, 5, 6, 1):  # more than are remembered
        assert_close(model.predict(x, size), expected, rtol=RTOL["float32"])
    assert model.predict(x[:0]).shape == (0, 4)


@pytest.mark.parametrize("network", ["pooled", "wide", "dense", "one's own layer"])
@pytest.mark.parametrize(
    "kind", ["float16", "float32", "float64", ">f4", ml_dtypes.bfloat16, "uint8"]
)
def test_every_batch_of_images_of_any_type_is_its_own(target, dtype, network, kind):
    model = trained(target, network, dtype)
    # Three batches of one size, and a smaller one; no larger, for float16 layers hold up to 65504.
    x = abs(normal(0, 11, *SHAPE) * 5).astype(kind)
    expected = host(model.forward(model.prepare(x))).astype(np.float64)
    assert_close(model.predict(x, 3), expected, rtol=RTOL[dtype.name])
    labels = expected.reshape(len(x), -1).argmax(axis=1)
    if expected.ndim == 2:
        assert evaluate(model, (x.astype(x.dtype.newbyteorder("=")), labels))["accuracy"] == 1


def test_threads_get_their_own_predictions(target):
    model = trained(target, "pooled")
    x = [target.array(normal(seed, 16, *SHAPE, dtype=np.float32)) for seed in range(4)]
    expected = [host(model.predict(images)).tobytes() for images in x]
    layers = [host(model.forward(images)).tobytes() for images in x]

    def ask(turn):
        index = turn % 4
        found = host(model.predict(x[index])).tobytes() == expected[index]
        return found and host(model.forward(x[index])).tobytes() == layers[index]

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(ask, range(400)))


@pytest.mark.parametrize("plan", [True, False])
def test_no_step_is_taken_during_a_prediction(target, plan):
    """A prediction holds the model's lock, as this test does; its weights cannot change midway."""
    model = Sequential([Flatten(), Dense(3)], SHAPE, target.name)
    reached, locked = threading.Event(), threading.Event()

    def schedule(step, steps):
        if trainer.steps == 2:
            reached.set()
            assert locked.wait(60)
        return 1.0

    trainer = Trainer(model, SGD(0.1), schedule=schedule, plan=plan)
    data = normal(0, 8, *SHAPE, dtype=np.float32), np.arange(8) % 3
    with ThreadPoolExecutor(1) as threads:
        training = threads.submit(trainer.fit, data, batch_size=2)
        assert reached.wait(60)
        with model.lock:
            locked.set()
            before = host(model.parameter_buffer).copy()
            time.sleep(0.2)
            assert trainer.steps == 2 and np.array_equal(host(model.parameter_buffer), before)
        training.result()
    assert trainer.steps == 4


ARRAYS = {
    "save": lambda model, path: model.save(path),
    "save a training": lambda model, path: Trainer(model, SGD(0.1)).save(path),
    "restore": lambda model, path: Trainer(model, SGD(0.1)).restore(path),
    "fill": lambda model, path: model.fill(model.content(), path),
    "copy": lambda model, path: copy.copy(model),
    "to PyTorch": save_torch,
    "from PyTorch": load_torch,
    "to ONNX": lambda model, path: to_onnx(model),
}


class WatchedLock:
    """A lock that tells when it is asked for."""

    def __init__(self):
        self.lock, self.asked = threading.RLock(), threading.Event()

    def __enter__(self):
        self.asked.set()
        return self.lock.__enter__()

    def __exit__(self, *error):
        self.lock.__exit__(*error)


@pytest.mark.parametrize("what", ARRAYS)
def test_no_step_is_taken_while_arrays_are_saved_or_set(what, tmp_path):
    """Else a file has the digest of other weights, and cannot be loaded."""
    model, path = Sequential([Flatten(), Dense(3)], SHAPE, "cpu"), tmp_path / "file"
    model.lock = lock = WatchedLock()
    before = {"restore": "save a training", "from PyTorch": "to PyTorch"}
    if what in before:
        ARRAYS[before[what]](model, path)
    with ThreadPoolExecutor(1) as threads:
        with lock:
            lock.asked.clear()
            work = threads.submit(ARRAYS[what], model, path)
            assert lock.asked.wait(60) and not work.done()
        work.result()


def test_weights_and_average_are_not_exchanged_during_a_prediction(target):
    model = Sequential([Flatten(), Dense(3)], SHAPE, target.name)

    class Watched(EMA):
        recordable = True

        def swap(self, weights):
            assert not threads.submit(model.lock.acquire, False).result()
            super().swap(weights)

    data = normal(0, 8, *SHAPE, dtype=np.float32), np.arange(8) % 3
    with ThreadPoolExecutor(1) as threads:
        Trainer(model, SGD(0.1), ema=Watched(0.5)).fit(data, batch_size=2)


@dataclass(eq=False)
class Claimed(Layer):
    """Says that it can be recorded, but cannot."""

    recordable = True
    way: str = "result"

    def forward(self, x, training=False):
        if self.way == "result":
            return x * 2
        y = kernels.relu(x)
        if self.way == "in place":
            y *= 2
        return y

    def backward(self, dy):
        return dy * 2 if self.way == "gradient" else kernels.relu_backward(dy, dy)


@pytest.mark.parametrize("way", ["result", "in place"])
def test_a_layer_that_wrongly_says_it_can_be_recorded(target, way):
    for layers in ([Claimed(way), Flatten(), Dense(3)], [Flatten(), Dense(3), Claimed(way)]):
        model = Sequential(layers, SHAPE, target.name)
        with pytest.raises(KernelError, match=r"an array that is no input|gives other results"):
            model.predict(normal(0, 2, *SHAPE, dtype=np.float32))


@pytest.mark.parametrize("way", ["result", "in place", "gradient"])
def test_a_training_of_such_a_layer(target, way):
    model = Sequential([Flatten(), Dense(4), Claimed(way), Dense(3)], SHAPE, target.name)
    before = host(model.parameter_buffer).copy()
    data = normal(0, 4, *SHAPE, dtype=np.float32), np.arange(4) % 3
    with pytest.raises(KernelError, match=r"an array that is no input|gives other results"):
        Trainer(model, SGD(0.1, momentum=0.9)).fit(data, batch_size=2)
    assert np.array_equal(host(model.parameter_buffer), before)


def test_folded_filters_do_the_norm(target, dtype):
    x, w, b = normal(0, 2, 6, 5, 3), normal(1, 4, 3, 3, 3), normal(2, 4)
    gamma, beta, mean, variance = normal(3, 4), normal(4, 4), normal(5, 4), abs(normal(6, 4))
    for bias in (b, None):
        plain = conv2d(x, w, bias)
        expected, *_ = batch_norm(plain, gamma, beta, mean, variance, training=False, eps=1e-3)
        given = [w, bias, gamma, beta, mean, variance]
        taken = [None if a is None else target.array(a.astype(dtype)) for a in given]
        folded, shift, changed = fold_norm(*taken, 1e-3)
        assert host(changed).all()
        assert_close(conv2d(x, host(folded), host(shift)), expected, rtol=RTOL[dtype.name])
        assert not np.array_equal(relu(expected), expected)


def test_which_folded_filters_are_others(target, dtype):
    w, norm = np.ones((5, 3, 3, 2), dtype), [abs(normal(i, 5, dtype=dtype)) for i in range(4)]
    w[0, 0, 0, 0], w[1, 2, 2, 1] = np.nan, 0.0
    w, b, *norm = map(target.array, (w, normal(4, 5, dtype=dtype), *norm))
    _, beta, _, variance = norm
    with Recording(Arena(target), [w, b, *norm]) as recording:
        folded, shift, changed = fold_norm(w, b, *norm, 1e-3)
        kept, same, unlike = fold_norm(w, b)  # without a norm
        lasting = fold_norm(w, b)[2]
        target.zeros(w.shape, dtype)  # would have the filters' memory, were that free again

    def others():
        recording.replay()
        return [np.flatnonzero(host(array)).tolist() for array in (changed, unlike)]

    assert host(changed).all() and host(unlike).all()
    assert others() == [[], []]  # NaN is itself
    assert not host(lasting).any()
    w[1, 2, 2, 1:] = target.array([-0.0], dtype)  # which is not 0, but for a fill of CuPy's
    assert others() == [[1], [1]]
    assert np.signbit(host(folded)[1, 2, 2, 1]) and np.signbit(host(kept)[1, 2, 2, 1])
    variance[3] *= 2
    assert others() == [[3], []]
    before = host(shift).copy()
    beta[2] += 1
    b[4] += 1
    assert others() == [[], []]  # the filters are what they were, the biases are not
    assert np.flatnonzero(host(shift) != before).tolist() == [2, 4]
    np.testing.assert_array_equal(numbers(kept), numbers(w))
    np.testing.assert_array_equal(host(same), host(b))


@dataclass(eq=False)
class Returned(Layer):
    """A layer whose outputs have another shape than `build` says."""

    def __init__(self, forward):
        self.compute = forward

    def forward(self, x, training=False):
        return self.compute(x)


@pytest.mark.parametrize(
    ("compute", "got"),
    [
        (lambda x: x.mean(axis=0), "outputs of shape (4,)"),
        (lambda x: x[:, :1], "outputs of shape (3, 1)"),
        (lambda x: None, "None"),
        (lambda x: [[0.0] * 4] * 3, "list"),
    ],
    ids=["mean", "column", "nothing", "list"],
)
def test_outputs_of_another_shape_than_announced(compute, got):
    """They would be broadcast, and nothing become NaN."""
    model = Sequential([Dense(4), Returned(compute)], (2,), "cpu")
    with pytest.raises(ValueError) as caught:
        model.predict(normal(0, 3, 2, dtype=np.float32))
    assert str(caught.value) == f"model: its layers return {got}, expected shape (3, 4) by `build`"


class Counting(Layer):
    """Counts its passes in its own array, with a kernel."""

    recordable = True

    def forward(self, x, training=False):
        kernels.sgd_step(self.count, self.one, lr=1)
        return kernels.relu(x)

    def backward(self, dy):
        return dy


@pytest.mark.parametrize("plan", [True, False])
def test_arrays_of_a_layers_own_change_once_a_pass(target, plan):
    layer = Counting()
    layer.count, ones = target.zeros((1,), np.float32), np.ones(1, np.float32)
    ones.flags.writeable = False
    layer.one = target.array(ones)
    layer.names = np.array([None, "beside them"])  # of objects, which no kernel takes
    model = Sequential([layer, Flatten(), Dense(3)], SHAPE, target.name)
    images = normal(0, 8, *SHAPE, dtype=np.float32)
    trainer = Trainer(model, SGD(0.1), plan=plan)
    trainer.fit((images, np.arange(8) % 3), batch_size=3, epochs=2)
    assert trainer.planned == plan and host(layer.count) == -6
    model.predict(images, 4)
    assert host(layer.count) == -8
