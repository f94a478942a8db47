"""The input gradient of a convolution: for parts of the pixels, convolutions of dy at stride 1."""

from __future__ import annotations

import math
from typing import NamedTuple

from ..common.geometry import Lattice, Window
from ..gemm import both, division, gemm
from ..gemm.gradients import NO_INPUT, Rectified, past_relu
from ..runtime import Array, Target
from .im2col import distance, padded

#: Stands for these products where no input gradient is needed.
NO_PRODUCT = both.Product(
    division.NOTHING,
    (False, False),
    (None, None, *NO_INPUT, Window(), Lattice(), Lattice(), *(0,) * 5),
)


def input_products(
    target: Target,
    dy: Array,
    x: Array,
    w: Array,
    g: Window,
    groups: int,
    past: Rectified | None,
) -> tuple[Array, list[both.Product]]:
    """Return dx and the products that write it, each for the pixels that the same taps reach."""
    (N, _, _, C), F = x.shape, w.shape[0]
    parts = [(down, across) for down in _parts(g, 0) for across in _parts(g, 1)]
    reached = sum(down.pixels * across.pixels for down, across in parts)
    make = target.zeros if reached < g.H * g.W else target.empty  # some are under no tap
    to = past_relu(make, x.shape, x.dtype, past)
    channels, filters = C // groups, F // groups
    products = []
    for down, across in parts:
        rows = N * down.pixels * across.pixels
        over = Window(
            *(g.OH, g.OW, down.pixels, across.pixels, down.taps, across.taps, 1, 1),
            *(down.padding, across.padding, down.dilation, across.dilation),
        )
        source, over = padded(target, dy, over)
        pixels = Lattice(down.pixel, across.pixel, down.pixels, across.pixels, g.SH, g.SW)
        taps = Lattice(down.tap, across.tap, down.taps, across.taps, down.step, across.step)
        vectors = gemm.in_vectors(target, source, F, filters), gemm.in_vectors(target, w, channels)
        depth = down.taps * across.taps * filters
        split: division.Split = "in tiles" if rows == N * g.H * g.W else "never"
        sizes = division.Sizes(rows, channels, depth, groups, split)
        arguments = (source, w, *to, over, pixels, taps, rows, g.H, g.W, g.KH, g.KW)
        products.append(both.Product(sizes, vectors, arguments, distance(target, over, F)))
    return to[0], products


class _Part(NamedTuple):
    """Pixels along an axis that are reached by the same taps.

    They are every `stride`-th pixel from `pixel` on, and every `step`-th tap from `tap` on. Their
    gradients are the convolution of dy, at stride 1, with these taps flipped.
    """

    pixel: int
    pixels: int
    tap: int
    taps: int
    step: int
    padding: int
    dilation: int


def _parts(g: Window, axis: int) -> list[_Part]:
    """Return the parts of an axis, 0 or 1, that have pixels and taps."""
    size, taps, stride, padding, dilation = (
        (g.H, g.KH, g.SH, g.PH, g.DH),
        (g.W, g.KW, g.SW, g.PW, g.DW),
    )[axis]
    step = stride // math.gcd(stride, dilation)  # taps so far apart reach the same pixels
    parts = []
    for tap in range(min(step, taps)):
        pixel = (tap * dilation - padding) % stride
        count, used = -(-max(size - pixel, 0) // stride), -(-(taps - tap) // step)
        if count:
            apart = step * dilation // stride  # distance of the outputs of two such taps
            last = (pixel + padding - (tap + (used - 1) * step) * dilation) // stride
            parts.append(_Part(pixel, count, tap, used, step, -last, apart))
    return parts
