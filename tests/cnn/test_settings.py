"""What `cnn` is given is checked where it is given, and kept as Python's numbers."""

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest

from cnn import (
    EMA,
    SGD,
    Adam,
    AdamW,
    Augment,
    AvgPool2D,
    BatchNorm,
    Constant,
    Conv2D,
    Cosine,
    Dataset,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPool2D,
    OneCycle,
    Run,
    Sequential,
    SoftmaxCrossEntropy,
    Step,
    Trainer,
    evaluate,
    load_torch,
    save_torch,
)
from cnn.formats.onnx import to_onnx
from cnn.recipes import RECIPES, Recipe

IMAGES = np.random.default_rng(0).integers(256, size=(12, 6, 6), dtype=np.uint8)
LABELS = np.arange(12) % 3
DATA = IMAGES, LABELS


def model(**options):
    return Sequential([Flatten(), Dense(3)], (6, 6, 1), "cpu", **options)


def trainer(**options):
    return Trainer(**({"model": model(), "optimizer": SGD(0.1)} | options))


def recipe(**options):
    return Recipe(**({"layers": list, "optimizer": SGD, "lr": 1, "epochs": 1} | options))


NAN, INFINITY = math.nan, math.inf
WHOLE, FROM_0, FRACTION, BELOW_1, EITHER = (
    "expected at least 1 and below 2**31",
    "expected at least 0",
    "expected at least 0 and at most 1",
    "expected at least 0 and below 1",
    "expected True or False",
)
SEED = "expected a whole number from 0 to 2**64 - 1"
PADDING = "expected a whole number, (h, w), ((top, bottom), (left, right)), 'valid' or 'same'"


# Of every setting: what lies just outside its range, and what is none of its kind.
VALUES = [
    (lambda: Conv2D(0, 3), f"filters: got 0, {WHOLE}"),
    (lambda: Conv2D(2**31, 3), f"filters: got 2147483648, {WHOLE}"),
    (lambda: Conv2D(8, 0), f"kernel: got 0, {WHOLE}"),
    (lambda: Conv2D(8, (3, 0)), f"kernel: got 0, {WHOLE}"),
    (lambda: Conv2D(8, (3, 3, 3)), "kernel: got (3, 3, 3), expected a whole number or a pair"),
    (lambda: Conv2D(8, 3, stride=0), f"stride: got 0, {WHOLE}"),
    (lambda: Conv2D(8, 3, padding=-1), "padding: got -1, expected at least 0"),
    (lambda: Conv2D(8, 3, padding="full"), f"padding: got 'full', {PADDING}"),
    (lambda: Conv2D(8, 3, padding=(1, 2, 3)), f"padding: got (1, 2, 3), {PADDING}"),
    (lambda: Conv2D(8, 3, padding=((0, 1), (0, -1))), "padding: got -1, expected at least 0"),
    (lambda: Conv2D(8, 3, dilation=0), f"dilation: got 0, {WHOLE}"),
    (lambda: Conv2D(8, 3, groups=0), f"groups: got 0, {WHOLE}"),
    (lambda: Dense(0), f"units: got 0, {WHOLE}"),
    (lambda: Dense(-3), f"units: got -3, {WHOLE}"),
    (lambda: Dense(np.int64(-3)), f"units: got -3, {WHOLE}"),
    (lambda: BatchNorm(momentum=2), f"momentum: got 2, {FRACTION}"),
    (lambda: BatchNorm(momentum=-0.1), f"momentum: got -0.1, {FRACTION}"),
    (lambda: BatchNorm(eps=-1e-9), f"eps: got -1e-09, {FROM_0}"),
    (lambda: BatchNorm(eps=NAN), f"eps: got nan, {FROM_0}"),
    (lambda: MaxPool2D(-1), f"kernel: got -1, {WHOLE}"),
    (lambda: MaxPool2D(2, stride=(1, 0)), f"stride: got 0, {WHOLE}"),
    (lambda: MaxPool2D(2, padding="Same"), f"padding: got 'Same', {PADDING}"),
    (lambda: MaxPool2D(2, dilation=-1), f"dilation: got -1, {WHOLE}"),
    (lambda: Dropout(1.5), f"p: got 1.5, {BELOW_1}"),
    (lambda: Dropout(1), f"p: got 1, {BELOW_1}"),
    (lambda: Dropout(-0.1), f"p: got -0.1, {BELOW_1}"),
    (lambda: SGD(NAN), f"lr: got nan, {FROM_0}"),
    (lambda: SGD(INFINITY), f"lr: got inf, {FROM_0}"),
    (lambda: SGD(0.1, momentum=-0.1), f"momentum: got -0.1, {FROM_0}"),
    (lambda: SGD(0.1, nesterov=True), "nesterov: is set, expected a momentum above 0"),
    (lambda: SGD(0.1, weight_decay=-1), f"weight_decay: got -1, {FROM_0}"),
    (lambda: Adam(-1), f"lr: got -1, {FROM_0}"),
    (lambda: Adam(betas=(0.9, 1)), f"betas: got 1, {BELOW_1}"),
    (lambda: Adam(betas=(-0.1, 0.9)), f"betas: got -0.1, {BELOW_1}"),
    (lambda: Adam(betas=0.9), "betas: got 0.9, expected a pair of numbers"),
    (lambda: Adam(betas=(0.9,)), "betas: got (0.9,), expected a pair of numbers"),
    (lambda: Adam(eps=-1), f"eps: got -1, {FROM_0}"),
    (lambda: AdamW(weight_decay=NAN), f"weight_decay: got nan, {FROM_0}"),
    (lambda: Step(every=0), "every: got 0, expected at least 1e-09 and at most 1"),
    (lambda: Step(every=1.1), "every: got 1.1, expected at least 1e-09 and at most 1"),
    (lambda: Step(gamma=-0.1), f"gamma: got -0.1, {FRACTION}"),
    (lambda: Cosine(warmup=1), f"warmup: got 1, {BELOW_1}"),
    (lambda: Cosine(warmup=-0.1), f"warmup: got -0.1, {BELOW_1}"),
    (lambda: Cosine(final=-0.1), f"final: got -0.1, {FRACTION}"),
    (lambda: OneCycle(peak=1.1), f"peak: got 1.1, {FRACTION}"),
    (lambda: OneCycle(peak=-0.1), f"peak: got -0.1, {FRACTION}"),
    (lambda: OneCycle(start=-0.1), f"start: got -0.1, {FRACTION}"),
    (lambda: OneCycle(final=2), f"final: got 2, {FRACTION}"),
    (lambda: SoftmaxCrossEntropy(1.5), f"label_smoothing: got 1.5, {FRACTION}"),
    (lambda: SoftmaxCrossEntropy(-0.1), f"label_smoothing: got -0.1, {FRACTION}"),
    (lambda: Augment(rotate=-1), f"rotate: got -1, {FROM_0}"),
    (lambda: Augment(shift=NAN), f"shift: got nan, {FROM_0}"),
    (lambda: Augment(zoom=1), f"zoom: got 1, {BELOW_1}"),
    (lambda: EMA(1), f"decay: got 1, {BELOW_1}"),
    (lambda: EMA(NAN), f"decay: got nan, {BELOW_1}"),
    (lambda: model(seed=-1), f"seed: got -1, {SEED}"),
    (lambda: model(seed=2**64), f"seed: got 18446744073709551616, {SEED}"),
    (lambda: Sequential([Dense(3)], (0,)), f"input_shape: got 0, {WHOLE}"),
    (lambda: model().predict(IMAGES, batch_size=-1), f"batch_size: got -1, {WHOLE}"),
    (lambda: model().predict(IMAGES, batch_size=0), f"batch_size: got 0, {WHOLE}"),
    (lambda: model().summary(0), f"batch_size: got 0, {WHOLE}"),
    (lambda: evaluate(model(), DATA, batch_size=-1), f"batch_size: got -1, {WHOLE}"),
    (lambda: trainer().evaluate(DATA, batch_size=0), f"batch_size: got 0, {WHOLE}"),
    (lambda: trainer(seed=-1), f"seed: got -1, {SEED}"),
    (lambda: trainer(schedule=lambda *_: NAN).fit(DATA), f"schedule: got nan, {FROM_0}"),
    (lambda: Sequential.load("nowhere", "gpu"), "device: got 'gpu', expected 'auto', 'cpu' or"),
    (lambda: Run("runs", keep=0), f"keep: got 0, {WHOLE}"),
    (lambda: recipe(batch_size=0), f"batch_size: got 0, {WHOLE}"),
    (lambda: recipe(batch_size=1, lr=-1), f"lr: got -1, {FROM_0}"),
    (lambda: recipe(batch_size=1, ema=1), f"ema: got 1, {BELOW_1}"),
    (lambda: recipe(batch_size=1, epochs=0), f"epochs: got 0, {WHOLE}"),
]
KINDS = [
    (lambda: Conv2D(8.0, 3), "filters: got 8.0, expected a whole number"),
    (lambda: Conv2D(8, "3"), "kernel: got '3', expected a whole number"),
    (lambda: Conv2D(8, None), "kernel: got None, expected a whole number"),
    (lambda: Conv2D(8, 3, stride=None), "stride: got None, expected a whole number"),
    (lambda: Conv2D(8, 3, padding=0.5), "padding: got 0.5, expected a whole number"),
    (lambda: Conv2D(8, 3, groups=True), "groups: got True, expected a whole number"),
    (lambda: Conv2D(8, 3, bias="no"), f"bias: got 'no', {EITHER}"),
    (lambda: Conv2D(8, 3, bias=2), f"bias: got 2, {EITHER}"),
    (lambda: Conv2D(8, 3, bias=None), f"bias: got None, {EITHER}"),
    (lambda: Dense(3, bias=[]), f"bias: got list, {EITHER}"),
    (lambda: BatchNorm(momentum=None), "momentum: got None, expected a number"),
    (lambda: MaxPool2D(2, ceil_mode="ceil"), f"ceil_mode: got 'ceil', {EITHER}"),
    (lambda: AvgPool2D(2.5), "kernel: got 2.5, expected a whole number"),
    (lambda: AvgPool2D(2, count_include_pad=1.0), f"count_include_pad: got 1.0, {EITHER}"),
    (lambda: Dropout("half"), "p: got 'half', expected a number"),
    (lambda: SGD("fast"), "lr: got 'fast', expected a number"),
    (lambda: SGD(0.1, 0.9, nesterov="yes"), f"nesterov: got 'yes', {EITHER}"),
    (lambda: Augment(zoom="1"), "zoom: got '1', expected a number"),
    (lambda: EMA("0.9"), "decay: got '0.9', expected a number"),
    (lambda: model(seed=None), "seed: got None, expected a whole number"),
    (lambda: model(dtype="float31"), "dtype: got 'float31' on cpu, expected one of float32, f"),
    (lambda: model(dtype=None), "dtype: got None on cpu, expected one of float32, float64"),
    (lambda: model(dtype=">f4"), "dtype: got >f4 on cpu, expected one of float32, float64"),
    (lambda: Sequential(Dense(3), (4,)), "layers: got Dense, expected a sequence of layers"),
    (lambda: Sequential([Dense(3)], 4), "input_shape: got 4, expected a sequence such as (28,"),
    (lambda: Sequential([Dense(3)], "4"), "input_shape: got '4', expected a sequence such as"),
    (lambda: Sequential([Dense(3)], b"4"), "input_shape: got bytes, expected a sequence such as"),
    (lambda: Sequential([Dense(3)], np.array(4)), "input_shape: got ndarray, expected a sequence"),
    (lambda: Sequential([Dense(3)], (4.0,)), "input_shape: got 4.0, expected a whole number"),
    (lambda: model().predict(IMAGES, 1.5), "batch_size: got 1.5, expected a whole number"),
    (lambda: model().summary("8"), "batch_size: got '8', expected a whole number"),
    (
        lambda: evaluate(model(), DATA, SoftmaxCrossEntropy),
        "loss: got the class SoftmaxCrossEn",
    ),
    (lambda: evaluate([], DATA), "model: got list, expected an object of class Sequential"),
    (lambda: trainer(model="m"), "model: got 'm', expected an object of class Sequential"),
    (lambda: trainer(optimizer=SGD), "optimizer: got the class SGD, expected an object of cl"),
    (lambda: trainer(loss=0), "loss: got 0, expected an object that can be called"),
    (lambda: trainer(schedule=0), "schedule: got 0, expected an object that can be called"),
    (lambda: trainer(schedule=OneCycle), "schedule: got the class OneCycle, expected an obje"),
    (lambda: trainer(augment=True), "augment: got True, expected an object that can be called"),
    (lambda: trainer(ema=0.9), "ema: got 0.9, expected an object of class EMA"),
    (lambda: trainer(plan="no"), f"plan: got 'no', {EITHER}"),
    (lambda: trainer(run="r"), "run: got 'r', expected an object of class Run"),
    (lambda: trainer(seed=0.5), "seed: got 0.5, expected a whole number"),
    (lambda: trainer().fit(DATA, progress="no"), f"progress: got 'no', {EITHER}"),
    (lambda: trainer(schedule=lambda *_: None).fit(DATA), "schedule: got None, expected a num"),
    (lambda: save_torch([], "nowhere"), "model: got list, expected an object of class Sequent"),
    (lambda: load_torch([], "nowhere"), "model: got list, expected an object of class Sequent"),
    (lambda: to_onnx("m"), "model: got 'm', expected an object of class Sequential"),
    (lambda: Run("runs", keep=1.5), "keep: got 1.5, expected a whole number"),
    (lambda: Dataset(*DATA, name=3), "Dataset: name: got 3, expected a string"),
    (lambda: recipe(batch_size=1, loss=None), "loss: got None, expected an object that"),
]


@pytest.mark.parametrize(
    ("error", "make", "sentence"),
    [(ValueError, *row) for row in VALUES] + [(TypeError, *row) for row in KINDS],
)
def test_refused_where_it_is_given(error, make, sentence):
    with pytest.raises(error) as caught:
        make()
    message = str(caught.value)
    assert message.startswith(sentence) and "\n" not in message


def test_the_ends_of_the_ranges_are_in_them():
    Dropout(0), Augment(), EMA(0), SGD(0), Adam(0, (0, 0), 0), Cosine(0, 0), Cosine(0, 1)
    Step(1e-9)(1, 2), Step(1, 1), OneCycle(0, 0, 0), OneCycle(1, 1, 1), SoftmaxCrossEntropy(1)
    BatchNorm(0, 0), BatchNorm(1), Dense(1), Conv2D(1, 1), MaxPool2D(1)
    built = Sequential([Dropout(0.5), Flatten(), Dense(3)], (6, 6, 1), "cpu", seed=2**64 - 1)
    history = Trainer(built, SGD(0.1), augment=Augment(1), seed=2**64 - 1).fit(DATA)
    assert math.isfinite(history[-1]["train_loss"])


# NumPy's numbers


# How each class is called with numbers, given as they are and as NumPy's.
CALLS = [
    (Conv2D, (3, (2, 3)), {"stride": (2, 1), "padding": ((0, 1), (1, 0)), "dilation": 2}),
    (Conv2D, (4, 3, 2, 1, (1, 1), 2, False), {}),
    (Conv2D, (4, 3), {"padding": "same", "groups": 1, "bias": True}),
    (Dense, (3, True), {}),
    (BatchNorm, (0.5, 0.25), {}),
    (MaxPool2D, (2, 1, (1, 0), 1, True), {}),
    (MaxPool2D, ((2, 1), None), {}),
    (AvgPool2D, (2, (1, 2), 1, (1, 1), False, False), {}),
    (Dropout, (0.5,), {}),
    (SGD, (0.5, 0.25, True, 0.125), {}),
    (SGD, (1,), {}),
    (Adam, (0.5, (0.25, 0.5), 0.125, 1), {}),
    (AdamW, (1, (0, 0.5)), {"weight_decay": 0.5}),
    (Step, (0.5, 0.25), {}),
    (Cosine, (0.5, 1), {}),
    (OneCycle, (0.5, 0, 1), {}),
    (SoftmaxCrossEntropy, (0.5,), {}),
    (Augment, (10, 2, 0.5), {}),
    (EMA, (0.5,), {}),
    (Recipe, (list, SGD, 0.5, 2, 8), {"ema": 0.5}),
]
NUMPY = {
    "narrow": {bool: np.bool_, int: np.int8, float: np.float16},
    "wide": {bool: np.bool_, int: np.uint64, float: np.longdouble},
    "usual": {bool: np.bool_, int: np.int64, float: np.float64},
}


def as_numpy(value, kinds, sequence):
    """Return numbers of a type for each of Python's, and strings as NumPy's strings."""
    if isinstance(value, tuple):
        return sequence(as_numpy(part, kinds, sequence) for part in value)
    if isinstance(value, str):
        return np.str_(value)
    return kinds.get(type(value), lambda same: same)(value)


def fields_of(made):
    names = made.__dataclass_fields__
    return {name: getattr(made, name) for name in names if names[name].init}


def is_numpys(value):
    return any(map(is_numpys, value)) if type(value) is tuple else isinstance(value, np.generic)


@pytest.mark.parametrize("kinds", NUMPY)
@pytest.mark.parametrize("sequence", [tuple, list])
@pytest.mark.parametrize(("kind", "arguments", "settings"), CALLS)
def test_numpys_numbers_are_pythons(kind, arguments, settings, sequence, kinds):
    expected = kind(*arguments, **settings)
    given = [as_numpy(value, NUMPY[kinds], sequence) for value in (*arguments, *settings.values())]
    named = dict(zip(settings, given[len(arguments) :], strict=True))
    made = kind(*given[: len(arguments)], **named)
    assert repr(made) == repr(expected)
    assert fields_of(made) == fields_of(expected)
    assert not any(map(is_numpys, fields_of(made).values()))
    if isinstance(made, Layer):
        assert json.dumps(made.settings()) == json.dumps(expected.settings())


@dataclass(eq=False)
class Scaled(Layer):
    """A user's layer, which checks nothing."""

    by: float = 1.0
    shape: tuple = ()

    recordable = False

    def forward(self, x, training=False):
        return x * x.dtype.type(self.by)

    def backward(self, dy):
        return dy * dy.dtype.type(self.by)


def numpys_schedule(step, steps):
    return np.float32(0.5)


@pytest.mark.parametrize("plan", [True, False], ids=["planned", "layer by layer"])
def test_a_training_in_numpys_numbers_is_saved_and_goes_on(plan, tmp_path):
    def make(number, floating, run=None):
        own = [] if plan else [Scaled(floating(0.5), (number(1), [floating(2)]))]
        layers = [*own, Flatten(), Dropout(floating(0.25)), Dense(number(LABELS.max() + 1))]
        net = Sequential(layers, [number(6), number(6), 1], "cpu", seed=number(5))
        optimizer, ema = SGD(floating(0.05), momentum=floating(0.5)), EMA(floating(0.5))
        options = {"schedule": numpys_schedule, "seed": number(7), "ema": ema, "plan": plan}
        return Trainer(net, optimizer, run=run, **options)

    run = Run.create(tmp_path / "run", keep=np.int64(2))
    trained = make(np.int64, np.float32, run)
    trained.optimizer.lr = np.float32(trained.optimizer.lr)  # attributes that anybody may set
    trained.model.layers[-2].p = np.float32(trained.model.layers[-2].p)
    trained.fit(DATA, np.int64(2), np.int32(5), validation=DATA, progress=np.bool_(False))
    resumed = make(int, lambda value: float(np.float32(value)))
    resumed.restore(run.checkpoints[0])
    assert len(resumed.history) == 1
    resumed.fit(DATA, 2, 5, validation=DATA)
    assert trained.planned is resumed.planned is plan
    ours, theirs = trained.model, resumed.model
    assert ours.parameter_buffer.tobytes() == theirs.parameter_buffer.tobytes()
    assert ours.summary(np.int64(8)) == theirs.summary(8)

    ours.pixel_mean = np.float32(ours.pixel_mean)
    ours.save(tmp_path / "model.safetensors")
    loaded = Sequential.load(tmp_path / "model.safetensors", "cpu")
    assert loaded.predict(IMAGES, 5).tobytes() == ours.predict(IMAGES, np.uint8(5)).tobytes()


def test_a_files_lists_are_tuples_again(tmp_path):
    path = tmp_path / "model.safetensors"
    layers = [Conv2D(2, (2, 3), padding=((0, 1), (1, 0))), MaxPool2D((2, 1)), Flatten(), Dense(3)]
    Sequential(layers, (6, 6, 1), "cpu").save(path)
    loaded = Sequential.load(path, "cpu").layers[0]
    assert (loaded.kernel, loaded.padding) == ((2, 3), ((0, 1), (1, 0)))


def test_recipes_have_the_settings_that_they_had():
    """They are in the checkpoints of trainings to be resumed, in which 10 is not 10.0."""
    assert repr(RECIPES["default"].augment) == "Augment(rotate=10, shift=2, zoom=0.1)"
    assert repr(RECIPES["speedrun"].loss) == "SoftmaxCrossEntropy(label_smoothing=0.1)"
    assert repr(Constant()) == "Constant()"
