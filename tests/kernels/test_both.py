"""Two products in one launch on `cuda`: the gradients of a layer's weights and of its input."""

import heapq

import numpy as np
import pytest

import kernels
from kernels.gemm import division
from kernels.gemm.tiles import FMA, FMA_DOUBLE, MMA_16
from kernels.runtime.arena import Arena
from kernels.runtime.recording import Recording
from tests.lib import comparison, reference
from tests.lib.support import RTOL, host, normal

#: Products whose tiles differ in all that a tile has: rows, columns, stages, lanes side by side.
TILES = {
    "float32": [(0, 4), (2, 7), (3, 6), (5, 8), (8, 5)],
    "float64": [(0, 0), (1, 1)],
    "float16": [(1, 3)],
    "bfloat16": [(1, 3), (2, 5), (2, 8), (7, 0), (9, 9)],
}
BODIES = {
    "float32": FMA,
    "float64": FMA_DOUBLE,
    "float16": MMA_16,
    "bfloat16": MMA_16,
}
PAIRS = [(dtype, *pair) for dtype, pairs in TILES.items() for pair in pairs]

DENSE = [(70, 41, 43), (300, 72, 40), (1, 1, 1)]
CONVOLUTIONS = [
    ((2, 7, 9, 8), (24, 3, 3, 8), {"padding": 1}),
    ((3, 6, 5, 6), (10, 2, 3, 3), {"groups": 2, "padding": 1}),
    ((2, 9, 8, 5), (7, 3, 2, 5), {"stride": (2, 1), "dilation": (1, 2)}),  # several launches
]


def choose(monkeypatch, tiles, parts):
    """Let both products have their tile alone, and k so many parts."""

    def divided(body, multiprocessors, first, second, splits):
        sizes = zip(tiles, (first, second), strict=True)
        return tuple(
            next(division._divisions([tile], multiprocessors, of_tile, (parts,)))
            for tile, of_tile in sizes
        )

    monkeypatch.setattr(division, "_cheapest_pair", divided)


@pytest.mark.parametrize("dtype, one, other", PAIRS)
def test_tiles_of_both_kinds(cuda, monkeypatch, dtype, one, other):
    tiles = [BODIES[dtype].tiles[index] for index in (one, other)]
    assert tiles[0].warps == tiles[1].warps and tiles[0].BK == tiles[1].BK
    for parts, (rows, inputs, outputs) in zip((1, 3, 3), DENSE, strict=True):
        choose(monkeypatch, tiles, parts)
        arrays = [
            normal(seed, *shape, dtype=dtype)
            for seed, shape in enumerate([(rows, outputs), (rows, inputs), (outputs, inputs)])
        ]
        found = kernels.dense_backward(*map(cuda.array, arrays))
        dx, dw, db = reference.dense_backward(*arrays[:2], arrays[2].T)
        for array, expected in zip(found, (dx, dw.T, db), strict=True):
            comparison.assert_close(array, expected, rtol=RTOL[dtype])


@pytest.mark.parametrize(
    "dtype, one, other", [("float32", 0, 4), ("bfloat16", 2, 1), ("bfloat16", 8, 3)]
)
def test_convolutions(cuda, monkeypatch, dtype, one, other):
    tiles = [BODIES[dtype].tiles[index] for index in (one, other)]
    for parts, (x_shape, w_shape, options) in zip((1, 3, 3), CONVOLUTIONS, strict=True):
        choose(monkeypatch, tiles, parts)
        x, w = normal(0, *x_shape, dtype=dtype), normal(1, *w_shape, dtype=dtype)
        dy = normal(2, *reference.conv2d(x, w, **options).shape, dtype=dtype)
        found = kernels.conv2d_backward(*map(cuda.array, (dy, x, w)), **options)
        every = reference.conv2d_backward(dy, x, w, **options)
        for array, expected in zip(found, every, strict=True):
            comparison.assert_close(array, expected, rtol=RTOL[dtype])


@pytest.mark.usefixtures("undivided")
def test_one_product_alone_gives_the_same_bits(cuda, dtype):
    dy, x, w = (
        cuda.array(normal(seed, *shape, dtype=dtype))
        for seed, shape in enumerate([(70, 43), (70, 41), (43, 41)])
    )
    _, dw, db = kernels.dense_backward(dy, x, w)
    nothing, same_dw, same_db = kernels.dense_backward(dy, x, w, need_dx=False)
    assert nothing is None
    np.testing.assert_array_equal(host(dw), host(same_dw))
    np.testing.assert_array_equal(host(db), host(same_db))


def test_no_rows_and_no_outputs(cuda):
    """A product without outputs is left out; one without k is zeros."""
    for rows, inputs, outputs in ((0, 5, 3), (4, 5, 0), (4, 0, 3), (0, 0, 0)):
        dy, x, w = (
            cuda.array(normal(seed, *shape, dtype="float32"))
            for seed, shape in enumerate([(rows, outputs), (rows, inputs), (outputs, inputs)])
        )
        dx, dw, db = map(host, kernels.dense_backward(dy, x, w))
        assert (dx.shape, dw.shape, db.shape) == (x.shape, w.shape, (outputs,))
        assert not dx.any() and not dw.any() and (db == host(dy).sum(axis=0)).all()


def test_gradients_are_one_launch_and_their_sum(cuda):
    x, w, dy = (
        cuda.array(normal(seed, *shape, dtype="float32"))
        for seed, shape in enumerate([(2, 7, 9, 8), (24, 3, 3, 8), (2, 7, 9, 24)])
    )
    with Recording(Arena(cuda), [dy, x, w]) as recording:
        kernels.conv2d_backward(dy, x, w, padding=1)
    assert len(recording) == 2


def greedy(multiprocessors, first, clocks, second, others):
    """Return when all blocks are done, by trying it."""
    free = [0.0] * multiprocessors
    for block in [clocks] * first + [others] * second:
        heapq.heapreplace(free, free[0] + block)
    return max(free)


@pytest.mark.parametrize("multiprocessors", [1, 40, 108, 132])
def test_the_estimate_is_the_time_of_blocks_in_turn(multiprocessors):
    random = np.random.default_rng(0)
    for first, second in random.integers(1, 700, size=(500, 2)):
        clocks, others = map(float, random.integers(1, 50, size=2))
        blocks = multiprocessors, int(first), clocks, int(second), others
        assert division._last_clock(*blocks) == greedy(*blocks)
