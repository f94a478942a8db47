"""Schedules: where they start, peak and end, and that they never divide by zero."""

import math

import pytest

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


@pytest.mark.parametrize("schedule", [Constant(), Step(), Cosine(), OneCycle()], ids=repr)
def test_a_training_of_one_step_takes_it_at_full_rate(schedule):
    assert schedule(0, 1) == 1
