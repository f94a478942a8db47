"""Every tile of the GEMM on `cuda`, with copies of 16 bytes and of single elements.

Which of them a product takes, its shape decides; here each multiplies what leaves every kind of
rest: of rows, of columns, of k, of warps without an output.
"""

import numpy as np
import pytest

import comparison
import kernels
import reference
from kernels import gemm, runtime
from kernels.runtime.cuda import unavailable
from support import RTOL, host, normal

BODIES = {
    "float32": gemm._FMA,
    "float64": gemm._FMA_DOUBLE,
    "float16": gemm._MMA_16,
    "bfloat16": gemm._MMA_16,
}
TILES = [(tile, dtype) for dtype, body in BODIES.items() for tile in body.tiles]


@pytest.fixture
def target():
    if (reason := unavailable()) is not None:
        pytest.skip(reason)
    return runtime.cuda_target()


def choose(monkeypatch, tile):
    """Let there be this tile alone."""
    monkeypatch.setattr(gemm, "_body", lambda *_: gemm._Body((tile,), rate=128))


@pytest.fixture(params=TILES, ids=lambda tile: f"{tile[1]}-{tile[0].BM}x{tile[0].BN}")
def dtype(request, monkeypatch):
    """The type of a tile, which is the only one meanwhile."""
    tile, dtype = request.param
    choose(monkeypatch, tile)
    return dtype


# M, K and N: one product; whole steps of k, then one more and one less; more than two tiles of rows
# and, for the narrow ones, of columns; rows whose length 16 bytes divide, and others.
DENSE = [(1, 1, 1), (64, 16, 32), (65, 17, 33), (63, 15, 31), (300, 40, 70), (257, 50, 25)]


@pytest.mark.parametrize("dtype", BODIES)
@pytest.mark.parametrize("rows, inputs, outputs", DENSE)
def test_dense(target, monkeypatch, dtype, rows, inputs, outputs):
    choose(monkeypatch, BODIES[dtype].tiles[0])
    x, w = normal(0, rows, inputs, dtype=dtype), normal(1, outputs, inputs, dtype=dtype)
    b, dy = normal(2, outputs, dtype=dtype), normal(3, rows, outputs, dtype=dtype)
    on_x, on_w, on_b, on_dy = map(target.array, (x, w, b, dy))
    y = kernels.dense(on_x, on_w, on_b, relu=True)
    comparison.assert_close(y, reference.dense(x, w.T, b, relu=True), rtol=RTOL[dtype])
    dx, dw, _ = kernels.dense_backward(on_dy, on_x, on_w)
    expected_dx, expected_dw, _ = reference.dense_backward(dy, x, w.T)
    comparison.assert_close(dx, expected_dx, rtol=RTOL[dtype])
    comparison.assert_close(dw, expected_dw.T, rtol=RTOL[dtype])


# What has loaders and epilogues of every kind, for every tile. Each shape more is only run, not
# compiled.
CONVOLUTIONS = [
    ((2, 7, 9, 8), (16, 3, 3, 8), {"padding": 1}),  # segments within a tap, some in the padding
    ((2, 9, 8, 16), (16, 3, 2, 8), {"groups": 2, "stride": (2, 1), "dilation": (1, 2)}),
    ((17, 3, 3, 8), (8, 3, 3, 8), {}),  # one output an image: a step of rows goes over 16 images
    ((2, 6, 5, 6), (10, 2, 3, 3), {"groups": 2, "padding": 1}),  # an element a copy
    ((3, 14, 15, 1), (24, 5, 5, 1), {}),  # one channel
]


@pytest.mark.parametrize("x_shape, w_shape, options", CONVOLUTIONS)
def test_convolutions(target, dtype, x_shape, w_shape, options):
    x, w = normal(0, *x_shape, dtype=dtype), normal(1, *w_shape, dtype=dtype)
    y = kernels.conv2d(target.array(x), target.array(w), **options)
    comparison.assert_close(y, reference.conv2d(x, w, **options), rtol=RTOL[dtype])
    dy = normal(2, *y.shape, dtype=dtype)
    found = kernels.conv2d_backward(*map(target.array, (dy, x, w)), **options)
    for array, expected in zip(found, reference.conv2d_backward(dy, x, w, **options), strict=True):
        comparison.assert_close(array, expected, rtol=RTOL[dtype])


def test_a_misaligned_array_is_copied_by_elements(target):
    """A view from the second element on, whose rows are as long as 16 bytes allow."""
    memory = target.array(normal(0, 8 * 12 + 1, dtype="float32"))
    x, w = memory[1:].reshape(8, 12), target.array(normal(1, 16, 12, dtype="float32"))
    assert not gemm.in_vectors(target, x, 12) and gemm.in_vectors(target, w, 12)
    expected = reference.dense(host(x), host(w).T)
    comparison.assert_close(kernels.dense(x, w), expected, rtol=RTOL["float32"])


# Shapes of x and w whose products are too few blocks, and then k is divided: with rows and columns
# that no tile divides, padding at the borders of the parts, and groups.
DIVIDED = [
    ((2, 7, 9, 40), (24, 3, 3, 40), {"padding": 1}),
    ((1, 6, 5, 66), (30, 2, 3, 33), {"groups": 2, "padding": 1}),
]


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("x_shape, w_shape, options", DIVIDED)
def test_products_of_divided_k(target, monkeypatch, dtype, x_shape, w_shape, options):
    monkeypatch.setattr(gemm, "_LAUNCH", 0)  # a launch more costs nothing
    divided = []
    divide = gemm.divide
    monkeypatch.setattr(
        gemm, "divide", lambda *a, **k: divided.append(divide(*a, **k)) or divided[-1]
    )
    x, w = normal(0, *x_shape, dtype=dtype), normal(1, *w_shape, dtype=dtype)
    b = normal(2, w_shape[0], dtype=dtype)
    y = kernels.conv2d(*map(target.array, (x, w, b)), relu=True, **options)
    assert divided[-1].splits > 1
    expected = reference.conv2d(x, w, b, relu=True, **options)
    comparison.assert_close(y, expected, rtol=RTOL[dtype])
    dy = normal(2, *y.shape, dtype=dtype)
    found = kernels.conv2d_backward(*map(target.array, (dy, x, w)), **options)
    assert all(work.splits > 1 for work in divided)
    for array, expected in zip(found, reference.conv2d_backward(dy, x, w, **options), strict=True):
        comparison.assert_close(array, expected, rtol=RTOL[dtype])


@pytest.mark.parametrize("vectors", [False, True])
def test_a_tile_changes_no_bit(target, undivided, monkeypatch, vectors):
    """Each output is the same sum in the same order, whatever the tile and the copies."""
    x, w = (target.array(normal(i, 50, 40, dtype="float32")) for i in range(2))
    expected = host(kernels.dense(x, w))
    monkeypatch.setattr(gemm, "in_vectors", lambda *_: vectors)
    for tile in gemm._FMA.tiles:
        choose(monkeypatch, tile)
        np.testing.assert_array_equal(host(kernels.dense(x, w)), expected)
