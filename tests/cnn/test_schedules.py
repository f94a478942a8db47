"""Schedules: where they start, peak and end, and that they never divide by zero."""

import math

import hypothesis
import pytest
from hypothesis import strategies as st

from cnn import Constant, Cosine, OneCycle, Step

ALL = [
    Constant(),
    Step(),
    Step(every=1.0),
    Cosine(),
    Cosine(warmup=0.3, final=0.1),
    OneCycle(),
    OneCycle(peak=0.0),
    OneCycle(peak=1.0),
]


def factors(schedule, steps):
    return [schedule(step, steps) for step in range(steps)]


def is_rising(values):
    return all(a < b for a, b in zip(values, values[1:], strict=False))


def is_falling(values):
    return is_rising(values[::-1])


@pytest.mark.parametrize("schedule", ALL, ids=repr)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 7, 100, 469])
def test_factors_are_rates(schedule, steps):
    values = factors(schedule, steps)
    assert all(math.isfinite(value) and 0 <= value <= 1 for value in values)
    assert max(values) > 0


def test_constant():
    assert factors(Constant(), 5) == [1.0] * 5


def test_step_drops_after_each_part():
    assert factors(Step(every=0.25, gamma=0.5), 8) == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]


@pytest.mark.parametrize(("parts", "steps"), [(3, 3), (3, 1407), (10, 12), (10, 34)])
def test_step_drops_on_time_in_spite_of_rounding(parts, steps):
    values = factors(Step(1 / parts, 0.5), steps)
    assert values == [0.5 ** (step * parts // steps) for step in range(steps)]


def test_step_over_the_whole_training_never_drops():
    assert factors(Step(every=1.0), 6) == [1.0] * 6


def test_cosine_falls_from_one_to_its_end():
    values = factors(Cosine(final=0.1), 101)
    assert values[0] == 1 and math.isclose(values[-1], 0.1)
    assert math.isclose(values[50], 0.55)  # halfway in time, halfway down
    assert is_falling(values)


def test_cosine_warms_up_in_a_line_to_the_top():
    values = factors(Cosine(warmup=0.1), 100)
    assert is_rising(values[:11]) and is_falling(values[10:])
    assert values[10] == 1 and values[0] > 0
    assert math.isclose(values[9] - values[8], values[1] - values[0])
    assert math.isclose(values[-1], 0, abs_tol=1e-12)


def test_one_cycle_rises_to_its_peak_and_falls_to_its_end():
    values = factors(OneCycle(peak=0.25, start=0.1, final=0.05), 101)
    assert math.isclose(values[0], 0.1) and values[25] == 1 and math.isclose(values[100], 0.05)
    assert is_rising(values[:26]) and is_falling(values[25:])
    assert math.isclose(values[10], 0.1 + 0.9 * 10 / 25)
    assert math.isclose(values[50], 1 - 0.95 * 25 / 75)


def test_one_cycle_with_its_peak_at_either_end():
    assert is_falling(factors(OneCycle(peak=0.0), 10)) and OneCycle(peak=0.0)(0, 10) == 1
    assert is_rising(factors(OneCycle(peak=1.0), 10)) and OneCycle(peak=1.0)(9, 10) == 1


@pytest.mark.parametrize("schedule", [*ALL, Cosine(warmup=0.95)], ids=repr)
def test_a_training_of_one_step_takes_it_at_full_rate(schedule):
    assert schedule(0, 1) == 1


# What the last step took before it was the schedule's end: a tenth, a quarter, everything.
@pytest.mark.parametrize(
    ("schedule", "steps"),
    [
        (OneCycle(peak=0.9), 10),
        (OneCycle(), 2),
        (Cosine(warmup=0.9), 10),
        (Cosine(warmup=0.95), 10),
    ],
    ids=repr,
)
def test_the_last_step_takes_the_end_even_right_after_the_top(schedule, steps):
    assert schedule(steps - 1, steps) == 0


fractions = st.floats(0, 1)


@hypothesis.given(
    steps=st.integers(1, 300),
    schedule=st.builds(Cosine, warmup=st.floats(0, 1, exclude_max=True), final=fractions)
    | st.builds(OneCycle, peak=fractions, start=fractions, final=fractions),
)
@hypothesis.example(steps=3, schedule=OneCycle(peak=math.nextafter(1, 0)))
@hypothesis.example(steps=300, schedule=Cosine(warmup=math.nextafter(1, 0)))
@hypothesis.example(steps=2, schedule=OneCycle(peak=5e-324))
def test_up_to_the_top_and_down_to_the_end(schedule, steps):
    values = factors(schedule, steps)
    if steps == 1:
        assert values == [1]
        return
    at_the_end = getattr(schedule, "peak", None) == 1  # of the training, there is the top
    assert values[-1] == (1 if at_the_end else schedule.final)
    # Sums are rounded: by an ulp a factor may be past what it comes to.
    assert all(min(values[0], values[-1]) <= value + 1e-15 <= 1 + 2e-15 for value in values)
    top = values.index(max(values))
    pairs = list(zip(values, values[1:], strict=False))
    assert all(a <= b for a, b in pairs[:top])
    assert all(a + 1e-15 >= b for a, b in pairs[top:])
