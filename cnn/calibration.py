"""How far a model's confidence can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Calibration:
    """Confidence beside accuracy, in bins of equal width that divide [0, 1].

    The confidence is the probability of the predicted class.

    Attributes
    ----------
    images : array (bins,)
        Number of images in each bin.
    confidence, accuracy : array (bins,)
        Mean confidence and fraction of right classes in each bin; NaN where it is empty.
    """

    images: Array
    confidence: Array
    accuracy: Array

    @property
    def error(self) -> float:
        """The expected calibration error: |accuracy - confidence|, averaged over the images."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float(np.nansum(self.images * gaps) / self.images.sum())


def calibration(labels: Array, probabilities: Array, bins: int = 15) -> Calibration:
    """Compare confidence and accuracy.

    The bins are those of Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural
    networks" (2017): bin m of M holds confidences in ((m-1)/M, m/M].

    Parameters
    ----------
    labels : array (N,)
        The true classes; at least one.
    probabilities : array (N, classes)
        Finite, in [0, 1].
    bins : int
        Number of bins.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    of_image = np.searchsorted(np.arange(1, bins) / bins, confidence)
    images = np.bincount(of_image, minlength=bins)
    sums = (np.bincount(of_image, values, bins) for values in (confidence, right))
    with np.errstate(invalid="ignore"):  # 0 / 0 in empty bins
        return Calibration(images, *(total / images for total in sums))
