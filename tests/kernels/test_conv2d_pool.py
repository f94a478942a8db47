"""Tests of convolution, max-pooling and ReLU in one, and of its gradients."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import kernels
from kernels import lowlevel, runtime
from kernels.common.geometry import window
from kernels.conv import conv2d_pool, one_channel
from tests.lib import comparison, reference, strategies
from tests.lib.support import RTOL, host, normal, numbers

# Compared to the bit with a convolution and a pool, which may divide k.
pytestmark = pytest.mark.usefixtures("undivided")

NAN, INF = np.nan, np.inf


class Fused:
    """The functions under test on the arrays of one convolution and pool."""

    def __init__(self, target, x, w, b=None, *, pool=(2, 2), **options):
        self.x, self.w, self.b, self.kernel, self.options = x, w, b, pool, options
        geometry = {"stride": 1, "padding": 0, "dilation": 1} | options
        self.target, self.rtol = target, RTOL[x.dtype.name]
        self.arrays = [None if array is None else target.array(array) for array in (x, w, b)]
        self.window, _ = window(x.shape[1:3], w.shape[1:3], **geometry)
        self.pool = conv2d_pool.windows(target, x.dtype, w.shape, self.window, pool)

    def forward(self):
        return conv2d_pool.forward(*self.arrays, self.window, self.pool)

    def gradients(self, dy, y, argmax):
        """Return dx, dw and db."""
        x, w, _ = self.arrays
        empty = self.target.empty
        dw, db = empty(w.shape, w.dtype), empty(w.shape[:1], w.dtype)
        saved, geometry = (self.target.array(dy), y, argmax), (self.window, self.pool)
        return conv2d_pool.backward(*saved, x, w, dw, db, *geometry), dw, db

    def check_forward(self):
        """Compare with the oracle, and bit by bit with the kernels that do it one by one."""
        y, argmax = self.forward()
        assert y.dtype == self.x.dtype and argmax.dtype == np.uint8
        convolved = reference.conv2d(self.x, self.w, self.b, **self.options)
        pooled, _ = reference.max_pool2d(convolved, self.kernel)
        comparison.assert_close(y, np.maximum(pooled, 0), rtol=self.rtol)
        maximum, index = kernels.max_pool2d(
            kernels.conv2d(*self.arrays, **self.options), self.kernel
        )
        np.testing.assert_array_equal(host(argmax), host(index))
        np.testing.assert_array_equal(numbers(y), numbers(kernels.relu(maximum)))
        return y, argmax

    def check(self):
        """Compare forward, and for a random dy all gradients, with the oracle."""
        y, argmax = self.check_forward()
        dy = normal(9, *y.shape, dtype=self.x.dtype)
        gradients = self.gradients(dy, y, argmax)
        passed = np.where(host(y) > 0, dy, 0)
        shape = (len(self.x), self.window.OH, self.window.OW, len(self.w))
        convolved = reference.max_pool2d_backward(passed, host(argmax), shape, self.kernel)
        expected = reference.conv2d_backward(convolved, self.x, self.w, **self.options)
        for gradient, reference_gradient in zip(gradients, expected, strict=True):
            assert gradient.dtype == self.x.dtype
            comparison.assert_close(gradient, reference_gradient, rtol=self.rtol)


def arrays(dtype, x_shape, w_shape):
    shapes = x_shape, w_shape, w_shape[:1]
    return [normal(i, *shape, dtype=dtype) for i, shape in enumerate(shapes)]


@hypothesis.given(
    drawn=strategies.windows(),
    pool=st.sampled_from([(2, 2), (1, 2), (2, 1), (1, 4), (4, 1)]),
    more=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    N=st.integers(0, 3),
    C=st.sampled_from([1, 3, 9]),
    F=st.sampled_from([1, 6]),
    bias=st.booleans(),
)
@hypothesis.settings(max_examples=30)
def test_equals_the_oracle(target, dtype, drawn, pool, more, N, C, F, bias):
    (H, W), kernel, options = drawn
    KH, KW = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    KH, KW = min(KH, 2), min(KW, 3)  # few, for each is compiled
    DH, _ = dilation if isinstance(dilation := options["dilation"], tuple) else (dilation, 0)
    options["dilation"] = (DH, 1)  # taps of a row touch
    x, w, b = arrays(dtype, (N, H + more[0], W + more[1], C), (F, KH, KW, C))
    fused = Fused(target, x, w, b if bias else None, pool=pool, **options)
    hypothesis.assume(fused.pool is not None)
    fused.check()


@pytest.mark.parametrize(
    "x_shape, w_shape, pool, options",
    [
        ((1, 1, 1, 1), (1, 1, 1, 1), (1, 2), {"padding": (0, 1)}),  # one pixel: the middle of three
        ((1, 1, 1, 3), (5, 3, 3, 3), (2, 2), {"padding": 2}),  # one pixel that all windows see
        ((2, 28, 28, 1), (16, 5, 5, 1), (2, 2), {"padding": "same"}),  # a first layer of digits
        ((2, 14, 14, 16), (24, 5, 5, 16), (2, 2), {}),  # a second one; whole registers
        ((3, 9, 7, 3), (5, 2, 4, 3), (2, 2), {"padding": "same"}),  # an odd sum of padding
        ((3, 9, 7, 3), (5, 3, 2, 3), (2, 2), {"padding": ((2, 0), (0, 1))}),  # a side without
        ((2, 13, 8, 7), (6, 3, 3, 7), (2, 2), {"stride": (2, 1), "padding": 1}),
        ((2, 9, 17, 7), (6, 2, 3, 7), (2, 1), {"stride": (1, 3)}),  # windows skip a pixel
        ((2, 12, 9, 8), (5, 3, 3, 8), (2, 2), {"dilation": (3, 1), "padding": (2, 0)}),  # by rows
        ((2, 11, 6, 3), (5, 1, 1, 3), (4, 1), {}),  # three rows left over
        ((2, 5, 11, 3), (5, 1, 2, 3), (1, 4), {}),  # two columns left over
        ((2, 7, 7, 3), (5, 1, 1, 3), (2, 2), {}),  # one row and column left over
        ((17, 5, 6, 2), (3, 2, 2, 2), (2, 2), {}),  # blocks of one image, and one of two
        ((70, 3, 3, 1), (2, 2, 2, 1), (2, 1), {}),  # the same with the 64 blocks of cuda
        ((1, 3, 60, 1), (97, 2, 2, 1), (2, 2), {}),  # more filters than a panel of cpu holds
        ((1, 4, 4, 115), (3, 3, 3, 115), (2, 2), {"padding": 1}),  # more taps than one panel
        ((2, 10, 10, 1), (3, 4, 4, 1), (2, 2), {}),  # taps fill a vector, or two
        ((2, 10, 14, 1), (3, 5, 5, 1), (1, 2), {"stride": (2, 3), "padding": 2}),  # strips apart
        ((2, 14, 10, 1), (3, 5, 5, 1), (2, 1), {"dilation": (2, 1)}),  # rows apart, so no strips
        ((1, 60, 60, 1), (2, 5, 5, 1), (2, 2), {}),  # strips beyond the first-level cache
        ((1, 2, 62, 1), (3, 1, 1, 1), (2, 2), {}),  # as many windows as a word has bits
        ((1, 2, 126, 1), (3, 1, 1, 1), (2, 2), {}),  # one more than two words have
        ((1, 2, 2, 2), (129, 1, 1, 2), (2, 2), {}),  # one filter more than two words have
    ],
)
def test_chosen_sizes_equal_the_oracle(target, dtype, x_shape, w_shape, pool, options):
    Fused(target, *arrays(dtype, x_shape, w_shape), pool=pool, **options).check()


@pytest.mark.parametrize(
    ("C", "kernel", "stride", "dtype", "expected"),
    [
        (1, 5, 1, "float32", True),
        (1, 3, 1, "float64", True),
        (2, 5, 1, "float32", False),
        (1, (13, 2), 1, "float32", False),  # 26 taps
        (1, 3, 2, "float32", False),
        (1, 3, 1, "float16", True),
    ],
)
def test_one_channel_is_no_product_on_a_gpu(cuda, C, kernel, stride, dtype, expected):
    g, _ = window((28, 28), kernel, stride=stride, padding=0, dilation=1)
    x = cuda.empty((2, 28, 28, C), np.dtype(dtype))
    assert one_channel.suits(cuda, x, 24, g) == expected
    with lowlevel.precision("fp16"):
        assert not one_channel.suits(cuda, x, 24, g)


# Channels below, at and above whole registers; filters that have divisors, and others.
@pytest.mark.parametrize(
    "C, F, kernel",
    [
        (1, 1, 1),
        (1, 16, 5),
        (3, 5, 3),
        (7, 33, 3),
        (8, 24, 1),
        (16, 24, 5),
        (17, 5, 3),
        (24, 16, 3),
    ],
)
def test_channel_counts(target, dtype, C, F, kernel):
    x, w, b = arrays(dtype, (2, 7, 6, C), (F, kernel, kernel, C))
    Fused(target, x, w, b, padding=kernel // 2).check()


@pytest.mark.parametrize("pool", [(1, 2), (2, 2), (4, 1)])
def test_gradients_equal_finite_differences(target, pool):
    options = {"stride": (1, 2), "padding": ((2, 1), (0, 3)), "dilation": (2, 1), "pool": pool}
    x, w, b = normal(0, 2, 6, 7, 3), normal(1, 2, 2, 3, 3), normal(2, 2)
    fused = Fused(target, x, w, b, **options)
    y, argmax = fused.forward()
    dy = normal(3, *y.shape)

    def loss(*changed):
        return (dy * host(Fused(target, *changed, **options).forward()[0])).sum()

    for gradient, f, at in zip(
        fused.gradients(dy, y, argmax),
        [lambda x: loss(x, w, b), lambda w: loss(x, w, b), lambda b: loss(x, w, b)],
        [x, w, b],
        strict=True,
    ):
        comparison.assert_close(gradient, reference.finite_difference(f, at), rtol=1e-7)


def test_an_empty_batch_has_gradients_of_zero(target, dtype):
    fused = Fused(target, *arrays(dtype, (0, 5, 5, 3), (4, 3, 3, 3)))
    y, argmax = fused.forward()
    assert y.shape == argmax.shape == (0, 1, 1, 4)
    dx, dw, db = fused.gradients(host(y), y, argmax)
    assert dx.shape == (0, 5, 5, 3)
    assert not host(dw).any() and not host(db).any()


def test_of_equal_pixels_the_first_has_the_gradient(target, dtype):
    x, w = np.ones((1, 4, 6, 2), dtype), np.ones((3, 1, 1, 2), dtype)
    fused = Fused(target, x, w)
    fused.check()
    y, argmax = fused.forward()
    assert not host(argmax).any()
    dx, *_ = fused.gradients(np.ones(y.shape, dtype), y, argmax)
    expected = np.zeros(x.shape)
    expected[:, ::2, ::2] = 3
    np.testing.assert_array_equal(host(dx), expected)


def test_what_the_relu_clips_has_no_gradient(target, dtype):
    x, w, _ = arrays(dtype, (2, 6, 6, 3), (4, 3, 3, 3))
    fused = Fused(target, x, w, np.full(4, -1000, dtype))
    fused.check()
    y, argmax = fused.forward()
    assert not host(y).any()
    for gradient in fused.gradients(normal(3, *y.shape, dtype=dtype), y, argmax):
        assert not host(gradient).any()


def test_the_first_nan_of_a_window_wins_and_has_the_gradient(target, dtype):
    x = np.array([[5, NAN, 1, 2], [NAN, 9, 4, 3]], dtype).reshape(1, 2, 4, 1)
    fused = Fused(target, x, np.ones((1, 1, 1, 1), dtype))
    y, argmax = fused.forward()
    np.testing.assert_array_equal(numbers(y).ravel(), [NAN, 4])
    np.testing.assert_array_equal(host(argmax).ravel(), [1, 2])
    # As relu_backward, and PyTorch, have it: no gradient where y <= 0, which NaN is not.
    dx, _, db = fused.gradients(np.array([3, 7], dtype).reshape(y.shape), y, argmax)
    np.testing.assert_array_equal(host(dx)[0, ..., 0], [[0, 3, 0, 0], [0, 0, 7, 0]])
    np.testing.assert_array_equal(host(db), [10])


def test_what_the_relu_clips_meets_no_nan_on_cpu(dtype):
    """`cpu` skips windows without a gradient; on `cuda`, as in PyTorch, 0 * NaN is NaN."""
    target = runtime.cpu_target()
    if dtype.name not in target.dtypes:
        pytest.skip(f"{target} takes no {dtype}")
    x, w, b = arrays(dtype, (2, 6, 6, 1), (3, 3, 3, 1))
    y, argmax = (host(array) for array in Fused(target, x, w, b).forward())
    x[:, :2] = NAN  # under the upper two of the four windows
    w[1] = NAN
    y[:, 0], y[..., 1] = 0, 0
    saved = [target.array(array) for array in (y, argmax)]
    for gradient in Fused(target, x, w, b).gradients(np.ones(y.shape, dtype), *saved):
        assert np.isfinite(host(gradient)).all()


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@np.errstate(invalid="ignore")  # in the oracle
def test_a_special_value_wins_as_in_pooling(target, dtype, value):
    x, w, b = arrays(dtype, (2, 6, 8, 3), (5, 3, 3, 3))
    x[1, 2, 3, 1] = value
    Fused(target, x, w, b, padding=1).check_forward()
    w[3, 1, 1, 2] = value
    Fused(target, x, w, b, padding=1).check_forward()
    b[2] = value
    Fused(target, x, w, b, padding=1).check_forward()


def test_without_a_bias_nothing_is_written_to_its_gradient(target, dtype):
    x, w, _ = arrays(dtype, (2, 6, 6, 3), (4, 3, 3, 3))
    fused = Fused(target, x, w)
    y, argmax = fused.forward()
    dy = normal(3, *y.shape, dtype=dtype)
    _, expected, _ = fused.gradients(dy, y, argmax)
    dw = target.empty(w.shape, dtype)
    saved = (target.array(dy), y, argmax, target.array(x), target.array(w))
    conv2d_pool.backward(*saved, dw, None, fused.window, fused.pool)
    np.testing.assert_array_equal(host(dw), host(expected))


@pytest.mark.parametrize(
    "x_shape, w_shape, pool, options",
    [
        ((1, 6, 6, 1), (1, 3, 3, 1), (2, 2), {"dilation": (1, 2)}),  # taps of a row apart
        ((1, 9, 9, 1), (1, 1, 1, 1), (3, 3), {}),  # nine pixels do not fill micro-tiles
        ((1, 9, 9, 1), (1, 1, 1, 1), (1, 1), {}),  # nothing to pool
        ((1, 5, 5, 1), (1, 5, 5, 1), (2, 1), {}),  # one output, too few for a window
    ],
)
def test_what_cannot_be_fused(target, dtype, x_shape, w_shape, pool, options):
    x, w, b = arrays(dtype, x_shape, w_shape)
    assert Fused(target, x, w, b, pool=pool, **options).pool is None


def test_an_image_larger_than_a_cache_is_not_fused_on_cpu():
    x, w, b = arrays("float32", (1, 400, 400, 1), (1, 3, 3, 1))
    assert Fused(runtime.cpu_target(), x, w, b).pool is None
