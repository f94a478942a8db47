"""Kernels limited by memory move each byte once, and give work to all multiprocessors.

What a launch moves is counted in sectors of 32 bytes, also of those that L1 may hold, and compared
with the distinct bytes that it touches. The counters are exact: every run gives the same figures.
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
import pytest

import kernels
from kernels import lowlevel
from kernels.common.geometry import window
from kernels.common.reduce import column_sum
from kernels.gemm import division
from kernels.gemm.tiles import FMA, MMA, MMA_16, Body
from kernels.norm import batchnorm_pool
from kernels.norm.fold import fold_norm
from kernels.runtime import cuda_target

from . import device

BYTES = 2**22  # in an array: 2**20 float32 numbers
MULTIPROCESSORS = 132  # of the largest GPU that is emulated
MOST = 1.15  # bytes moved / distinct bytes
LOSSES = ("softmax", "softmax_backward", "softmax_cross_entropy", "cross_entropy")

#: Calls whose launches read some bytes again, from L1: their `MOST`.
AGAIN = {
    "batch_norm_pool": 1.2,  # a thread reads a channel's four numbers, perhaps for one window
    "fold_norm": 1.8,  # reads changed filters twice, and a filter's norm in each warp
    "column_sum of 3": 1.25,  # rows begin inside a sector, and so may a warp's share
    # 3 x 3 windows, 2 apart, cover a pixel 9 / 4 times; taps outside load pixels of the border.
    "overlapping max_pool2d": 2.0,
    "im2col": 1.6,  # reads each pixel for 9 windows, but writes it as often
    "augment": 2.8,  # each warp reads six numbers of a map; rows begin inside a sector
    # Rows begin inside a sector, and so do a warp's columns.
    **dict.fromkeys((f"{name} of odd rows" for name in LOSSES), 1.3),
    # Each row reads itself again, and gamma (forward, beta too), from L2.
    "layer_norm of long rows": 3.1,
    "layer_norm_backward of long rows": 2.4,
}
#: The same with 16 bits: statistics are float32; rows and pixels begin inside a sector more often.
AGAIN_NARROW = {
    **AGAIN,
    **dict.fromkeys(("batch_norm", "batch_norm_backward"), 1.35),
    **dict.fromkeys(("batch_norm_pool", "batch_norm_pool_backward"), 1.5),
    "column_sum of 3": 1.5,
    **dict.fromkeys((f"{name} of odd rows" for name in LOSSES), 1.6),
}
#: Kernels with one result, or with few rows, which other launches wrote.
SMALL = {"batch_norm_merge", "batch_norm_gradient_sums", "sum_chunks", "loss_divisor", "sum_losses"}


@dataclass(frozen=True)
class Arrays:
    """Arrays of a dtype on the device."""

    target: object
    dtype: np.dtype

    def normal(self, *shape):
        values = np.random.default_rng(0).standard_normal(shape, np.float32)
        return self.target.array(values.astype(self.dtype))

    def images(self, C):
        return self.normal(BYTES // (self.dtype.itemsize * 16 * 16 * C), 16, 16, C)

    def channels(self, count, C):
        return [abs(self.normal(C)) for _ in range(count)]


def batch_norm(make, C):
    x, (gamma, *others) = make.images(C), make.channels(4, C)
    options = {"training": True, "relu": True}
    y, saved = kernels.batch_norm(x, gamma, *others, **options)
    yield "batch_norm", lambda: kernels.batch_norm(x, gamma, *others, **options)
    dy, gradient = x.copy(), {"relu": True, "y": y}
    yield (
        "batch_norm_backward",
        lambda: kernels.batch_norm_backward(dy, x, gamma, saved, **gradient),
    )


def batch_norm_pool(make, C):
    x, channels = make.images(C), make.channels(4, C)
    g, _ = window(x.shape[1:3], 2, stride=2, padding=0, dilation=1)
    options = {"window": g, "training": True, "momentum": 0.1, "eps": 1e-5, "relu": True}
    y, argmax, saved = batchnorm_pool.forward(x, *channels, **options)
    sums = make.channels(2, C)
    yield "batch_norm_pool", lambda: batchnorm_pool.forward(x, *channels, **options)
    arguments = (y.copy(), x, y, argmax, channels[0], saved, *sums, g, True)
    yield "batch_norm_pool_backward", lambda: batchnorm_pool.backward(*arguments)


def pools(make, C):
    x = make.images(C)
    y, argmax = kernels.max_pool2d(x, 2)
    yield "max_pool2d", lambda: kernels.max_pool2d(x, 2)
    yield "max_pool2d_backward", lambda: kernels.max_pool2d_backward(y, argmax, x.shape, 2)
    yield "avg_pool2d", lambda: kernels.avg_pool2d(x, 2)
    yield "avg_pool2d_backward", lambda: kernels.avg_pool2d_backward(y, x.shape, 2)
    mean = kernels.global_avg_pool2d(x)
    yield "global_avg_pool2d", lambda: kernels.global_avg_pool2d(x)
    yield "global_avg_pool2d_backward", lambda: kernels.global_avg_pool2d_backward(mean, x.shape)
    options = {"stride": 2, "padding": 1}
    yield "overlapping max_pool2d", lambda: kernels.max_pool2d(x, 3, **options)


def sums(make, C):
    x = make.images(C).reshape(-1, C)
    y = make.target.empty((C,), x.dtype)
    name = "column_sum of 3" if C == 3 else "column_sum"
    yield name, lambda: column_sum(make.target, x, y)


def columns(make, C):
    x = make.images(C)[::4].copy()
    cols = kernels.im2col(x, 3, padding=1)
    yield "im2col", lambda: kernels.im2col(x, 3, padding=1)
    yield "col2im", lambda: kernels.col2im(cols, x.shape, 3, padding=1)


def elements(make, _):
    x = make.images(16)
    y, mask = kernels.dropout(x, 0.5, seed=1)
    yield "relu", lambda: kernels.relu(x)
    yield "relu_backward", lambda: kernels.relu_backward(x, y)
    yield "dropout", lambda: kernels.dropout(x, 0.5, seed=1)
    yield "dropout_backward", lambda: kernels.dropout_backward(x, mask, 0.5)


def losses(make, C):
    rows = BYTES // (make.dtype.itemsize * C)
    x, labels = make.normal(rows, C), make.target.array(np.arange(rows) % C)
    y = kernels.softmax(x)
    calls = (
        lambda: kernels.softmax(x),
        lambda: kernels.softmax_backward(x, y),
        lambda: kernels.softmax_cross_entropy(x, labels),
        lambda: kernels.cross_entropy(y, labels),
    )
    for name, call in zip(LOSSES, calls, strict=True):
        yield name if C % 2 == 0 else f"{name} of odd rows", call


def long_rows(make, C):
    x, dy, (gamma, beta) = make.normal(8, C), make.normal(8, C), make.channels(2, C)
    _, saved = kernels.layer_norm(x, gamma, beta)
    yield "layer_norm of long rows", lambda: kernels.layer_norm(x, gamma, beta)
    yield (
        "layer_norm_backward of long rows",
        lambda: kernels.layer_norm_backward(dy, x, gamma, saved),
    )


def digits(make, _):
    images = make.target.array(np.ones((512, 28, 28), np.uint8))
    yield "augment", lambda: kernels.augment(images, rotate=9, shift=1, zoom=0.1, seed=1)


def filters(make, C):
    w, channels = make.normal(256, 3, 3, C), make.channels(5, 256)
    yield "fold_norm", lambda: fold_norm(w, *channels)


# C: multiples of a vector, of a part of one, and of nothing.
CASES = [
    *((batch_norm, C) for C in (16, 64)),
    *((batch_norm_pool, C) for C in (16, 24)),
    *((pools, C) for C in (16, 32)),
    *((sums, C) for C in (3, 24, 64)),
    *((columns, C) for C in (16,)),
    *((losses, C) for C in (10, 32, 1000, 1001)),
    (long_rows, 40_000),
    (elements, 16),
    (digits, 1),
    (filters, 64),
]


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("family", "C"), CASES, ids=[f"{family.__name__}-{C}" for family, C in CASES]
)
def test_bytes_are_moved_once(emulated, family, C, kind):
    dtype = np.dtype(ml_dtypes.bfloat16 if kind == "bfloat16" else kind)
    for name, call in family(Arrays(cuda_target(), dtype), C):
        with device.counting() as counted:
            call()
        for launch in counted["launches"]:
            check(name, launch, AGAIN if kind == "float32" else AGAIN_NARROW)


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_products_store_whole_sectors(emulated, kind):
    make = Arrays(cuda_target(), np.dtype(ml_dtypes.bfloat16 if kind == "bfloat16" else kind))
    images, filters = make.normal(4, 14, 14, 64), make.normal(64, 3, 3, 64)
    rows, weights = make.normal(128, 256), make.normal(64, 256)
    with device.counting() as counted:
        kernels.conv2d(images, filters, padding=1)
        kernels.conv2d_backward(images, images, filters, padding=1)
        kernels.dense(rows, weights)
        kernels.dense_backward(make.normal(128, 64), rows, weights)
    for launch in counted["launches"]:
        figures = launch["all"]
        moved = 32 * figures["global_store_sectors"]
        assert moved <= 1.05 * figures["global_store_bytes"], launch["kernel"]


def check(name, launch, again):
    kernel, figures, touched = launch["kernel"], launch["all"], launch["bytes"]
    blocks = np.prod(launch["grid"])
    moved = 32 * (figures["global_load_sectors"] + figures["global_store_sectors"])
    distinct = touched["read"] + touched["written"]
    if kernel.startswith("cupy_") or distinct < 2**14:
        return  # CuPy's kernel, or one that takes no time
    most = again.get(name, MOST) if kernel not in SMALL else 1.2
    assert moved <= most * distinct, (name, kernel, moved / distinct)
    used = figures["global_load_bytes"] + figures["global_store_bytes"]
    # relu_backward skips half of dy.
    assert name in again or used >= 0.75 * moved, (name, kernel, used / moved)
    if kernel not in SMALL and distinct >= BYTES:
        assert blocks >= MULTIPROCESSORS, (name, kernel, blocks)


@pytest.mark.slow  # compiles every tile twice
@pytest.mark.parametrize("kind, body", [("float32", FMA), ("float32", MMA), ("bfloat16", MMA_16)])
def test_no_tile_has_bank_conflicts(emulated, monkeypatch, kind, body):
    make = Arrays(cuda_target(), np.dtype(ml_dtypes.bfloat16 if kind == "bfloat16" else kind))
    x, w, dy = make.normal(200, 288), make.normal(96, 288), make.normal(200, 96)
    precision = "bf16" if body is MMA else "fp32"
    for tile in body.tiles:
        only = Body((tile,), body.pipe, body.size)
        monkeypatch.setattr(division, "_body", lambda *_, only=only: only)
        with device.counting() as counted, lowlevel.precision(precision):
            kernels.dense(x, w)
            kernels.dense_backward(dy, x, w)
        conflicts = [launch["all"]["shared_conflicts"] for launch in counted["launches"]]
        assert not any(conflicts), (tile, conflicts)
