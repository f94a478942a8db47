"""Products on tensor cores: every convolution and dense entry point in every precision.

Against two oracles in float64: one that rounds the operands, which leaves the sums' own rounding as
the only difference, and the exact one, within what rounding the operands may do to each product.
"""

from concurrent.futures import ThreadPoolExecutor

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import kernels
from kernels import lowlevel
from kernels.common.geometry import window
from kernels.conv import conv2d_pool
from kernels.gemm import division
from kernels.gemm.tiles import Body, Tile
from tests.lib import comparison, reference, strategies
from tests.lib.rounding import EPSILON, rounded
from tests.lib.support import RTOL, host, normal

FLOAT = np.dtype(np.float32)
UNEVEN = {"stride": (1, 2), "padding": ((2, 1), (0, 3)), "dilation": (2, 1)}


@pytest.fixture
def target(cuda):
    """The target that has tensor cores."""
    return cuda


@pytest.fixture(params=["tf32", "bf16", "fp16"])
def precision(request, target):
    """Each precision there, in force."""
    if request.param not in target.precisions:
        pytest.skip(f"{target} has no {request.param} products")
    with lowlevel.precision(request.param):
        yield request.param


def check_products(precision, found, oracle, *operands):
    """Compare the results of products of some operands with both oracles."""
    emulated = oracle(*(rounded(operand, precision) for operand in operands))
    exact = oracle(*operands)
    # Of each product, both factors are off by EPSILON at most; this sums it over the products.
    # Below its smallest normal number, fp16 has a fixed distance between numbers.
    epsilon, tiny = EPSILON[precision], 2.0**-25 if precision == "fp16" else 0
    sizes = oracle(*map(abs, operands))
    bounds = oracle(*(abs(operand) * (1 + epsilon) + tiny for operand in operands))
    for result, near, exactly, size, bound in zip(
        found, emulated, exact, sizes, bounds, strict=True
    ):
        assert result.dtype == FLOAT
        comparison.assert_close(result, near, rtol=RTOL["float32"])
        slack = RTOL["float32"] * max(size.max(initial=0), 1e-300)
        assert (abs(host(result) - exactly) <= bound - size + slack).all()


def check_gradients(precision, found, oracle, *operands):
    """Compare gradients, of which that of the bias is a sum of dy in float32 and no product."""
    *products, db = found
    check_products(precision, products, lambda *rounded: oracle(*rounded)[:2], *operands)
    comparison.assert_close(db, oracle(*operands)[2], rtol=RTOL["float32"])


def check_convolution(target, precision, x_shape, w_shape, bias=True, relu=False, **options):
    x, w = normal(0, *x_shape, dtype=FLOAT), normal(1, *w_shape, dtype=FLOAT)
    b = normal(2, w_shape[0], dtype=FLOAT) if bias else None
    on = [None if array is None else target.array(array) for array in (x, w, b)]
    y = kernels.conv2d(*on, relu=relu, **options)
    expected = reference.conv2d(
        rounded(x, precision), rounded(w, precision), b, relu=relu, **options
    )
    comparison.assert_close(y, expected, rtol=RTOL["float32"])
    check_products(
        precision,
        [kernels.conv2d(*on[:2], **options)],
        lambda x, w: [reference.conv2d(x, w, **options)],
        x,
        w,
    )
    dy = normal(3, *y.shape, dtype=FLOAT)
    check_gradients(
        precision,
        kernels.conv2d_backward(target.array(dy), *on[:2], **options),
        lambda dy, x, w: reference.conv2d_backward(dy, x, w, **options),
        dy,
        x,
        w,
    )


# The tile of a block is 64 x 64 outputs by 32 of k, of a warp 32 x 32, of a product 16 x 8.
@pytest.mark.parametrize(
    "x_shape, w_shape, options",
    [
        ((1, 1, 1, 1), (1, 1, 1, 1), {}),  # one pixel, one product
        ((1, 1, 1, 4), (3, 3, 3, 4), {"padding": 1}),  # eight taps of nine in the padding
        ((0, 5, 5, 3), (4, 3, 3, 3), {}),  # an empty batch
        ((1, 8, 9, 16), (64, 1, 2, 16), {}),  # exactly one tile, copied by 16 bytes
        ((1, 5, 15, 11), (65, 1, 3, 11), {}),  # one more of each, no address aligned
        ((1, 7, 39, 1), (63, 1, 31, 1), {}),  # one less
        ((2, 11, 13, 8), (13, 3, 3, 8), {"padding": 1}),  # primes; k of 72 ends in a half product
        ((2, 6, 7, 12), (20, 3, 3, 12), {"padding": (2, 1), "dilation": (1, 2)}),  # runs of a tap
        ((2, 6, 6, 16), (16, 3, 3, 4), {"groups": 4, "padding": 1}),  # aligned groups
        ((3, 7, 5, 9), (18, 3, 3, 1), {"groups": 9}),  # depthwise, two filters a channel
        ((2, 9, 11, 24), (9, 2, 3, 24), {"stride": (2, 3)}),  # pixels that no window covers
        ((1, 2, 3, 3), (2, 2, 2, 3), {"padding": 9, "dilation": 7}),  # mostly padding
        ((2, 19, 17, 1), (24, 5, 5, 1), {"padding": ((2, 1), (0, 3))}),  # one channel: by taps
        ((1, 23, 29, 1), (33, 4, 3, 1), {"stride": (2, 3), "dilation": (1, 2), "padding": 3}),
        ((1, 71, 65, 1), (2, 1, 2, 1), {}),  # over 128 steps of rows: splits of two steps each
    ],
)
def test_convolutions(target, precision, x_shape, w_shape, options):
    check_convolution(target, precision, x_shape, w_shape, **options)


@hypothesis.given(
    drawn=strategies.windows(),
    N=st.integers(0, 2),
    groups=st.integers(1, 2),
    channels=st.sampled_from([1, 4, 5]),
    filters=st.sampled_from([1, 4, 9]),
    bias=st.booleans(),
    relu=st.booleans(),
)
@hypothesis.settings(max_examples=15)
def test_convolutions_of_any_window(
    target, precision, drawn, N, groups, channels, filters, bias, relu
):
    (H, W), kernel, options = drawn
    KH, KW = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    x_shape, w_shape = (N, H, W, groups * channels), (groups * filters, KH, KW, channels)
    check_convolution(
        target, precision, x_shape, w_shape, bias=bias, relu=relu, groups=groups, **options
    )


@pytest.mark.parametrize(
    "x_shape, w_shape, padding, pool",
    [
        ((2, 12, 12, 8), (16, 3, 3, 8), 1, (2, 2)),  # whole windows: 72 of them in tiles of 16
        ((3, 9, 11, 5), (7, 3, 3, 5), 0, (2, 2)),  # a row and a column in no window
        ((1, 8, 9, 1), (33, 5, 5, 1), 2, (1, 2)),  # two pixels a window, one channel
        ((2, 7, 6, 4), (9, 3, 3, 4), 1, (4, 1)),  # a window of four rows; three more in none
        ((3, 3, 1, 4), (2, 1, 1, 4), 0, (2, 1)),  # three windows of two: a lane has half its rows
        ((0, 6, 6, 2), (3, 3, 3, 2), 1, (2, 2)),  # an empty batch
    ],
)
def test_pooled_convolutions(undivided, target, precision, x_shape, w_shape, padding, pool):
    """To the bit what convolution, pooling and ReLU give one after the other."""
    x, w, b = (
        target.array(normal(i, *shape, dtype=FLOAT))
        for i, shape in enumerate((x_shape, w_shape, w_shape[:1]))
    )
    geometry, _ = window(x_shape[1:3], w_shape[1:3], stride=1, padding=padding, dilation=1)
    pooled = conv2d_pool.windows(target, FLOAT, w_shape, geometry, pool)
    y, argmax = conv2d_pool.forward(x, w, b, geometry, pooled)
    largest, place = kernels.max_pool2d(kernels.conv2d(x, w, b, padding=padding), pool)
    np.testing.assert_array_equal(host(y), host(kernels.relu(largest)))
    np.testing.assert_array_equal(host(argmax), host(place))


@pytest.mark.parametrize(
    "rows, inputs, outputs",
    [
        (1, 1, 1),  # one product
        (0, 5, 3),  # an empty batch
        (3, 0, 5),  # no inputs: the bias alone
        (64, 32, 64),  # whole tiles
        (65, 33, 65),  # one more of each
        (63, 31, 63),  # one less
        (1, 100, 10),  # batch 1; k ends in a quarter of a step
        (37, 41, 43),  # primes
        (4225, 3, 2),  # over 128 steps of rows: splits of two steps each
    ],
)
def test_dense(target, precision, rows, inputs, outputs):
    x, w = normal(0, rows, inputs, dtype=FLOAT), normal(1, outputs, inputs, dtype=FLOAT)
    b, dy = normal(2, outputs, dtype=FLOAT), normal(3, rows, outputs, dtype=FLOAT)
    on_x, on_w, on_b, on_dy = map(target.array, (x, w, b, dy))
    y = kernels.dense(on_x, on_w, on_b, relu=True)
    expected = reference.dense(rounded(x, precision), rounded(w, precision).T, b, relu=True)
    comparison.assert_close(y, expected, rtol=RTOL["float32"])
    check_products(
        precision,
        [kernels.dense(on_x, on_w)],
        lambda x, w: [reference.dense(x, w.T)],
        x,
        w,
    )

    def gradients(dy, x, w):
        dx, dw, db = reference.dense_backward(dy, x, w.T)
        return dx, dw.T, db

    check_gradients(precision, kernels.dense_backward(on_dy, on_x, on_w), gradients, dy, x, w)


@pytest.mark.parametrize(
    "tile",
    [
        Tile(64, 32, 32, 64, 32, 3),  # one warp, two steps on their way
        Tile(32, 64, 32, 32, 32, 4),  # one warp down
    ],
)
def test_any_tile_gives_the_product(target, tile, monkeypatch):
    # The text of bf16 is that of fp16 but for one instruction.
    for precision in sorted({"tf32", "fp16"} & set(target.precisions)):
        monkeypatch.setattr(division, "_body", lambda *_: Body((tile,), pipe=1))
        with lowlevel.precision(precision):
            shapes = (2, 11, 13, 8), (33, 3, 3, 8)
            check_convolution(target, precision, *shapes, **UNEVEN)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_special_value_reaches_its_windows_alone(target, precision, value):
    x, w = np.ones((2, 6, 7, 4), FLOAT), np.ones((5, 3, 3, 4), FLOAT)
    x[1, 2, 3, 1] = value
    y = host(kernels.conv2d(target.array(x), target.array(w), padding=1))
    reached = np.zeros(y.shape, bool)
    reached[1, 1:4, 2:5] = True
    np.testing.assert_array_equal(np.isfinite(y), ~reached)
    np.testing.assert_array_equal(y[reached], np.full(reached.sum(), value))


def test_fp16_has_no_number_beyond_65504(target):
    x, w = np.array([[65504.0], [65520.0], [2.0**-25]], FLOAT), np.ones((1, 1), FLOAT)
    for precision, beyond, below in (("fp16", np.inf, 0), ("bf16", 65536, 2.0**-25)):
        if precision in target.precisions:
            with lowlevel.precision(precision):
                y = host(kernels.dense(target.array(x), target.array(w))).ravel()
            assert y[1] == beyond and y[2] == below


def test_fp32_multiplies_as_without_a_precision(target):
    x, w = (target.array(normal(i, 9, 7, dtype=FLOAT)) for i in range(2))
    expected = host(kernels.dense(x, w))
    with lowlevel.precision("fp32"):
        np.testing.assert_array_equal(host(kernels.dense(x, w)), expected)


# --- what a precision is refused for


def test_a_cpu_multiplies_in_fp32_alone():
    x = np.ones((2, 2), FLOAT)
    expected = "^precision: got 'tf32' for float32 arrays on cpu, expected 'fp32'$"
    with lowlevel.precision("tf32"), pytest.raises(ValueError, match=expected):
        kernels.dense(x, x)


def test_only_float32_arrays_are_rounded(target, dtype):
    if dtype == FLOAT:
        return
    x, w = (target.array(np.ones(shape, dtype)) for shape in ((1, 2, 2, 1), (1, 1, 1, 1)))
    expected = f"^precision: got 'fp16' for {dtype} arrays on {target}, expected 'fp32'$"
    with lowlevel.precision("fp16"), pytest.raises(ValueError, match=expected):
        kernels.conv2d_backward(x, x, w)


def test_an_unknown_precision(target):
    x = target.array(np.ones((2, 2), FLOAT))
    expected = f"got 'int8' .* expected {' or '.join(map(repr, target.precisions))}"
    with lowlevel.precision("int8"), pytest.raises(ValueError, match=expected):
        kernels.dense(x, x)


def test_a_precision_ends_with_its_block_and_stays_in_its_thread(target):
    x = target.array(np.full((1, 1), 1 + 2.0**-20, FLOAT))
    with pytest.raises(KeyError), lowlevel.precision(target.precisions[-1]):
        assert kernels.dense(x, x) == 1
        with ThreadPoolExecutor(1) as executor:
            assert executor.submit(kernels.dense, x, x).result() > 1
        raise KeyError
    assert kernels.dense(x, x) > 1
