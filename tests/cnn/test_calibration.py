"""Calibration: the bins, and the expected error of known guesses."""

import numpy as np
import pytest

from cnn.calibration import calibration


def test_calibration_compares_confidence_and_accuracy():
    right, wrong = [0.9, 0.1], [0.3, 0.7]
    probabilities = np.array([right, right, right, wrong, wrong, [0.75, 0.25]])
    found = calibration(np.zeros(6, int), probabilities, bins=4)
    assert found.images.tolist() == [0, 0, 3, 3]  # 0.75 belongs to the bin that it ends
    assert found.confidence[2:] == pytest.approx([(0.7 + 0.7 + 0.75) / 3, 0.9])
    assert found.accuracy[2:] == pytest.approx([1 / 3, 1])
    assert np.isnan([found.confidence[:2], found.accuracy[:2]]).all()
    assert found.error == pytest.approx((3 * abs(1 / 3 - 2.15 / 3) + 3 * 0.1) / 6)


@pytest.mark.parametrize("bins", [1, 15, 25])  # 7 / 25 * 25 is more than 7
def test_a_bin_holds_its_upper_end(bins):
    ends = np.arange(1, bins + 1) / bins
    assert (calibration(np.zeros(bins, int), ends[:, None], bins).images == 1).all()


def test_the_error_of_calibrated_guesses_is_small_and_of_sure_ones_what_they_get_wrong():
    random = np.random.default_rng(0)
    shares = random.dirichlet(np.ones(10), size=20_000)
    labels = (random.random((20_000, 1)) > shares.cumsum(axis=1)).sum(axis=1)
    assert calibration(labels, shares).error < 0.02
    sure = np.eye(10)[shares.argmax(axis=1)]
    error = calibration(labels, sure).error
    assert error == pytest.approx((shares.argmax(axis=1) != labels).mean()) and error > 0.5
