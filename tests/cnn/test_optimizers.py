"""Optimizers over several steps against the oracle, and what their settings mean."""

import numpy as np
import pytest

from cnn import SGD, Adam, AdamW
from tests.lib import reference, support
from tests.lib.comparison import assert_close
from tests.lib.support import host, normal

STEPS = 6
#: Like a learning rate schedule, with a step that moves nothing.
FACTORS = [0.5, 1.0, 1.0, 0.25, 0.0, 0.1]
RTOL = support.RTOL | {"float32": 1e-5, "float64": 1e-13}
#: A tail of one over the eight values that a CPU takes at once, and a single one.
SIZES = [1, 1009]


def steps(optimizer, target, size, dtype):
    """Take the steps; return the start, the gradients of each step and the end."""
    start = normal(0, size, dtype=dtype)
    gradients = [normal(1 + step, size, dtype=dtype) for step in range(STEPS)]
    parameters = target.array(start.copy())
    for gradient, factor in zip(gradients, FACTORS, strict=True):
        optimizer.step(parameters, target.array(gradient), factor)
    return start, gradients, host(parameters)


def kept(dtype, arrays):
    """Return what the oracle's arrays are from a step to the next: rounded to their type."""
    return [None if array is None else array.astype(dtype) for array in arrays]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True},
        {"weight_decay": 0.1},
        {"momentum": 0.5, "nesterov": True, "weight_decay": 0.1},
    ],
    ids=lambda settings: " ".join(settings) or "plain",
)
def test_sgd_equals_the_oracle(settings, size, target, dtype):
    optimizer = SGD(0.3, **settings)
    expected, gradients, found = steps(optimizer, target, size, dtype)
    velocity = np.zeros(size) if "momentum" in settings else None
    for gradient, factor in zip(gradients, FACTORS, strict=True):
        expected, velocity = kept(
            dtype, reference.sgd_step(expected, gradient, velocity, lr=0.3 * factor, **settings)
        )
    assert_close(found, expected, rtol=RTOL[dtype.name])
    assert optimizer.steps == STEPS
    assert set(optimizer.state) == ({"velocity"} if "momentum" in settings else set())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [Adam, AdamW])
@pytest.mark.parametrize(
    "settings",
    [{}, {"weight_decay": 0.1}, {"betas": (0.5, 0.6), "eps": 0.1}, {"betas": (0.0, 0.9)}],
    ids=lambda settings: " ".join(map(str, settings.items())) or "plain",
)
def test_adam_equals_the_oracle(kind, settings, size, target, dtype):
    optimizer = kind(0.1, **settings)
    expected, gradients, found = steps(optimizer, target, size, dtype)
    m = v = np.zeros(size)
    for step, (gradient, factor) in enumerate(zip(gradients, FACTORS, strict=True), start=1):
        stepped = reference.adam_step(
            expected,
            gradient,
            m,
            v,
            step=step,
            lr=0.1 * factor,
            betas=optimizer.betas,
            eps=optimizer.eps,
            weight_decay=optimizer.weight_decay,
            decoupled=kind is AdamW,
        )
        expected, m, v = kept(dtype, stepped)
    assert_close(found, expected, rtol=RTOL[dtype.name])
    assert set(optimizer.state) == {"m", "v"}


def test_adamw_shrinks_by_the_decay_and_adam_does_not():
    """Gradients are 0: AdamW shrinks in proportion, Adam treats the decay as a gradient."""
    start = np.array([1.0, -10.0])
    shrunk, adapted = start.copy(), start.copy()
    AdamW(0.1, weight_decay=0.5).step(shrunk, np.zeros(2))
    Adam(0.1, weight_decay=0.5).step(adapted, np.zeros(2))
    assert_close(shrunk, start * (1 - 0.1 * 0.5), rtol=1e-15)
    assert_close(adapted, start - 0.1 * np.sign(start), rtol=1e-8)


def test_adam_and_adamw_are_one_without_decay():
    ends = []
    for kind in (Adam, AdamW):
        parameters = normal(0, 100)
        optimizer = kind(0.1, weight_decay=0.0)
        for step in range(STEPS):
            optimizer.step(parameters, normal(step, 100))
        ends.append(parameters.tobytes())
    assert ends[0] == ends[1]
    assert AdamW().weight_decay > 0 == Adam().weight_decay


def test_the_first_step_of_adam_is_the_rate_whatever_the_gradient():
    parameters = np.zeros(3)
    Adam(0.01).step(parameters, np.array([1e-3, 1.0, -1e6]))
    assert_close(parameters, [-0.01, -0.01, 0.01], rtol=1e-4)


def test_state_belongs_to_one_optimizer():
    first, second = SGD(0.1, momentum=0.9), SGD(0.1, momentum=0.9)
    first.step(np.ones(3), np.ones(3))
    assert second.state == {} and second.steps == 0


@pytest.mark.parametrize(
    ("kind", "settings", "sentence"),
    [
        (SGD, {"lr": -0.1}, "lr: got -0.1, expected at least 0"),
        (SGD, {"lr": float("nan")}, "lr: got nan"),
        (SGD, {"lr": 0.1, "nesterov": True}, "nesterov: is set, expected a momentum above 0"),
        (Adam, {"betas": (0.9, 1.0)}, "betas: got 1.0, expected at least 0 and below 1"),
        (AdamW, {"weight_decay": -1}, "weight_decay: got -1"),
    ],
)
def test_settings_out_of_range(kind, settings, sentence):
    with pytest.raises(ValueError) as caught:
        kind(**settings)
    assert str(caught.value).startswith(sentence)
    optimizer = kind(0.1)
    vars(optimizer).update(settings)  # the kernel would have said the same
    with pytest.raises(ValueError) as caught:
        optimizer.step(np.ones(3), np.ones(3))
    assert str(caught.value).startswith(sentence)


def test_an_optimizer_of_another_model_is_refused():
    optimizer, parameters = SGD(0.1, momentum=0.9), np.ones(3)
    optimizer.step(parameters, np.ones(3))
    others = (np.ones(3), np.ones(5), parameters[:2], parameters[1:])
    for other in others:
        with pytest.raises(ValueError, match="optimizer: its state is that of another model's"):
            optimizer.step(other, np.ones(other.size))


def test_views_of_one_tensor_are_the_same_parameters():
    """Each has a base of its own."""
    torch = pytest.importorskip("torch")
    optimizer, tensor = SGD(0.1, momentum=0.9), torch.zeros(3)
    for _ in range(2):
        optimizer.step(tensor.numpy(), np.ones(3, np.float32))
    assert_close(tensor.numpy(), np.full(3, -0.29), rtol=1e-6)


def test_equal_settings_are_equal_optimizers():
    """Whatever their state, whose arrays have no single truth value."""
    first, second = Adam(0.1), Adam(0.1)
    for optimizer in (first, second):
        optimizer.step(np.ones(3, np.float32), np.ones(3, np.float32))
    assert first == second == Adam(0.1) and first != Adam(0.2) and first != AdamW(0.1)
