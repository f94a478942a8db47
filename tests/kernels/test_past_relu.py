"""Input gradients that pass the ReLU, and pool, before a layer in the product's own launch."""

import numpy as np
import pytest

import kernels
from kernels import lowlevel
from kernels.common.geometry import Pooling, window
from kernels.conv import conv2d
from kernels.gemm import dense
from kernels.gemm.gradients import Rectified
from tests.lib.support import host, normal

#: Channels: quads, and others, whose windows' channels do not lie at addresses of quads. In 16 bits
#: a thread has two quads, of which the second may be of the next pixel.
CHANNELS = [4, 8, 12, 1, 5]
#: PH, PW, KH, KW and how many pixels lie beyond the windows.
POOLS = [(2, 3, 2, 2, 0, 0), (3, 1, 2, 2, 1, 1), (1, 2, 4, 1, 3, 0), (2, 2, 1, 2, 0, 1)]


@pytest.fixture
def target(cuda):
    """The target that does so."""
    return cuda


def made(target, dtype, N, F, pool):
    """Return a pooled and rectified input, as an array and as `Rectified`."""
    PH, PW, KH, KW, below, right = pool
    y = np.maximum(normal(0, N, PH, PW, F, dtype=dtype), 0).astype(dtype)
    argmax = np.random.default_rng(1).integers(KH * KW, size=y.shape, dtype=np.uint8)
    pooling = Pooling(PH * KH + below, PW * KW + right, F, PH, PW, KH, KW)
    y, argmax = target.array(y), target.array(argmax)
    return y, Rectified(y, argmax, pooling)


def unpooled(dx, past):
    """Return the gradient before ReLU and pool from that after them."""
    y, argmax, g = host(past.y), host(past.argmax), past.pooling
    dz = np.zeros(past.shape, dx.dtype)
    for place in np.ndindex(y.shape):
        if y[place] > 0:
            n, ph, pw, f = place
            kh, kw = divmod(int(argmax[place]), g.KW)
            dz[n, ph * g.KH + kh, pw * g.KW + kw, f] = dx[place]
    return dz


def gradients(of, target, dy, x, w, *more, past):
    """Return dx of a layer, past the ReLU or not."""
    dw, db = target.empty(w.shape, w.dtype), target.empty((len(w),), w.dtype)
    return host(of.gradients(target, dy, x, w, dw, db, *more, need_dx=True, past=past))


# Outputs: one part of k, and several.
@pytest.mark.parametrize("outputs", [6, 700])
@pytest.mark.parametrize("inputs", [32, 7])
def test_dense_past_a_relu(target, dtype, outputs, inputs):
    x = target.array(np.maximum(normal(0, 9, inputs, dtype=dtype), 0).astype(dtype))
    w, dy = (
        target.array(normal(seed, *shape, dtype=dtype))
        for seed, shape in enumerate([(outputs, inputs), (9, outputs)])
    )
    dx = target.array(gradients(dense, target, dy, x, w, past=None))
    found = gradients(dense, target, dy, x, w, past=Rectified(x))
    assert found.any() and (found == host(kernels.relu_backward(dx, x))).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("outputs", [6, 700])
@pytest.mark.parametrize("F", CHANNELS)
@pytest.mark.parametrize("pool", POOLS)
def test_dense_past_a_pool(target, F, pool, outputs, dtype):
    y, past = made(target, dtype, 3, F, pool)
    x = y.reshape(3, -1)
    w, dy = (
        target.array(normal(seed, *shape, dtype=dtype))
        for seed, shape in enumerate([(outputs, x.shape[1]), (3, outputs)])
    )
    dx = gradients(dense, target, dy, x, w, past=None).reshape(y.shape)
    found = gradients(dense, target, dy, x, w, past=past)
    assert found.any() and (found == unpooled(dx, past)).all()


@pytest.mark.parametrize("F, filters", [(4, 8), (8, 300), (5, 3), (1, 4)])
@pytest.mark.parametrize("pool", POOLS)
def test_a_convolution_past_a_pool(target, dtype, F, filters, pool):
    y, past = made(target, dtype, 2, F, pool)
    image = y.shape[1:3]
    # Strides: some pixels are under no tap, and the others are several launches. Windows of one
    # pixel, and of the whole image, are a dense layer's.
    for kernel, stride, padding in ((1, 1), 1, 0), ((1, 1), 2, 0), ((2, 2), 1, 1), (image, 1, 0):
        g, _ = window(image, kernel, stride=stride, padding=padding, dilation=1)
        w = target.array(normal(1, filters, *kernel, F, dtype=dtype))
        dy = target.array(normal(2, 2, g.OH, g.OW, filters, dtype=dtype))
        dx = gradients(conv2d, target, dy, y, w, g, past=None)
        found = gradients(conv2d, target, dy, y, w, g, past=past)
        assert found.any() and (found == unpooled(dx, past)).all()


def test_a_convolution_past_a_relu_in_groups(target):
    x = target.array(np.maximum(normal(0, 2, 5, 6, 8, dtype="float32"), 0))
    w, dy = target.array(normal(1, 6, 3, 3, 4)), target.array(normal(2, 2, 5, 6, 6))
    w, dy = w.astype("float32"), dy.astype("float32")
    g, _ = window((5, 6), (3, 3), stride=1, padding=1, dilation=1)
    dx = target.array(gradients(conv2d, target, dy, x, w, g, 2, past=None))
    found = gradients(conv2d, target, dy, x, w, g, 2, past=Rectified(x))
    assert found.any() and (found == host(kernels.relu_backward(dx, x))).all()


# Channels of a group: half a quad, one and a half, one and a channel more, and one.
@pytest.mark.parametrize("channels, groups", [(2, 2), (6, 2), (5, 4), (4, 3)])
def test_a_convolution_past_a_pool_in_groups(target, dtype, channels, groups):
    y, past = made(target, dtype, 2, channels * groups, POOLS[0])
    g, _ = window(y.shape[1:3], (2, 2), stride=1, padding=1, dilation=1)
    w = target.array(normal(1, 3 * groups, 2, 2, channels, dtype=dtype))
    dy = target.array(normal(2, 2, g.OH, g.OW, 3 * groups, dtype=dtype))
    dx = gradients(conv2d, target, dy, y, w, g, groups, past=None)
    found = gradients(conv2d, target, dy, y, w, g, groups, past=past)
    assert found.any() and (found == unpooled(dx, past)).all()


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_on_tensor_cores(target, precision):
    if precision not in target.precisions:
        pytest.skip(f"{target} has no {precision} products")
    y, past = made(target, "float32", 3, 8, POOLS[0])
    x = y.reshape(3, -1)
    w, dy = (
        target.array(normal(seed, *shape, dtype="float32"))
        for seed, shape in enumerate([(700, x.shape[1]), (3, 700)])
    )
    with lowlevel.precision(precision):
        dx = gradients(dense, target, dy, x, w, past=None).reshape(y.shape)
        found = gradients(dense, target, dy, x, w, past=past)
    assert found.any() and (found == unpooled(dx, past)).all()
