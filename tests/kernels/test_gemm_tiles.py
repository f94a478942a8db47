"""Every tile of the GEMM on `cuda`, with copies of 16 bytes and of single elements.

Which of them a product takes, its shape decides; here each multiplies what leaves every kind of
rest: of rows, of columns, of k, of warps without an output.
"""

import numpy as np
import pytest

import kernels
from kernels.common.geometry import window
from kernels.conv import conv2d_pool
from kernels.gemm import division, gemm
from kernels.gemm.tiles import FMA, FMA_DOUBLE, MMA_16, Body
from kernels.loss.dense_loss import dense_cross_entropy
from kernels.runtime.types import GRID_YZ_MAX
from tests.lib import comparison, reference
from tests.lib.support import RTOL, host, normal

BODIES = {
    "float32": FMA,
    "float64": FMA_DOUBLE,
    "float16": MMA_16,
    "bfloat16": MMA_16,
}
# Those of float16 are bfloat16's, and so is all of their text but one instruction.
TILES = [
    (tile, dtype)
    for dtype, body in BODIES.items()
    for tile in (body.tiles[:1] if dtype == "float16" else body.tiles)
]


def choose(monkeypatch, tile):
    """Let there be this tile alone."""
    monkeypatch.setattr(division, "_body", lambda *_: Body((tile,), pipe=128))


@pytest.fixture(params=TILES, ids=lambda tile: f"{tile[1]}-{tile[0].BM}x{tile[0].BN}")
def tile(request, monkeypatch, cuda):
    """A tile, which is the only one meanwhile, and its type."""
    of_tile, dtype = request.param
    if of_tile not in division._body(cuda, normal(0, 1, dtype=dtype).dtype).tiles:
        pytest.skip(f"this GPU does not multiply {dtype} on tensor cores")
    choose(monkeypatch, of_tile)
    return request.param


# M, K and N: one product; whole steps of k, then one more and one less; more than two tiles of rows
# and, for the narrow ones, of columns; rows whose length 16 bytes divide, and others.
DENSE = [(1, 1, 1), (64, 16, 32), (65, 17, 33), (63, 15, 31), (300, 40, 72), (257, 50, 25)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rows, inputs, outputs", DENSE)
def test_dense(cuda, monkeypatch, dtype, rows, inputs, outputs):
    choose(monkeypatch, BODIES[dtype].tiles[0])
    x, w = normal(0, rows, inputs, dtype=dtype), normal(1, outputs, inputs, dtype=dtype)
    b, dy = normal(2, outputs, dtype=dtype), normal(3, rows, outputs, dtype=dtype)
    on_x, on_w, on_b, on_dy = map(cuda.array, (x, w, b, dy))
    y = kernels.dense(on_x, on_w, on_b, relu=True)
    comparison.assert_close(y, reference.dense(x, w.T, b, relu=True), rtol=RTOL[dtype])
    dx, dw, _ = kernels.dense_backward(on_dy, on_x, on_w)
    expected_dx, expected_dw, _ = reference.dense_backward(dy, x, w.T)
    comparison.assert_close(dx, expected_dx, rtol=RTOL[dtype])
    comparison.assert_close(dw, expected_dw.T, rtol=RTOL[dtype])


IN_VECTORS = [
    ((2, 7, 9, 8), (16, 3, 3, 8), {"padding": 1}),  # segments within a tap, some in the padding
    ((2, 9, 8, 16), (16, 3, 2, 8), {"groups": 2, "stride": (2, 1), "dilation": (1, 2)}),
    ((17, 3, 3, 8), (8, 3, 3, 8), {}),  # one output an image: a step of rows goes over 16 images
]
BY_ELEMENT = [
    ((2, 6, 5, 6), (10, 2, 3, 3), {"groups": 2, "padding": 1}),
    ((3, 14, 15, 3), (24, 5, 5, 3), {}),  # gradients of both kinds of copies
]


# NVRTC takes most of the time, and a shape more of the same entry point none. So every tile has
# what its layouts are made for: A and B with rows along the outputs and along k, by vectors; and
# by element. The first tile of a type, but for float16's, also has what is left: its input
# gradients, and by element its filter gradients.
def test_convolutions(cuda, tile):
    of_tile, dtype = tile
    first = of_tile is BODIES[dtype].tiles[0] and dtype != "float16"
    for x_shape, w_shape, options in IN_VECTORS + BY_ELEMENT:
        x, w = normal(0, *x_shape, dtype=dtype), normal(1, *w_shape, dtype=dtype)
        y = kernels.conv2d(cuda.array(x), cuda.array(w), **options)
        comparison.assert_close(y, reference.conv2d(x, w, **options), rtol=RTOL[dtype])
        if not first and (x_shape, w_shape, options) in BY_ELEMENT:
            continue
        dy = normal(2, *y.shape, dtype=dtype)
        arrays = map(cuda.array, (dy, x, w))
        dx, dw, db = kernels.conv2d_backward(*arrays, need_dx=first, **options)
        expected_dx, expected_dw, expected_db = reference.conv2d_backward(dy, x, w, **options)
        comparison.assert_close(dw, expected_dw, rtol=RTOL[dtype])
        comparison.assert_close(db, expected_db, rtol=RTOL[dtype])
        if first:
            comparison.assert_close(dx, expected_dx, rtol=RTOL[dtype])


def test_slices_before_a_pool_or_a_loss(cuda, monkeypatch):
    """A warp has the sums of a part of its outputs alone, where an epilogue gets them."""
    if "float16" not in cuda.dtypes:
        pytest.skip("this GPU does not multiply float16 on tensor cores")
    tiles = {tile.SLICES: tile for tile in MMA_16.tiles if tile[:2] == (128, 64)}
    x, w = (cuda.array(normal(i, *s, dtype="float16")) for i, s in enumerate(IN_VECTORS[0][:2]))
    rows, weights = (cuda.array(normal(i, n, 100, dtype="float16")) for i, n in ((2, 70), (3, 40)))
    labels = cuda.array(np.arange(70) % 40)
    g, _ = window((7, 9), 3, stride=1, padding=1, dilation=1)
    results = []
    for slices in (1, 2):
        choose(monkeypatch, tiles[slices])
        pooled, _ = conv2d_pool.forward(x, w, None, g, conv2d_pool.Pool(3, 4, 2, 2))
        results.append((pooled, *dense_cross_entropy(rows, weights, None, labels, 0.1)[:2]))
    for found, expected in zip(*results, strict=True):
        comparison.assert_close(found, host(expected), rtol=RTOL["float16"])


def test_a_misaligned_array_is_copied_by_elements(cuda):
    """A view from the second element on, whose rows are as long as 16 bytes allow."""
    memory = cuda.array(normal(0, 8 * 12 + 1, dtype="float32"))
    x, w = memory[1:].reshape(8, 12), cuda.array(normal(1, 16, 12, dtype="float32"))
    assert not gemm.in_vectors(cuda, x, 12) and gemm.in_vectors(cuda, w, 12)
    expected = reference.dense(host(x), host(w).T)
    comparison.assert_close(kernels.dense(x, w), expected, rtol=RTOL["float32"])


# Shapes of x and w whose products are too few blocks, and then k is divided: with rows and columns
# that no tile divides, padding at the borders of the parts, and groups.
DIVIDED = [
    ((2, 7, 9, 40), (24, 3, 3, 40), {"padding": 1}),
    ((2, 6, 5, 66), (30, 2, 3, 33), {"groups": 2, "padding": 1}),
]


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("x_shape, w_shape, options", DIVIDED)
def test_products_of_divided_k(cuda, monkeypatch, dtype, x_shape, w_shape, options):
    monkeypatch.setattr(division, "_SPLITS", (3,))
    divided = []
    divide, divide_both = division.divide, division.divide_both
    monkeypatch.setattr(
        division, "divide", lambda *a, **k: divided.append(divide(*a, **k)) or divided[-1]
    )
    monkeypatch.setattr(
        division, "divide_both", lambda *a: divided.extend(divide_both(*a)) or divided[-2:]
    )
    x, w = normal(0, *x_shape, dtype=dtype), normal(1, *w_shape, dtype=dtype)
    b = normal(2, w_shape[0], dtype=dtype)
    y = kernels.conv2d(*map(cuda.array, (x, w, b)), relu=True, **options)
    assert divided[-1].splits > 1
    expected = reference.conv2d(x, w, b, relu=True, **options)
    comparison.assert_close(y, expected, rtol=RTOL[dtype])
    dy = normal(2, *y.shape, dtype=dtype)
    found = kernels.conv2d_backward(*map(cuda.array, (dy, x, w)), **options)
    assert all(work.splits > 1 for work in divided)
    for array, expected in zip(found, reference.conv2d_backward(dy, x, w, **options), strict=True):
        comparison.assert_close(array, expected, rtol=RTOL[dtype])


@pytest.mark.parametrize(
    "M, N, K, groups",
    [
        (9, 1, 128 * 28 * 28, 512),  # the filter gradient of a depthwise convolution
        (4, 1, 2304, 4096),
        (8, 3_000_000, 16, 1),  # more columns than as many narrow tiles as a launch may have
    ],
)
def test_a_product_is_never_more_blocks_than_a_launch_takes(cuda, M, N, K, groups):
    sizes = division.Sizes(M, N, K, groups, split="always")
    work = division.divide(cuda, np.dtype("float32"), sizes)
    assert max(work.grid[1:]) <= GRID_YZ_MAX


@pytest.mark.parametrize("vectors", [False, True])
def test_a_tile_changes_no_bit(cuda, undivided, monkeypatch, vectors):
    """Each output is the same sum in the same order, whatever the tile and the copies."""
    x_shape, w_shape, options = IN_VECTORS[0]
    x, w = (cuda.array(normal(i, *s, dtype="float32")) for i, s in enumerate((x_shape, w_shape)))
    expected = host(kernels.conv2d(x, w, **options))
    monkeypatch.setattr(gemm, "in_vectors", lambda *_: vectors)
    for tile in FMA.tiles:
        choose(monkeypatch, tile)
        np.testing.assert_array_equal(host(kernels.conv2d(x, w, **options)), expected)


@pytest.mark.parametrize("multiprocessors", [40, 108, 132])
def test_parts_of_k_fill_the_multiprocessors(cuda, monkeypatch, multiprocessors):
    monkeypatch.setattr(cuda, "multiprocessors", multiprocessors)
    sizes = division.Sizes(64, 576, 25088, split="always")
    filters = division.divide(cuda, np.dtype("float32"), sizes)
    waves = -(-filters.blocks // multiprocessors)
    assert filters.blocks > 0.9 * waves * multiprocessors
