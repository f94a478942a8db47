"""Synthetic digits: pen strokes drawn into a bank of templates, then warped sample by sample.

They replace MNIST where it is not available: same sizes, shapes and dtypes, and a similar task, but
other images. An accuracy on them says nothing about MNIST.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels import affine_warp
from kernels.lowlevel import whole, word

from .dataset import Dataset

Floats = NDArray[np.float32]

IMAGE_SIZE = 28
# As in MNIST, digits fit a box of 20 pixels and have their centre of mass in the image's centre.
DIGIT_SIZE = 20.0
CENTRE = (IMAGE_SIZE - 1) / 2
CLASSES = 10
TEMPLATES_PER_CLASS = 240
POINTS_PER_SPAN = 5
# Images warped at a time; bounds the working memory.
CHUNK = 8192

# The ways to write each digit. A way is a list of strokes, separated by "/"; a stroke is a list of
# points x,y that a smooth line runs through, in hundredths of a unit square, x to the right and y
# down. Two strokes that share an end make a corner.
GLYPHS: tuple[tuple[str, ...], ...] = (
    (  # 0: narrow; wide; not quite closed, its end running inside
        "52,1 30,15 21,48 30,85 50,99 70,86 79,50 71,14 52,1",
        "50,3 18,20 6,52 18,84 50,97 82,83 94,50 82,18 50,3",
        "66,6 40,5 20,30 16,65 36,95 64,92 82,62 80,25 60,2 42,10",
    ),
    (  # 1: one line; with a flag; with a flag and a base
        "50,0 50,50 50,100",
        "30,22 42,13 54,0 / 54,0 54,50 54,100",
        "28,22 40,14 52,0 / 52,0 52,50 52,100 / 24,100 52,100 80,100",
    ),
    (  # 2: straight base; with a loop; round neck and wavy base
        "16,24 30,5 56,1 78,18 72,46 45,74 12,98 / 12,98 50,98 88,97",
        "20,20 38,3 64,5 76,26 62,56 36,86 16,95 12,82 28,76 50,90 72,98 92,88",
        "14,14 40,1 70,10 74,36 52,66 16,93 / 16,93 36,88 62,98 90,92",
    ),
    (  # 3: two bowls; flat top; a small loop between the bowls
        "18,14 44,0 72,12 70,34 40,47 / 40,47 72,54 82,76 58,98 30,98 12,84",
        "18,3 48,3 78,2 / 78,2 60,22 44,42 / 44,42 74,50 82,74 60,96 32,98 12,86",
        "20,10 50,0 74,16 62,38 40,47 36,53 46,52 72,58 78,78 54,98 16,92",
    ),
    (  # 4: open; closed, drawn with a diagonal; open, round corner
        "22,2 19,26 14,54 / 14,54 50,56 88,52 / 72,4 69,50 66,100",
        "62,0 36,34 8,66 / 8,66 50,67 92,66 / 62,0 62,50 62,100",
        "18,6 15,36 24,54 52,54 76,44 / 82,0 76,44 66,100",
    ),
    (  # 5: bar, neck and bowl; in one sweep with a slanting bar
        "80,2 52,2 26,3 / 26,3 23,22 20,42 / 20,42 48,36 76,50 80,74 60,95 34,99 12,88",
        "90,0 64,5 38,8 / 38,8 30,26 30,40 52,50 66,68 52,92 28,99 8,92",
    ),
    (  # 6: round; with a straight back and a small loop
        "68,4 40,16 20,48 20,80 44,99 72,92 80,68 60,50 36,58 22,76",
        "58,0 38,30 24,62 26,88 46,99 66,88 64,68 46,62 28,78",
    ),
    (  # 7: plain; with a crossbar; with a hook at the left
        "12,5 48,4 84,3 / 84,3 60,46 42,100",
        "14,4 48,5 84,2 / 84,2 58,46 38,100 / 30,52 54,50 80,48",
        "12,20 16,6 46,7 82,5 / 82,5 70,26 54,56 52,100",
    ),
    (  # 8: one figure of eight; two rings
        "72,12 48,0 26,14 32,36 56,52 76,76 56,98 28,92 24,70 48,50 70,32 72,12",
        "50,0 28,10 28,34 50,45 72,34 72,10 50,0 / 50,45 22,60 22,88 50,100 78,88 78,60 50,45",
    ),
    (  # 9: straight stem; curved tail; stem bent to the left
        "74,14 50,0 24,14 22,38 46,50 70,38 74,14 / 74,14 72,56 68,100",
        "74,20 52,2 26,14 22,38 46,48 70,34 74,20 / 74,20 76,62 66,92 42,100 22,90",
        "76,10 48,2 20,22 30,44 58,36 76,10 / 76,10 64,54 44,100",
    ),
)


def synthetic_digits(
    train: int = 60_000, test: int = 10_000, seed: int = 0
) -> tuple[Dataset, Dataset]:
    """Return a training and a test set of drawn digits in the form of MNIST.

    The two sets come from separate random streams and share no template. The same arguments give
    the same images on one machine.

    Parameters
    ----------
    train, test : int
        Number of images; each class gets a tenth, or one more where ten does not divide it.
    seed : int
        In [0, 2**64).

    Returns
    -------
    train, test : Dataset
        Images uint8 (N, 28, 28), light ink on 0; labels uint8 (N,), in random order.

    Raises
    ------
    TypeError, ValueError
        If an argument is no whole number, or out of range.
    """
    train, test = whole("train", train, 0), whole("test", test, 0)
    streams = np.random.SeedSequence(word("seed", seed)).spawn(2)
    train_random, test_random = (np.random.Generator(np.random.PCG64(s)) for s in streams)
    return _draw_set(train, train_random), _draw_set(test, test_random)


def _draw_set(count: int, random: np.random.Generator) -> Dataset:
    templates = [_draw_templates(ways, TEMPLATES_PER_CLASS, random) for ways in GLYPHS]
    bank = np.concatenate(templates)
    labels = random.permutation(np.arange(count) % CLASSES).astype(np.uint8)
    chosen = random.integers(TEMPLATES_PER_CLASS, size=count)
    chosen += labels.astype(np.int64) * TEMPLATES_PER_CLASS
    matrix = _random_warps(count, random)
    images = np.empty((count, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    for start in range(0, count, CHUNK):
        part = slice(start, start + CHUNK)
        images[part] = affine_warp(bank[chosen[part]], matrix[part], fill=0)
    return Dataset(images, labels, "synthetic")


def _random_warps(count: int, random: np.random.Generator) -> Floats:
    """Return (count, 2, 3) matrices from output to input pixels, drawn at random."""
    angle = np.deg2rad(random.uniform(-15, 15, count))
    slant = random.uniform(-0.25, 0.45, count)  # to the right more than to the left, as people do
    width = random.uniform(0.65, 1.05, count)
    height = random.uniform(0.8, 1.05, count)
    shift = random.uniform(-1.2, 1.2, (count, 2))
    # Forward: size, then slant (x falls as y grows), then rotation about the centre, then shift.
    cosine, sine = np.cos(angle), np.sin(angle)
    forward = np.empty((count, 2, 2))
    forward[:, 0, 0] = cosine * width
    forward[:, 0, 1] = -(cosine * slant + sine) * height
    forward[:, 1, 0] = sine * width
    forward[:, 1, 1] = (cosine - sine * slant) * height
    inverse = np.linalg.inv(forward)
    matrix = np.empty((count, 2, 3), np.float32)
    matrix[:, :, :2] = inverse
    matrix[:, :, 2] = CENTRE - np.einsum("nij,nj->ni", inverse, CENTRE + shift)
    return matrix


def _draw_templates(
    ways: tuple[str, ...], count: int, random: np.random.Generator
) -> NDArray[np.uint8]:
    """Return drawings uint8 (count, 28, 28) of one digit, in equal shares for its ways."""
    shares = [len(range(way, count, len(ways))) for way in range(len(ways))]
    return np.concatenate(
        [
            _rasterise(_pen_lines(way, share, random), random)
            for way, share in zip(ways, shares, strict=True)
        ]
    )


def _pen_lines(way: str, count: int, random: np.random.Generator) -> Floats:
    """Return line segments (count, S, 2, 2) in pixels, [.., start or end, x or y], of one glyph.

    A smooth random wave moves all points, so that strokes that meet bend alike; a small random
    shift of its own is added to each.
    """
    lines = []
    wave = random.normal(0, 0.5, (count, 2, 2)), random.uniform(0, 2 * np.pi, (count, 2))
    amplitude = random.uniform(0, 0.14, (count, 2))
    for stroke in way.split("/"):
        points = np.array([point.split(",") for point in stroke.split()], float) / 100
        phase = np.einsum("pj,nij->npi", 2 * np.pi * points, wave[0]) + wave[1][:, None]
        moved = points + amplitude[:, None] * np.sin(phase)
        moved += random.normal(0, 0.028, moved.shape)
        line = np.einsum("sp,npi->nsi", _spline_weights(len(points)), moved)
        lines.append(np.stack((line[:, :-1], line[:, 1:]), axis=2))
    segments = DIGIT_SIZE * np.concatenate(lines, axis=1)
    lengths = np.linalg.norm(segments[:, :, 1] - segments[:, :, 0], axis=-1)
    ink = (lengths / lengths.sum(axis=1, keepdims=True))[..., None]
    middle = (ink * segments.mean(axis=2)).sum(axis=1)
    centred: Floats = (segments - middle[:, None, None] + CENTRE).astype(np.float32)
    return centred


def _spline_weights(points: int) -> NDArray[np.float64]:
    """Return (S, points) weights that turn points into a Catmull-Rom spline through them.

    Source: Catmull and Rom, "A class of local interpolating splines", 1974; the end points are
    doubled.
    """
    t = np.arange(POINTS_PER_SPAN)[:, None] / POINTS_PER_SPAN
    powers = np.concatenate((np.ones_like(t), t, t**2, t**3), axis=1)
    basis = np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]) / 2
    weights = np.zeros(((points - 1) * POINTS_PER_SPAN + 1, points))
    for span in range(points - 1):
        rows = slice(span * POINTS_PER_SPAN, (span + 1) * POINTS_PER_SPAN)
        for column, neighbour in enumerate(range(span - 1, span + 3)):
            weights[rows, min(max(neighbour, 0), points - 1)] += (powers @ basis)[:, column]
    weights[-1, -1] = 1
    return weights


def _rasterise(segments: Floats, random: np.random.Generator) -> NDArray[np.uint8]:
    """Return drawings uint8 (N, 28, 28) of segments (N, S, 2, 2), each with a pen of its own.

    A pixel's ink follows from its distance to the nearest segment, softened over the pen's edge.
    """
    radius = random.uniform(0.9, 1.8, (len(segments), 1, 1)).astype(np.float32)
    pressure = random.uniform(0.8, 1.0, (len(segments), 1, 1)).astype(np.float32)
    nearest = np.empty((len(segments), IMAGE_SIZE, IMAGE_SIZE), np.float32)
    pixels = np.arange(IMAGE_SIZE, dtype=np.float32)
    for index, lines in enumerate(segments):
        start, step = lines[:, 0], lines[:, 1] - lines[:, 0]
        squared_length = np.maximum((step**2).sum(axis=1), np.float32(1e-6))[:, None, None]
        away_x = (pixels - start[:, :1])[:, None, :]
        away_y = (pixels - start[:, 1:])[:, :, None]
        step_x, step_y = step[:, 0, None, None], step[:, 1, None, None]
        along = np.clip((away_x * step_x + away_y * step_y) / squared_length, 0, 1)
        squared = (away_x - along * step_x) ** 2 + (away_y - along * step_y) ** 2
        nearest[index] = np.sqrt(squared.min(axis=0))
    ink = pressure * np.clip(radius + 0.5 - nearest, 0, 1)
    drawings: NDArray[np.uint8] = np.rint(255 * ink).astype(np.uint8)
    return drawings
