"""Pictures of single digits: reading them, converting them to MNIST's form, classifying them.

The form of MNIST's images: "the original black and white images from NIST were size normalized to
fit in a 20x20 pixel box while preserving their aspect ratio. The resulting images contain grey
levels as a result of the anti-aliasing technique used by the normalization algorithm. The images
were centered in a 28x28 image by computing the center of mass of the pixels, and translating the
image so as to position this point at the center of the 28x28 field" (LeCun, Cortes and Burges, "The
MNIST database of handwritten digits", 1998).
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .ensemble import Ensemble
from .evaluation import check_outputs
from .host import to_host
from .model import Sequential

DIGIT_SHARE = 20 / 28  # of an image's side, for the longer side of the digit
MOST_PIXELS = 1024  # along a side; a larger picture is shrunk first, which bounds the memory
# Fraction of the strongest ink. Weaker ink is taken for noise, JPEG artefacts or uneven light. With
# any value from 0.2 to 0.4, enlarged training images of MNIST keep their class.
FLOOR = 0.25
BLANK = 1 / 32  # fraction of the full range; a picture with less contrast is blank


class PictureError(ValueError):
    """A picture cannot be used; the message is one sentence."""


def read(path: str | Path) -> NDArray[np.float32]:
    """Return the ink of each pixel of a PNG or JPEG file.

    Ink is the distance from the background's colour, the median along the border. So a digit may be
    light on dark or dark on light, in colour, or opaque on transparent.

    Returns
    -------
    numpy.ndarray
        (H, W), 0 for the background, at most 1. A picture of more than 1024 pixels along a side is
        shrunk to that.

    Raises
    ------
    PictureError
        If the file is no PNG or JPEG that can be read; the message does not repeat the path.
    ImportError
        If Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("pictures need Pillow: pip install 'cnn-kernels[image]'") from error
    turn = Image.Transpose
    turns = {  # by EXIF's orientation; ImageOps.exif_transpose fails where EXIF is damaged
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of EXIF that is damaged
            with Image.open(path, formats=("PNG", "JPEG")) as file:
                orientation = file.getexif().get(0x0112)
                if file.mode.startswith("I"):  # 16 bits of grey, of which other modes keep 8
                    image = Image.fromarray(np.asarray(file, np.float32) / np.float32(257))
                else:  # colours times opacity, so that all transparent pixels are equal
                    image = file.convert("RGBA").convert("RGBa")
        image.thumbnail((MOST_PIXELS, MOST_PIXELS), Image.Resampling.BOX)
        if orientation in turns:
            image = image.transpose(turns[orientation])
        return _ink(np.asarray(image))
    except Image.DecompressionBombError as error:
        raise PictureError(str(error)) from error
    except (OSError, ValueError, SyntaxError) as error:  # all that Pillow raises for damaged files
        reason = isinstance(error, OSError) and error.strerror
        raise PictureError(reason or f"damaged, or no PNG or JPEG: {error}") from error


def _ink(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Return the distance from the border's colour, in [0, 1], of pixels (H, W) or (H, W, C)."""
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    border = np.concatenate((pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))
    background = np.median(border, axis=0).astype(np.float32)
    planes = [np.abs(pixels[..., c] - grey) for c, grey in enumerate(background)]
    ink: NDArray[np.float32] = np.max(planes, axis=0) / np.float32(255)
    return ink


def centre(ink: NDArray[np.float32], size: tuple[int, int] = (28, 28)) -> NDArray[np.uint8]:
    """Return the digit in a picture, scaled and centred as MNIST's are.

    Parameters
    ----------
    ink : numpy.ndarray
        (H, W), 0 for the background.
    size : tuple of int
        Height and width of the result. The digit's bounding box fits in 20/28 of the shorter side.

    Returns
    -------
    numpy.ndarray
        uint8, 0 for the background and 255 for the most ink.

    Raises
    ------
    PictureError
        If there is no ink.
    """
    most = float(ink.max(initial=0))
    if most < BLANK:
        raise PictureError("the picture is blank: nothing stands out from its border")
    ink = np.where(ink < FLOOR * most, np.float32(0), ink)
    profiles = ink.sum(axis=1), ink.sum(axis=0)
    longer_side = max(np.ptp(np.flatnonzero(profile)) + 1 for profile in profiles)
    scale = float(longer_side) / (DIGIT_SHARE * min(size))
    rows, columns = (_resampling(p, scale, n) for p, n in zip(profiles, size, strict=True))
    digit = rows @ ink @ columns.T
    levels: NDArray[np.uint8] = np.rint(255 * digit / digit.max()).astype(np.uint8)
    return levels


def _resampling(profile: NDArray[np.float32], scale: float, pixels: int) -> NDArray[np.float32]:
    """Return weights (pixels, len(profile)) that resample and centre a picture along one axis.

    `profile` is the ink at each position. A pixel of the result is the mean of the `scale` pixels
    that it covers; `scale` need not be whole.
    """
    start, stop = np.flatnonzero(profile)[[0, -1]] + [0, 1]
    left = np.arange(len(profile))
    mass = float((left + 0.5 - start) @ profile / profile.sum())
    # By whole pixels, as in MNIST, where the centre of mass lies in [14, 15) of 28.
    shift = _ceil(pixels / 2 - mass / scale)
    shift = max(0, min(shift, pixels - _ceil((stop - start) / scale)))
    edges = start + (np.arange(pixels + 1) - shift)[:, None] * scale
    overlap = np.minimum(left + 1, edges[1:]) - np.maximum(left, edges[:-1])
    weights: NDArray[np.float32] = np.clip(overlap / scale, 0, None).astype(np.float32)
    return weights


def _ceil(value: float) -> int:
    """Return the value rounded up, or to the nearest whole number if that is within 1e-4."""
    return math.ceil(value - 1e-4)


def image_size(model: Sequential) -> tuple[int, int]:
    """Return height and width of the images that a model takes.

    Raises
    ------
    ValueError
        If it takes no grey images, or its outputs are not one number per class.
    """
    shape = model.input_shape
    if len(shape) not in (2, 3) or shape[2:] not in ((), (1,)):
        raise ValueError(f"model: takes inputs of shape {shape}, expected (H, W, 1), grey images")
    check_outputs(model)
    return shape[0], shape[1]


def probabilities(model: Sequential, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the probability of each class (N, classes) for images (N, H, W).

    Raises
    ------
    ValueError
        If the model's outputs are not finite.
    """
    found: NDArray[np.float64] = to_host(Ensemble([model]).predict(images))
    if not np.isfinite(found).all():
        raise ValueError("model: gives outputs that are not finite: its training diverged")
    return found
