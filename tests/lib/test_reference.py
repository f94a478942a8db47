"""Tests of the oracle itself: hand-computed values, special values and finite differences."""

import numpy as np
import pytest

from tests.lib import comparison, reference

NAN, INF = np.nan, np.inf


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def image(rows):
    """One image (1, H, W, 1) from a list of rows."""
    return np.array(rows, float)[None, :, :, None]


def plane(y):
    """The rows of a (1, H, W, 1) array."""
    return y[0, :, :, 0].tolist()


def assert_gradient(gradient, f, x):
    comparison.assert_close(gradient, reference.finite_difference(f, x), rtol=1e-6)


def conv2d_by_seven_loops(x, w, b, stride, padding, dilation, groups):
    """Convolution straight from its definition, one product at a time."""
    (top, bottom), (left, right) = padding
    count, height, width, channels = x.shape
    filters, kernel_height, kernel_width, group_channels = w.shape
    out_height = (height + top + bottom - dilation[0] * (kernel_height - 1) - 1) // stride[0] + 1
    out_width = (width + left + right - dilation[1] * (kernel_width - 1) - 1) // stride[1] + 1
    y = np.zeros((count, out_height, out_width, filters))
    for n, oh, ow, f in np.ndindex(y.shape):
        y[n, oh, ow, f] = b[f]
        for kh, kw, c in np.ndindex(w.shape[1:]):
            ih = oh * stride[0] - top + kh * dilation[0]
            iw = ow * stride[1] - left + kw * dilation[1]
            if 0 <= ih < height and 0 <= iw < width:
                channel = f // (filters // groups) * group_channels + c
                y[n, oh, ow, f] += x[n, ih, iw, channel] * w[f, kh, kw, c]
    return y


# Every parameter differs between the axes and sides, so that none can be mixed up.
UNEVEN = {"stride": (1, 2), "padding": ((2, 1), (0, 3)), "dilation": (2, 1)}


def test_conv2d_equals_its_definition(rng):
    x, w, b = rng.normal(size=(2, 5, 6, 4)), rng.normal(size=(6, 2, 3, 2)), rng.normal(size=6)
    expected = conv2d_by_seven_loops(x, w, b, groups=2, **UNEVEN)
    comparison.assert_close(reference.conv2d(x, w, b, groups=2, **UNEVEN), expected, rtol=1e-13)
    rectified = reference.conv2d(x, w, b, groups=2, relu=True, **UNEVEN)
    comparison.assert_close(rectified, np.maximum(expected, 0), rtol=1e-13)


def test_conv2d_by_hand():
    x = image([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    w = image([[1, 0], [0, -1]])
    assert plane(reference.conv2d(x, w, [10.0])) == [[6, 6], [6, 6]]
    # "same" pads an even kernel at the bottom and the right only.
    assert plane(reference.conv2d(x, w, padding="same")) == [[-4, -4, 3], [-4, -4, 6], [7, 8, 9]]
    assert plane(reference.conv2d(x, w, padding="same", stride=2)) == [[-4, 3], [7, 9]]
    assert plane(reference.conv2d(x, w, padding="valid", dilation=2)) == [[-8]]


def test_conv2d_backward_equals_finite_differences(rng):
    x, w, b = rng.normal(size=(2, 3, 4, 4)), rng.normal(size=(2, 2, 3, 2)), rng.normal(size=2)
    options = {"groups": 2, **UNEVEN}
    dy = rng.normal(size=reference.conv2d(x, w, b, **options).shape)
    dx, dw, db = reference.conv2d_backward(dy, x, w, **options)
    assert_gradient(dx, lambda x: (dy * reference.conv2d(x, w, b, **options)).sum(), x)
    assert_gradient(dw, lambda w: (dy * reference.conv2d(x, w, b, **options)).sum(), w)
    assert_gradient(db, lambda b: (dy * reference.conv2d(x, w, b, **options)).sum(), b)


def test_im2col_rows_are_windows(rng):
    assert reference.im2col(image([[1, 2], [3, 4]]), 2, padding=((1, 0), (0, 0))).tolist() == [
        [0, 0, 1, 2],
        [1, 2, 3, 4],
    ]
    x, w = rng.normal(size=(2, 5, 6, 3)), rng.normal(size=(4, 2, 3, 3))
    y = reference.conv2d(x, w, **UNEVEN)
    cols = reference.im2col(x, (2, 3), **UNEVEN)
    comparison.assert_close((cols @ w.reshape(4, -1).T).reshape(y.shape), y, rtol=1e-13)


def test_col2im_is_the_adjoint_of_im2col(rng):
    x = rng.normal(size=(2, 5, 6, 3))
    cols = rng.normal(size=reference.im2col(x, (2, 3), **UNEVEN).shape)
    inner_cols = (reference.im2col(x, (2, 3), **UNEVEN) * cols).sum()
    inner_x = (x * reference.col2im(cols, x.shape, (2, 3), **UNEVEN)).sum()
    assert inner_cols == pytest.approx(inner_x, rel=1e-12)


def test_kernel_larger_than_the_padded_image_is_an_error():
    with pytest.raises(ValueError, match="exceeds"):
        reference.im2col(np.zeros((1, 3, 3, 1)), 4)
    with pytest.raises(ValueError, match="does not divide"):
        reference.conv2d(np.zeros((1, 3, 3, 3)), np.zeros((2, 1, 1, 1)), groups=2)


def test_max_pool_rules():
    x = image([[1, 3, 3, -INF], [3, 0, NAN, -INF], [NAN, 5, NAN, -INF]])
    # A tie goes to the first, NaN to the first NaN.
    y, argmax = reference.max_pool2d(x, 2, stride=1)
    np.testing.assert_array_equal(plane(y), [[3, NAN, NAN], [NAN, NAN, NAN]])
    assert plane(argmax) == [[1, 3, 2], [2, 1, 0]]
    assert argmax.dtype == np.uint8
    indices = reference.pool_indices(argmax, x.shape, 2, stride=1)
    assert plane(indices) == [[1, 6, 6], [8, 6, 6]]
    # Padding does not win over -inf: the window at the right holds padding and two times -inf.
    y, argmax = reference.max_pool2d(x, 2, padding=((0, 0), (0, 1)), stride=(2, 3))
    assert (y[0, 0, 1, 0], argmax[0, 0, 1, 0]) == (-INF, 0)
    y, argmax = reference.max_pool2d(x[:, :, 3:], (1, 2), padding=(0, 1))
    assert (y[0, 0, 0, 0], argmax[0, 0, 0, 0]) == (-INF, 1)


def test_max_pool_window_without_a_pixel():
    # Taps 3 apart step over an image of one column.
    x, options = np.ones((1, 1, 1, 1)), {"stride": 1, "padding": (0, 2), "dilation": 3}
    y, argmax = reference.max_pool2d(x, (1, 2), **options)
    assert plane(y) == [[-INF, -INF]]
    assert plane(argmax) == [[0, 0]]
    assert plane(reference.pool_indices(argmax, x.shape, (1, 2), **options)) == [[-1, -1]]
    dx = reference.max_pool2d_backward(np.ones(y.shape), argmax, x.shape, (1, 2), **options)
    assert plane(dx) == [[0]]
    average = reference.avg_pool2d(x, (1, 2), count_include_pad=False, **options)
    assert plane(average) == [[0, 0]]


def test_max_pool_argmax_widens():
    x = np.arange(17 * 17.0).reshape(1, 17, 17, 1)
    y, argmax = reference.max_pool2d(x, 17)
    assert (y.item(), argmax.item(), argmax.dtype) == (288, 288, np.uint16)
    assert reference.max_pool2d(x, 16)[1].dtype == np.uint8


def test_ceil_mode():
    x = image([[1, 2, 3, 4, 5]])
    assert plane(reference.max_pool2d(x, (1, 2))[0]) == [[2, 4]]
    assert plane(reference.max_pool2d(x, (1, 2), ceil_mode=True)[0]) == [[2, 4, 5]]
    # A fourth window would start at 6, in the padding after the image: it is dropped.
    options = {"stride": (1, 2), "padding": ((0, 0), (0, 1)), "ceil_mode": True}
    assert plane(reference.max_pool2d(x, (1, 3), **options)[0]) == [[3, 5, 5]]
    # The last window covers 5, a padding cell that may count, and one beyond it that never does.
    assert plane(reference.avg_pool2d(x, (1, 3), **options)) == [[2, 4, 2.5]]
    without_padding = reference.avg_pool2d(x, (1, 3), count_include_pad=False, **options)
    assert plane(without_padding) == [[2, 4, 5]]


POOL_OPTIONS = [
    {},
    {"stride": 1, "padding": ((0, 1), (2, 1)), "dilation": (1, 2)},
    {"stride": (2, 3), "padding": 1, "ceil_mode": True},
    {"stride": 2, "padding": "same"},
]


@pytest.mark.parametrize("options", POOL_OPTIONS)
def test_pool_gradients_equal_finite_differences(rng, options):
    x = rng.permutation(2 * 4 * 5 * 2).reshape(2, 4, 5, 2) / 10  # no ties
    y, argmax = reference.max_pool2d(x, (3, 2), **options)
    dy = rng.normal(size=y.shape)
    dx = reference.max_pool2d_backward(dy, argmax, x.shape, (3, 2), **options)
    assert_gradient(dx, lambda x: (dy * reference.max_pool2d(x, (3, 2), **options)[0]).sum(), x)
    for include in (True, False):
        both = {"count_include_pad": include, **options}
        dx = reference.avg_pool2d_backward(dy, x.shape, (3, 2), **both)
        assert_gradient(
            dx, lambda x, both=both: (dy * reference.avg_pool2d(x, (3, 2), **both)).sum(), x
        )


@pytest.mark.parametrize("options", POOL_OPTIONS)
def test_pool_indices_find_the_maximum(rng, options):
    x = rng.normal(size=(1, 4, 5, 1))
    y, argmax = reference.max_pool2d(x, (3, 2), **options)
    indices = reference.pool_indices(argmax, x.shape, (3, 2), **options)
    np.testing.assert_array_equal(x.reshape(-1)[indices], y)


def test_global_average_pool(rng):
    x, dy = rng.normal(size=(2, 3, 2, 2)), rng.normal(size=(2, 2))
    assert reference.global_avg_pool2d(image([[1, 2], [3, 6]])).tolist() == [[3]]
    dx = reference.global_avg_pool2d_backward(dy, x.shape)
    assert_gradient(dx, lambda x: (dy * reference.global_avg_pool2d(x)).sum(), x)


def test_batch_norm_by_hand():
    x = np.array([[1.0], [3.0]])
    y, mean, var = reference.batch_norm(x, [2.0], [1.0], [10.0], [4.0], training=True, eps=3.0)
    assert (y.tolist(), mean.tolist()) == ([[0], [2]], [9.2])
    assert var == pytest.approx([0.9 * 4 + 0.1 * 2])
    y, mean, var = reference.batch_norm(x, [2.0], [1.0], [2.0], [1.0], training=False, eps=0.0)
    assert (y.tolist(), mean.tolist(), var.tolist()) == ([[-1], [3]], [2], [1])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("relu", [True, False])
def test_batch_norm_gradients_equal_finite_differences(rng, training, relu):
    x, dy = rng.normal(size=(3, 2, 2, 2)), rng.normal(size=(3, 2, 2, 2))
    gamma, beta, mean = rng.normal(size=(3, 2))
    var = np.array([0.5, 2.0])

    def loss(x, gamma, beta):
        y, _, _ = reference.batch_norm(x, gamma, beta, mean, var, training=training, relu=relu)
        return (dy * y).sum()

    dx, dgamma, dbeta = reference.batch_norm_backward(
        dy, x, gamma, beta, mean, var, training=training, relu=relu
    )
    assert_gradient(dx, lambda x: loss(x, gamma, beta), x)
    assert_gradient(dgamma, lambda gamma: loss(x, gamma, beta), gamma)
    assert_gradient(dbeta, lambda beta: loss(x, gamma, beta), beta)


def test_dense(rng):
    x, w, b, dy = (rng.normal(size=shape) for shape in [(2, 3), (3, 4), (4,), (2, 4)])
    assert reference.dense([[1, 2]], [[3, -3], [4, -4]], [1, 1], relu=True).tolist() == [[12, 0]]
    dx, dw, db = reference.dense_backward(dy, x, w)
    assert_gradient(dx, lambda x: (dy * reference.dense(x, w, b)).sum(), x)
    assert_gradient(dw, lambda w: (dy * reference.dense(x, w, b)).sum(), w)
    assert_gradient(db, lambda b: (dy * reference.dense(x, w, b)).sum(), b)


def test_relu():
    x = [-INF, -1, -0.0, 0, 2, INF, NAN]
    np.testing.assert_array_equal(reference.relu(x), [0, 0, 0, 0, 2, INF, NAN])
    np.testing.assert_array_equal(
        reference.relu_backward([5.0] * 7, reference.relu(x)), [0, 0, 0, 0, 5, 5, 5]
    )


def test_softmax(rng):
    assert reference.softmax([[1e4, -1e4], [0, 0], [-INF, 3]]).tolist() == [
        [1, 0],
        [0.5, 0.5],
        [0, 1],
    ]
    assert np.isnan(reference.softmax([[-INF, -INF], [INF, 0], [NAN, 0]])).all()
    x, dy = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3, 4))
    dx = reference.softmax_backward(dy, reference.softmax(x))
    assert_gradient(dx, lambda x: (dy * reference.softmax(x)).sum(), x)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_softmax_cross_entropy_gradient(rng, smoothing, reduction):
    logits, labels, weight = rng.normal(size=(4, 3)), np.array([2, 0, -1, 0]), [0.5, 1.0, 2.0]
    options = {
        "weight": weight,
        "ignore_index": -1,
        "label_smoothing": smoothing,
        "reduction": reduction,
    }
    _, dlogits = reference.softmax_cross_entropy(logits, labels, **options)
    assert_gradient(
        dlogits,
        lambda logits: reference.softmax_cross_entropy(logits, labels, **options)[0].sum(),
        logits,
    )


def test_softmax_cross_entropy_by_hand():
    logits = np.log([[0.2, 0.8], [0.5, 0.5], [0.3, 0.7]])
    loss, dlogits = reference.softmax_cross_entropy(
        logits, [1, 0, -100], weight=[3, 1], reduction="none"
    )
    np.testing.assert_allclose(loss, [-np.log(0.8), -3 * np.log(0.5), 0])
    np.testing.assert_allclose(dlogits, [[0.2, -0.2], [-1.5, 1.5], [0, 0]])
    mean, dmean = reference.softmax_cross_entropy(logits, [1, 0, -100], weight=[3, 1])
    np.testing.assert_allclose(mean, loss.sum() / 4)
    np.testing.assert_allclose(dmean, dlogits / 4)
    smooth, _ = reference.softmax_cross_entropy(logits[:1], [1], label_smoothing=0.5)
    np.testing.assert_allclose(smooth, -0.75 * np.log(0.8) - 0.25 * np.log(0.2))


def test_softmax_cross_entropy_extremes():
    logits = [[1e4, -1e4], [1e4, -1e4], [-INF, 0], [NAN, 0], [0, 0], [0, 0]]
    labels = [0, 1, 1, -100, 2, -1]
    loss, dlogits = reference.softmax_cross_entropy(logits, labels, reduction="none")
    np.testing.assert_array_equal(loss, [0, 2e4, 0, 0, NAN, NAN])
    np.testing.assert_array_equal(
        dlogits, [[0, 0], [1, -1], [0, 0], [0, 0], [NAN, NAN], [NAN, NAN]]
    )
    mean, dmean = reference.softmax_cross_entropy(logits, labels)
    assert np.isnan(mean)
    np.testing.assert_array_equal(dmean, dlogits / 3)
    loss, dlogits = reference.softmax_cross_entropy([[0.0, 1.0]], [-100])
    assert np.isnan(loss) and dlogits.tolist() == [[0, 0]]


def test_textbook_pair_equals_the_fused_loss(rng):
    logits, labels = rng.normal(size=(5, 4)), np.array([0, 3, 1, 1, 2])
    probabilities = reference.softmax(logits)
    loss, dprobabilities = reference.cross_entropy(probabilities, labels)
    fused_loss, dlogits = reference.softmax_cross_entropy(logits, labels)
    comparison.assert_close(loss, fused_loss, rtol=1e-13)
    chained = reference.softmax_backward(dprobabilities, probabilities)
    comparison.assert_close(chained, dlogits, rtol=1e-13)


def test_cross_entropy_edges():
    for dtype in (np.float16, np.float32, np.float64):
        smallest = float(np.finfo(dtype).smallest_normal)
        loss, dprobabilities = reference.cross_entropy(np.array([[0, 1]], dtype), [0])
        assert loss == -np.log(smallest) and dprobabilities.tolist() == [[-1 / smallest, 0]]
    loss, dprobabilities = reference.cross_entropy([[0.5, 0.5], [0.5, 0.5]], [0, 2])
    assert np.isnan(loss)
    np.testing.assert_array_equal(dprobabilities, [[-2, 0], [NAN, NAN]])


def test_dropout_backward():
    assert reference.dropout_backward([1, 2, 3], [1, 0, 1], 0.75).tolist() == [4, 0, 12]
    assert reference.dropout_backward([1, 2], [0, 0], 1).tolist() == [0, 0]


def test_affine_warp():
    x = image([[1, 2, 3], [4, 5, 6]])
    warp = {
        "identity": [[1, 0, 0], [0, 1, 0]],
        "one to the right": [[1, 0, 1], [0, 1, 0]],
        "half down": [[1, 0, 0], [0, 1, 0.5]],
        "transposed": [[0, 1, 0], [1, 0, 0]],
        "far away": [[NAN, 0, 0], [0, 1, 0]],
    }
    warped = {
        name: plane(reference.affine_warp(x, np.array([matrix]), fill=8))
        for name, matrix in warp.items()
    }
    assert warped == {
        "identity": [[1, 2, 3], [4, 5, 6]],
        "one to the right": [[2, 3, 8], [5, 6, 8]],
        "half down": [[2.5, 3.5, 4.5], [6, 6.5, 7]],
        "transposed": [[1, 4, 8], [2, 5, 8]],
        "far away": [[8, 8, 8], [8, 8, 8]],
    }


def test_sgd_step_by_hand():
    param, velocity = reference.sgd_step([1.0], [2.0], lr=0.1, weight_decay=0.5)
    assert param == pytest.approx([0.75]) and velocity is None
    options = {"lr": 0.1, "momentum": 0.5}
    param, velocity = reference.sgd_step([1.0], [2.0], [4.0], **options)
    assert (param.tolist(), velocity.tolist()) == ([0.6], [4])
    param, velocity = reference.sgd_step([1.0], [2.0], [4.0], nesterov=True, **options)
    assert (param.tolist(), velocity.tolist()) == ([0.6], [4])
    param, _ = reference.sgd_step([1.0], [2.0], [0.0], nesterov=True, **options)
    assert param == pytest.approx([0.7])


def test_adam_step_by_hand():
    # On the first step the corrected moments are the gradient and its square: a step of about lr.
    options = {"step": 1, "lr": 0.1, "eps": 1.0}
    param, m, v = reference.adam_step([1.0], [3.0], [0.0], [0.0], **options)
    assert param == pytest.approx([1 - 0.1 * 3 / (3 + 1)])
    assert m == pytest.approx([0.3]) and v == pytest.approx([0.009])
    param, *_ = reference.adam_step([1.0], [3.0], [0.0], [0.0], weight_decay=2.0, **options)
    assert param == pytest.approx([1 - 0.1 * 5 / (5 + 1)])
    param, *_ = reference.adam_step(
        [1.0], [3.0], [0.0], [0.0], weight_decay=2.0, decoupled=True, **options
    )
    assert param == pytest.approx([0.8 - 0.1 * 3 / (3 + 1)])


def test_empty_batch():
    x, w = np.zeros((0, 4, 4, 2)), np.ones((3, 2, 2, 2))
    y = reference.conv2d(x, w)
    dx, dw, db = reference.conv2d_backward(y, x, w)
    assert (y.shape, dx.shape) == ((0, 3, 3, 3), x.shape) and not dw.any() and not db.any()
    assert reference.im2col(x, 2).shape == (0, 8)
    assert reference.col2im(np.zeros((0, 8)), x.shape, 2).shape == x.shape
    pooled, argmax = reference.max_pool2d(x, 2)
    assert reference.max_pool2d_backward(pooled, argmax, x.shape, 2).shape == x.shape
    assert reference.avg_pool2d(x, 2).shape == reference.avg_pool2d(pooled, 1).shape
    assert reference.global_avg_pool2d(x).shape == (0, 2)
    ones = np.ones(2)
    y, mean, var = reference.batch_norm(x, ones, ones, ones, ones, training=True)
    assert y.shape == x.shape and mean.tolist() == var.tolist() == [1, 1]
    assert not np.any(reference.batch_norm_backward(y, x, ones, ones)[1:])
    assert not reference.dense_backward(np.zeros((0, 2)), np.zeros((0, 3)), np.ones((3, 2)))[
        1
    ].any()
    loss, dlogits = reference.softmax_cross_entropy(np.zeros((0, 3)), np.zeros(0, int))
    assert np.isnan(loss) and dlogits.shape == (0, 3)
    assert reference.softmax_cross_entropy(dlogits, np.zeros(0), reduction="sum")[0] == 0
    assert np.isnan(reference.cross_entropy(dlogits, np.zeros(0, int))[0])
    assert reference.affine_warp(x, np.zeros((0, 2, 3))).shape == x.shape


def test_float64_whatever_comes_in():
    x = np.ones((1, 2, 2, 1), np.float16)
    assert reference.conv2d(x, x).dtype == np.float64
    assert reference.softmax(x).dtype == reference.relu(x).dtype == np.float64
