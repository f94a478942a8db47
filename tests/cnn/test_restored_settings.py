"""Restoring: settings of a training are compared with those saved, or refused as unknown."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from cnn import (
    EMA,
    SGD,
    Adam,
    AdamW,
    Augment,
    CheckpointError,
    Cosine,
    CrossEntropy,
    Dense,
    Flatten,
    OneCycle,
    Sequential,
    SoftmaxCrossEntropy,
    Step,
    Trainer,
)
from cnn.training_state import described
from tests.lib.fresh_python import output


def make(**options):
    model = Sequential([Flatten(), Dense(3)], (3, 3, 1), "cpu")
    return Trainer(model, SGD(0.05), **options)


@dataclass(frozen=True)
class Falling:
    """A user's schedule, with a field that its repr does not show."""

    rate: float
    power: object = field(default=1, repr=False)

    def __call__(self, step, steps):
        return self.rate * (1 - step / steps)


class Plain:
    """A schedule that is not a dataclass."""

    def __call__(self, step, steps):
        return 1.0


class Derived(Falling):
    """Derived from a dataclass, but not one itself: it may hold anything."""


def constant(rate):
    @dataclass
    class Constant:
        def __call__(self, step, steps):
            return rate

    return Constant()


def closure(rate):
    def schedule(step, steps):
        return rate

    return schedule


def falling(step, steps, least=0.0):
    return max(least, 1 - step / steps) if steps not in {5, 7, "x"} else (lambda: least)()


def renamed(function, name):
    function.__qualname__ = name
    return function


def elsewhere(kind):
    """The same class in another module."""
    return type(kind.__name__, (), {**vars(kind), "__module__": "elsewhere"})


@pytest.mark.parametrize(
    ("saved", "given", "sentence"),
    [
        (closure(0.5), closure(0.25), "the schedule of that training cannot be compared"),
        (closure(0.5), falling, "the schedule of that training cannot be compared"),
        (falling, closure(0.5), "the schedule given here cannot be compared, expected a dataclass"),
        (Plain(), Plain(), "the schedule of that training cannot be compared"),
        (falling, Plain(), "the schedule given here cannot be compared"),
        (Derived(1.0), Derived(1.0), "the schedule of that training cannot be compared"),
        (constant(1.0), constant(0.5), "the schedule of that training cannot be compared"),
        (Falling(1, np.ones(3)), Falling(1, np.ones(3)), "the schedule of that training cannot be"),
        (falling, Falling(1.0).__call__, "the schedule given here cannot be compared"),
        (
            Falling(1.0),
            Falling(0.5),
            f"schedule {__name__}.Falling(rate=1.0, power=1), expected t",
        ),
        (
            Falling(1.0, 2),
            Falling(1.0),
            f"schedule {__name__}.Falling(rate=1.0, power=2), expecte",
        ),
        (Falling(1.0), elsewhere(Falling)(1.0), "power=1), expected elsewhere.Falling(rate=1.0, "),
        (
            lambda step, steps: 1.0,
            lambda step, steps: 0.5,
            f"schedule {__name__}.<lambda> of code ",
        ),
        (
            lambda step, steps: 1,
            lambda step, steps: 1.0,
            f"schedule {__name__}.<lambda> of code ",
        ),
        (
            falling,
            renamed(lambda step, steps: 1.0, "falling"),
            f"schedule {__name__}.falling of c",
        ),
        (
            lambda a, b, c=1: c,
            lambda a, b, c=2: c,
            f" and defaults (1,), expected {__name__}.<lam",
        ),
    ],
    ids=range(16),
)
def test_another_setting_of_the_same_name(saved, given, sentence, tmp_path):
    path = tmp_path / "saved.safetensors"
    make(schedule=saved).save(path)
    trainer = make(schedule=given)
    trainer.model.parameter_buffer[...] = 7
    with pytest.raises(CheckpointError) as caught:
        trainer.restore(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and sentence in message and "\n" not in message
    assert (trainer.model.parameter_buffer == 7).all()
    assert Sequential.load(path, "cpu").parameter_count > 0  # the model is there whatever happens


def same_code(source):
    """Compile a function anew, on other lines of another file."""
    names = {"__name__": __name__}
    exec(compile("\n" * 5 + source, "elsewhere.py", "exec"), names)
    return names["schedule"]


SOURCE = "def schedule(step, steps, *, least=0.5):\n    return least if step in {9, 'a'} else 1.0\n"


@pytest.mark.parametrize(
    "make_schedule",
    [
        lambda: falling,
        lambda: lambda step, steps: 0.5,
        lambda: same_code(SOURCE),
        lambda: Falling(0.5, (1, "a", [None, True])),
        lambda: Falling(np.float32(0.5), np.int64(2)),
        Cosine,
    ],
    ids=["function", "lambda", "compiled anew", "dataclass", "NumPy's numbers", "ours"],
)
def test_the_same_setting_made_anew(make_schedule, tmp_path):
    path = tmp_path / "saved.safetensors"
    make(schedule=make_schedule()).save(path)
    make(schedule=make_schedule()).restore(path)


def test_numpys_numbers_are_compared_as_pythons(tmp_path):
    path = tmp_path / "saved.safetensors"
    numpys = make(schedule=Falling(np.float64(0.5), np.int64(2)), seed=np.int64(3))
    numpys.save(path)
    make(schedule=Falling(0.5, 2), seed=3).restore(path)


def test_a_function_is_the_same_in_another_process(tmp_path):
    path = tmp_path / "saved.safetensors"
    make(schedule=falling).save(path)
    script = f"""
from tests.cnn.test_restored_settings import *
make(schedule=falling).restore({str(path)!r}); print("restored")
"""
    for _ in range(2):  # with a hash seed of its own each, which orders sets
        assert output(script).strip() == "restored"


@pytest.mark.parametrize(
    "setting",
    [
        *(SGD(0.05, momentum=0.9), Adam(1e-2), AdamW(), Cosine(0.1), OneCycle(), Step(), EMA(0.9)),
        *(SoftmaxCrossEntropy(0.1), CrossEntropy(), Augment(10, 2, 0.1), None, "fp32", 3),
    ],
    ids=repr,
)
def test_what_the_first_version_saved_still_fits(setting):
    assert described(setting) == repr(setting)
