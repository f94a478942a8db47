"""Random augmentation of a batch of images."""

from __future__ import annotations

from dataclasses import dataclass

import kernels
from kernels.lowlevel import Array

from . import checks


@dataclass(frozen=True)
class Augment:
    """Random rotation, shift and zoom; see `kernels.augment`.

    Parameters
    ----------
    rotate : float
        Largest angle, in degrees.
    shift : float
        Largest shift along each axis, in pixels.
    zoom : float
        Largest change of size, as a fraction, in [0, 1).
    """

    rotate: float = 0.0
    shift: float = 0.0
    zoom: float = 0.0

    recordable = True

    def __post_init__(self) -> None:
        """Check the settings."""
        length = checks.number(0)
        checks.settle(self, rotate=length, shift=length, zoom=checks.number(0, below=1))

    def __call__(self, images: Array, *, seed: int, offset: int) -> Array:
        """Return the images (N, H, W, C) or (N, H, W) augmented; `offset` names the batch."""
        return kernels.augment(
            images,
            rotate=self.rotate,
            shift=self.shift,
            zoom=self.zoom,
            seed=seed,
            offset=offset,
        )
