"""Convolutions of images of one channel on a GPU, and filter gradients, with sums in registers."""

import numpy as np
import pytest

import kernels
from kernels.common.geometry import window
from kernels.conv import conv2d_pool, one_channel, one_channel_mma
from tests.lib import comparison, reference
from tests.lib.support import NARROW, RTOL, host, normal, numbers

#: Filters: a thread's two, one of a thread, more than a team has threads for; of odd number.
SHAPES = {
    "the recipe's": ((3, 28, 28, 1), (24, 5, 5, 1), {}),
    "padding, and rows no longer than a filter": ((5, 4, 3, 1), (3, 3, 3, 1), {"padding": 1}),
    "padding below and to the right": ((2, 6, 7, 1), (6, 2, 3, 1), {"padding": ((0, 1), (0, 2))}),
    "padding above": ((2, 6, 7, 1), (6, 2, 3, 1), {"padding": ((2, 0), (0, 0))}),
    "a filter of one tap": ((2, 5, 6, 1), (1, 1, 1, 1), {"padding": 1}),
    "one output": ((7, 3, 5, 1), (4, 4, 5, 1), {"padding": ((1, 0), (0, 0))}),
    "more filters than a team has": ((2, 6, 5, 1), (134, 3, 2, 1), {"padding": 1}),
    "several rows for a team": ((900, 5, 5, 1), (64, 2, 2, 1), {}),
    "several images for a block": ((900, 4, 4, 1), (4, 2, 3, 1), {"padding": ((0, 0), (1, 1))}),
    "taps one above the other": ((2, 30, 6, 1), (16, 25, 1, 1), {}),
    "taps side by side": ((2, 6, 30, 1), (40, 1, 25, 1), {}),
    "images beyond a block's shared memory": ((1, 120, 100, 1), (2, 3, 3, 1), {}),
    "no images": ((0, 5, 5, 1), (4, 2, 2, 1), {}),
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_convolution_equals_the_oracle(cuda, monkeypatch, dtype, name):
    x_shape, w_shape, options = SHAPES[name]
    shapes = x_shape, w_shape, w_shape[:1]
    arrays = [normal(seed, *shape, dtype=dtype) for seed, shape in enumerate(shapes)]
    taken = []
    forward = one_channel.forward
    monkeypatch.setattr(
        one_channel, "forward", lambda *a, **more: taken.append(a) or forward(*a, **more)
    )
    found = kernels.conv2d(*map(cuda.array, arrays), **options)
    assert len(taken) == (0 not in x_shape)
    expected = reference.conv2d(*arrays, **options)
    comparison.assert_close(found, expected, rtol=RTOL[str(dtype)])
    clipped = kernels.conv2d(*map(cuda.array, arrays), relu=True, **options)
    np.testing.assert_array_equal(numbers(clipped), np.maximum(numbers(found), 0))


@pytest.mark.usefixtures("undivided")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_sums_are_those_of_the_product(cuda, monkeypatch, dtype):
    x, w = (cuda.array(normal(0, *shape, dtype=dtype)) for shape in ((3, 9, 7, 1), (5, 5, 3, 1)))
    found = kernels.conv2d(x, w, padding=2)
    monkeypatch.setattr(one_channel, "suits", lambda *_: False)
    np.testing.assert_array_equal(host(found), host(kernels.conv2d(x, w, padding=2)))


@pytest.mark.parametrize("name", SHAPES)
def test_the_gradients_equal_the_oracle(cuda, monkeypatch, dtype, name):
    x_shape, w_shape, options = SHAPES[name]
    x, w = normal(0, *x_shape, dtype=dtype), normal(1, *w_shape, dtype=dtype)
    dy = normal(2, *reference.conv2d(x, w, **options).shape, dtype=dtype)
    taken = []
    gradient = one_channel.filter_gradient
    monkeypatch.setattr(
        one_channel, "filter_gradient", lambda *a: taken.append(gradient(*a)) or taken[-1]
    )
    found = kernels.conv2d_backward(*map(cuda.array, (dy, x, w)), **options)
    assert len(taken) == (0 not in x_shape)
    every = reference.conv2d_backward(dy, x, w, **options)
    for array, expected in zip(found, every, strict=True):
        comparison.assert_close(array, expected, rtol=RTOL[str(dtype)])
    _, dw, db = kernels.conv2d_backward(*map(cuda.array, (dy, x, w)), need_db=False, **options)
    assert db is None
    np.testing.assert_array_equal(numbers(dw), numbers(found[1]))


def test_gradients_at_odd_addresses(cuda):
    """A view from the second element on: a thread then loads one filter's gradient at a time."""
    memory = cuda.array(normal(0, 2 * 4 * 4 * 6 + 1, dtype="float32"))
    dy = memory[1:].reshape(2, 4, 4, 6)
    x, w = cuda.array(normal(1, 2, 5, 5, 1, dtype="float32")), cuda.array(np.zeros((6, 2, 2, 1)))
    found = kernels.conv2d_backward(dy, x, w.astype("float32"))[1]
    expected = reference.conv2d_backward(host(dy), host(x), host(w))[1]
    comparison.assert_close(found, expected, rtol=RTOL["float32"])


@pytest.mark.parametrize("images, suits", [(2**30, True), (2**30 + 1, False)])
def test_outputs_that_a_block_might_miscount_are_a_product(cuda, images, suits):
    x = cuda.fresh((images, 1, 1, 1), np.dtype("float16"))
    g, _ = window((1, 1), 1, stride=1, padding=0, dilation=1)
    assert one_channel.suits(cuda, x, 1, g) is suits


def test_what_it_does_not_do_is_a_product(cuda):
    x, w = cuda.array(normal(0, 2, 9, 9, 1, dtype="float32")), normal(1, 4, 3, 3, 1)
    for options in ({"stride": 2}, {"dilation": 2}):
        y = kernels.conv2d(x, cuda.array(w.astype("float32")), **options)
        found = kernels.conv2d_backward(y, x, cuda.array(w.astype("float32")), **options)[1]
        expected = reference.conv2d_backward(host(y), host(x), w, **options)[1]
        comparison.assert_close(found, expected, rtol=RTOL["float32"])


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize(
    ("size", "padding", "expected"),
    [((28, 28), 0, True), ((98, 100), 1, True), ((120, 100), 0, False)],
)
def test_tensor_cores_take_images_that_shared_memory_holds(cuda, dtype, size, padding, expected):
    g, _ = window(size, 3, stride=1, padding=padding, dilation=1)
    x = cuda.empty((1, *size, 1), dtype)
    assert one_channel_mma.suits(cuda, x, g) == expected
    assert not one_channel_mma.suits(cuda, cuda.empty(x.shape, "float32"), g)


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("kernel", [(3, 3), (2, 2), (1, 5)])
def test_an_infinite_pixel_reaches_its_own_results_alone(cuda, dtype, kernel):
    """Products of pairs of taps, and of whole steps of pixels, have others at their ends."""
    x, w = normal(0, 2, 7, 8, 1, dtype=dtype), normal(1, 8, *kernel, 1, dtype=dtype)
    x[0, 3, 4] = x[1, -1, -1] = np.inf
    infinite = np.isinf(x).astype(np.float64)
    y = kernels.conv2d(cuda.array(x), cuda.array(w))
    reached = reference.conv2d(infinite, abs(w)) > 0
    np.testing.assert_array_equal(np.isfinite(numbers(y)), ~reached)
    dy = normal(2, *y.shape, dtype=dtype)
    dw = kernels.conv2d_backward(*map(cuda.array, (dy, x, w)))[1]
    reached = reference.conv2d_backward(abs(dy), infinite, w)[1] > 0
    np.testing.assert_array_equal(np.isfinite(numbers(dw)), ~reached)


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize(
    ("F", "size"), [*((F, (12, 11)) for F in (8, 16, 24, 32, 50)), (3, (120, 100))]
)
def test_filters_with_a_pool_are_those_without(cuda, dtype, F, size):
    x, w, b = (
        cuda.array(normal(i, *shape, dtype=dtype))
        for i, shape in enumerate([(3, *size, 1), (F, 4, 3, 1), (F,)])
    )
    g, _ = window(size, (4, 3), stride=1, padding=1, dilation=1)
    convolved = kernels.conv2d(x, w, b, padding=1)
    for pool in ((2, 2), (1, 2), (4, 1)):
        y, argmax = conv2d_pool.forward(
            x, w, b, g, conv2d_pool.windows(cuda, x.dtype, w.shape, g, pool)
        )
        expected, index = kernels.max_pool2d(convolved, pool)
        np.testing.assert_array_equal(numbers(y), numbers(kernels.relu(expected)))
        np.testing.assert_array_equal(host(argmax), host(index))
