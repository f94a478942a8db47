"""Calls that together execute each load and store of every kernel.

They include those of calls.py, which call every function once. `CALLS` has all of them, by name:
each is called with a target, on arrays of float32. Many counts are not divisible by four, since
compilers unroll loops by four and handle the rest on a path of its own.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

import kernels
from kernels import lowlevel
from kernels.common.cast import cast
from kernels.common.geometry import Pooling, window
from kernels.common.pending import PendingSums
from kernels.conv import conv2d, conv2d_pool, winograd
from kernels.conv.conv2d import forward_with_moments
from kernels.conv.im2col import with_padding
from kernels.gemm import dense, division
from kernels.gemm.gradients import Rectified
from kernels.loss.dense_loss import dense_cross_entropy
from kernels.norm import batchnorm_pool
from kernels.norm.fold import fold_norm
from kernels.runtime.arena import Arena
from kernels.runtime.elementwise import Table
from kernels.runtime.recording import Recording
from kernels.step import loss_scale
from kernels.step.batch import (
    Augmentation,
    Progress,
    count_batch,
    gather_batch,
)
from kernels.step.optimizers import adam_update, average_update, sgd_update
from tests.cases import elementwise as of_elements
from tests.cases import loss, norm
from tests.cases.case import Call
from tests.lib.calls import CALLS as FUNCTIONS
from tests.lib.calls import PLANNED, conv2d_pool_and_gradients, winograd_and_gradients
from tests.lib.support import normal

FLOAT = np.dtype(np.float32)


class Arrays:
    """Makes arrays of a target."""

    def __init__(self, target):
        self.target = target

    def normal(self, seed, *shape):
        return self.target.array(normal(seed, *shape, dtype=FLOAT))

    def full(self, shape, value, dtype=FLOAT):
        return self.target.array(np.full(shape, value, dtype))

    def integers(self, *values):
        return self.target.array(np.array(values, np.int64))


def small_pools(target):
    make = Arrays(target)
    odd = make.normal(7, 1, 5, 5, 5)
    for kernel in ((1, 2), (2, 2)):  # both, with and without a bias, on filters in a tail
        for bias in (None, odd[0, 0, 0].copy()):
            dy = make.full((1, 5 // kernel[0], 2, 5), 1)
            conv2d_pool_and_gradients(odd, make.full((5, 3, 3, 5), 1), bias, dy, kernel=kernel)
    dy = make.full((1, 2, 2, 4), 1)  # of channels in fours
    conv2d_pool_and_gradients(odd, make.full((4, 3, 3, 5), 1), None, dy)


def grey_images(target):
    """Of one channel: a thread's filters all, and some of them; with and without a bias, a pool."""
    make = Arrays(target)
    x = make.normal(0, 2, 6, 6, 1)
    g = window((6, 6), 3, stride=1, padding=1, dilation=1)[0]
    for F, bias in ((8, None), (9, make.full((9,), 1))):
        w = make.normal(1, F, 3, 3, 1)
        conv2d_pool.forward(x, w, bias, g, conv2d_pool.Pool(3, 3, 2, 2))
        forward_with_moments(x, w, bias, padding=1)
    if "float16" not in target.dtypes:
        return
    # On tensor cores: of whole pieces of filters, and of others; whole steps of pixels, and others.
    for H, W, F in ((6, 6, 8), (8, 8, 24), (6, 6, 9), (5, 6, 18)):
        arrays = make.normal(0, 2, H, W, 1), make.normal(1, F, 3, 3, 1)
        x, w = (cast(array, "float16") for array in arrays)
        bias = w[:, 0, 0, 0].copy()
        g = window((H, W), 3, stride=1, padding=1, dilation=1)[0]
        conv2d_pool.forward(x, w, bias, g, conv2d_pool.Pool(H // 2, W // 2, 2, 2))
        y, _ = forward_with_moments(x, w, bias, padding=1)
        kernels.conv2d_backward(y, x, w, padding=1, need_dx=False)
    many = cast(make.normal(0, 400, 6, 6, 1), "float16")  # several images for a block
    kernels.conv2d(many, w)


def sliced_products(target):
    """Arrays of 16 bits: few tiles, so that a block's warps have slices of a long k."""
    if "float16" not in target.dtypes:
        return
    make = Arrays(target)
    x = cast(make.normal(0, 1, 8, 8, 64), "float16")
    for filters in (64, 60, 61):  # rows of whole accesses of 16 bytes, of 8, and others
        sizes = division.Sizes(64, filters, 576)
        assert division.divide(target, x.dtype, sizes).tile.SLICES > 1
        w = cast(make.normal(1, filters, 3, 3, 64), "float16")
        forward_with_moments(x, w, None, padding=1)


def divided_products(target):
    """Few outputs and a long k, which blocks share: of channels in fours, and of others."""
    make = Arrays(target)
    for few, many in ((8, 512), (5, 515)):
        x, w = make.normal(0, 1, 4, 4, many), make.normal(1, few, 3, 3, many)
        kernels.conv2d(x, w, w[:, 0, 0, 0].copy(), padding=1, relu=True)
        kernels.conv2d(x, w, padding=1)
        w = make.normal(1, many, 3, 3, few)
        kernels.conv2d_backward(x, x[..., :few].copy(), w, padding=1)
        rows = make.normal(2, 3, few * many)
        weights = make.normal(3, few, few * many)
        kernels.dense(rows, weights)
        kernels.dense_backward(rows, rows[:, :few].copy(), weights.T.copy())
        dense_cross_entropy(rows, weights, None, make.integers(0, 1, 2), 0.0)


def many_outputs(target):
    """Gradients of biases in the last of a thread's micro-tiles."""
    make = Arrays(target)
    for inputs in (24, 30):
        x, w = make.normal(0, 3, inputs), make.normal(1, 71, inputs)
        kernels.dense_backward(make.normal(2, 3, 71), x, w)


def passed_gradients(target):
    """Gradients past a ReLU, or a pool with a ReLU: of channels in fours, and of others."""
    make = Arrays(target)
    for F in (4, 5):
        y = make.normal(0, 2, 2, 3, F)
        argmax = make.full(y.shape, 1, np.uint8)
        pooling = Pooling(5, 6, F, 2, 3, 2, 2)
        weights, filters = make.normal(1, 3, 6 * F), make.normal(2, 3, 1, 1, F)
        dy, of_pixels = make.normal(3, 2, 3), make.normal(4, 2, 2, 3, 3)
        g = window((2, 3), 1, stride=1, padding=0, dilation=1)[0]
        for past in (Rectified(y), Rectified(y, argmax, pooling)):
            arrays = (y.reshape(2, -1), weights, weights.copy(), None)
            dense.gradients(target, dy, *arrays, need_dx=True, past=past)
            arrays = (y, filters, filters.copy(), None)
            conv2d.gradients(target, of_pixels, *arrays, g, need_dx=True, past=past)


def padded_images(target):
    g = window((6, 5), 3, stride=1, padding=1, dilation=1)[0]
    with_padding(target, Arrays(target).normal(0, 2, 6, 5, 4), g)


def winograd_tiles(target):
    make = Arrays(target)
    for F in (1, 2, 7, 9):  # panels of one to three registers, and one of less than the others
        x, w = make.normal(0, 10, 6, 5, 7), make.normal(9, F, 3, 3, 7)
        dy = make.normal(8, 10, 6, 5, F)
        winograd_and_gradients(x, w, None, dy)  # two chunks of tiles
        tile = np.s_[:1, :2, :2]  # a single one
        winograd_and_gradients(x[tile].copy(), w, None, dy[tile].copy())


def kept_filters(target):
    """Fold and transform filters once, and find them unchanged in a replay."""
    make = Arrays(target)
    x, w, y = make.normal(0, 2, 6, 5, 4), make.normal(9, 9, 3, 3, 4), make.normal(8, 2, 6, 5, 9)
    g = window((6, 5), 3, stride=1, padding=1, dilation=1)[0]
    for bias_and_norm in ((None,), tuple(make.full((9,), 1) for _ in range(5))):
        inputs = [array for array in (x, w, y, *bias_and_norm) if array is not None]
        with Recording(Arena(target), inputs) as recording:
            folded, shift, changed = fold_norm(w, *bias_and_norm)
            with winograd.keeping(changed):
                winograd.forward(target, x, folded, shift, y, g, relu=False)
        recording.replay()


def norms(target):
    make = Arrays(target)
    channel = [make.full((4,), 1) for _ in range(4)]
    x = make.normal(0, 1103, 4)
    y = kernels.batch_norm(x, *channel, training=False, relu=True)[0]
    _, saved = kernels.batch_norm(x, *channel, training=True)
    kernels.batch_norm_backward(x, x, channel[0], saved)
    kernels.batch_norm_backward(x, x, channel[0], saved, relu=True, y=y)
    one = [make.full((1,), 1) for _ in range(4)]
    rows = make.full((257 * 128, 1), 1)  # more chunks than threads merge them
    kernels.batch_norm(rows, *one, training=True)
    x, channel = make.normal(0, 400 * 512, 8), [make.full((8,), 1) for _ in range(4)]
    y, saved = kernels.batch_norm(x, *channel, training=True)  # a thread has four rows, or chunks
    kernels.batch_norm_backward(y, x, channel[0], saved)


def fused_norms(target):
    make = Arrays(target)
    x, channel = make.normal(0, 1, 7, 7, 3), [make.full((3,), 1) for _ in range(6)]
    g = window(x.shape[1:3], 2, stride=2, padding=0, dilation=1)[0]
    for relu in (True, False):
        y, argmax, saved = batchnorm_pool.forward(
            x, *channel[:4], window=g, training=True, momentum=0.1, eps=1e-5, relu=relu
        )
        batchnorm_pool.backward(y, x, y, argmax, channel[0], saved, *channel[4:], g, relu)


def misaligned_norms(target):
    """Scales of layer norm at no multiple of 16 bytes, for rows of each way that begin far off."""
    make = Arrays(target)
    for columns in (75, 1027, 9003, 40003):
        x, gamma = make.normal(0, 3, columns), make.full((columns + 1,), 0.5)[1:]
        x[:, 0] = 1e4
        y, saved = kernels.layer_norm(x, gamma, gamma)
        kernels.layer_norm_backward(y, x, gamma, saved)


def long_rows(target):
    """Layer norm of rows in whole spans that no block keeps, and of four rows of a thread."""
    make = Arrays(target)
    for rows, columns in ((2, 40004), (128, 9000)):
        x, gamma = make.normal(0, rows, columns), make.full((columns,), 0.5)
        x[:, 0] = 1e4
        y, saved = kernels.layer_norm(x, gamma, gamma)
        kernels.layer_norm_backward(y, x, gamma, saved)


def losses(target):
    """Rows of a thread, of a warp, of a block that keeps them, and of one that reads them again."""
    make = Arrays(target)
    progress = Progress(make.integers(0, 0, 0), target.array(np.zeros(2)))
    for columns in (7, 43, 44, 2003, 2004, 40003, 40004):  # the last do not fill 16 bytes, or do
        logits, labels = make.normal(3, 5, columns), target.array(np.arange(5) - 2)
        misaligned = make.full((columns + 1,), 0.5)[1:]
        for weight in (None, make.full((columns,), 0.5), misaligned):
            options = {"weight": weight, "ignore_index": -2, "label_smoothing": 0.1}
            kernels.softmax_cross_entropy(logits, labels, reduction="sum", **options)
        kernels.softmax_cross_entropy(logits, labels, reduction="none", grad=False)
        kernels.softmax_backward(logits, kernels.softmax(logits))
        kernels.cross_entropy(logits, labels)
    for classes in (7, 8, 41, 44):
        x, w, b = make.normal(0, 5, 9), make.normal(1, classes, 9), make.normal(2, classes)
        for smoothing in (0.0, 0.1):
            labels = target.array(np.array([0, 1, -1, -100, 2]))
            dense_cross_entropy(x, w, b, labels, smoothing, progress)


def pools(target):
    x = Arrays(target).normal(0, 2, 6, 5, 4)
    kernels.avg_pool2d(x, 2, count_include_pad=False)
    y, argmax = kernels.max_pool2d(x, 2)  # windows apart, and a column in none
    kernels.max_pool2d_backward(y, argmax, x.shape, 2)
    below = {"padding": ((0, 1), (0, 0))}  # the same, and windows that are not inside
    y, argmax = kernels.max_pool2d(x[:, :5].copy(), 2, **below)
    kernels.max_pool2d_backward(y, argmax, (2, 5, 5, 4), 2, **below)
    for padded in (True, False):
        options = {"ceil_mode": True, "count_include_pad": padded}
        kernels.avg_pool2d_backward(kernels.avg_pool2d(x, 2, **options), x.shape, 2, **options)
    kernels.avg_pool2d_backward(y, x.shape, 2)
    y, argmax = kernels.max_pool2d(x, 2, stride=1, dilation=2)  # holes between taps
    kernels.max_pool2d_backward(y, argmax, x.shape, 2, stride=1, dilation=2)


def elementwise(target):
    for shift in (0, 1):  # aligned to 16 bytes, with elements past the last 16; and not aligned
        expressions(target, shift)


def expressions(target, shift):
    """In a recording, which optimizers with tables of scalars need."""
    make = Arrays(target)
    images = make.full((19 + shift,), 1, np.uint8)[shift:]
    flat, grad, m, v, average = (make.normal(i, 303 + shift)[shift:] for i in range(5))
    step, state = make.integers(0), loss_scale.new_state(target, FLOAT)
    tables = {columns: Table(make.full((1, columns), 0.5), step) for columns in (1, 2, 4, 9)}
    rows = [table.rows for table in tables.values()]
    partial = make.normal(9, 11, 100)
    inputs = [flat, grad, m, v, average, state, images, partial, *rows]

    def sums(scalars, gradients):
        pending = PendingSums(target, gradients)
        assert pending.takes(partial, [gradients[100:200]])
        return {"pending": pending} if isinstance(scalars, Table) else {}

    with Recording(Arena(target), inputs, step):
        kernels.relu_backward(grad, kernels.relu(flat))
        kernels.normalize(images, mean=9, std=5)
        for update, columns, arrays in (
            (sgd_update, 2, (None,)),
            (sgd_update, 4, (m,)),
            (adam_update, 9, (m, v)),
        ):
            for scalars in (tables[columns], (1,) * columns):
                options = sums(scalars, grad)
                update(scalars, flat, grad, *arrays, **options)
                unscale = loss_scale.update(grad, state, interval=1)
                update(scalars, flat, grad, *arrays, unscale, **options)
                if "float16" in target.dtypes:
                    narrow, copy = (cast(array, "float16") for array in (grad, flat))
                    options = sums(scalars, narrow)
                    update(scalars, flat, narrow, *arrays, copy=copy, **options)
                    update(scalars, flat, narrow, *arrays, unscale, copy, **options)
        for scalars in (tables[1], (1,)):
            average_update(scalars, average, flat)
        loss_scale.scale_gradient(grad, state)
        target.zeros((5,), FLOAT)
        kernels.dropout(flat, 0.5, seed=1)


def overflows(target):
    make = Arrays(target)
    state = loss_scale.new_state(target, FLOAT)
    for value in (1, np.inf):  # a step, and one left out
        grad = make.full((300,), value)
        loss_scale.scale_gradient(grad, state)
        loss_scale.update(grad, state, interval=1)


def batches(target):
    """What only the steps of a training do."""
    make = Arrays(target)
    counters, totals = make.integers(0, 0, 0), target.array(np.zeros(2))
    images, labels = make.full((3, 13, 3, 1), 1, np.uint8), make.integers(7, 18, 38)
    order = make.integers(2, 0, 1)
    for augmentation in (None, Augmentation(9, 1, 0.1, 1, 1)):
        data = (target, images, labels, order, counters, images.shape, FLOAT)
        x, chosen = gather_batch(*data, 0.5, 2.0, augmentation)
    large = make.full((3, 120, 120, 1), 1, np.uint8)  # it does not fit into shared memory
    kernels.affine_warp(large, make.full((3, 2, 3), 0.5))
    gather_batch(
        *(target, large, labels, order, counters, large.shape, FLOAT),
        *(0.5, 2.0, Augmentation(9, 1, 0.1, 1, 1)),
    )
    outputs, progress = x.reshape(3, -1), Progress(counters, totals)
    count_batch(target, make.full((), 1), outputs, chosen, progress)


def products(target):
    """What is compiled anew for every precision."""
    divided_products(target)
    many_outputs(target)
    passed_gradients(target)
    for name in ("conv2d", "conv2d_backward", "dense", "dense_backward"):
        FUNCTIONS[name](FUNCTIONS[name].arguments(target, FLOAT))
    make = Arrays(target)
    # k is divided, and several warps of a block have outputs.
    x, w, b = make.normal(0, 5, 9), make.normal(1, 40, 9), make.normal(2, 40)
    dense_cross_entropy(x, w, b, target.array(np.array([0, 1, -1, -100, 2])), 0.1)
    for outputs in (100, 99):  # the last four of a row whole, or not
        x, w = make.normal(0, 100, 256), make.normal(1, outputs, 256)
        kernels.dense(x, w)
        kernels.dense_backward(x, make.normal(2, 100, outputs), make.normal(3, 256, outputs))
    x, w, dy = make.normal(0, 2, 6, 5, 4), make.normal(1, 6, 3, 3, 2), make.normal(2, 2, 6, 5, 6)
    grouped = {"padding": 1, "groups": 2}  # im2col runs of one tap, not of a row of taps
    kernels.conv2d(x, w, **grouped, relu=True)
    forward_with_moments(x, w, None, **grouped)
    kernels.conv2d_backward(dy, x, w, **grouped)
    kernels.conv2d(x[..., :2], w, dilation=2)  # and of taps apart
    grey, filters = x[..., :1], w[..., :1]  # one channel, in runs of neighbours and with a stride
    for options in ({"padding": 1}, {"padding": 1, "stride": 2}):
        y = kernels.conv2d(grey, filters, w[:, 0, 0, 0], **options)
        kernels.conv2d_backward(y, grey, filters, **options)
    x, w = make.normal(3, 3, 5, 3, 5), make.normal(4, 5, 3, 3, 5)
    kernels.conv2d_backward(kernels.conv2d(x, w, stride=2), x, w, stride=2)
    for kernel, dilation, pool in (((3, 3), 1, (1, 2)), ((3, 1), 1, (2, 2)), ((2, 2), 2, (4, 1))):
        geometry, _ = window((5, 3), kernel, stride=1, padding=1, dilation=dilation)
        windows = conv2d_pool.Pool(geometry.OH // pool[0], geometry.OW // pool[1], *pool)
        filters = w[:, : kernel[0], : kernel[1]].copy()
        for bias in (None, w[:, 0, 0, 0].copy()):
            conv2d_pool.forward(x, filters, bias, geometry, windows)
        filters = make.normal(4, 8, *kernel, 5)  # two quads, side by side in a lane
        conv2d_pool.forward(x, filters, None, geometry, windows)
    PLANNED["dense_cross_entropy"](PLANNED["dense_cross_entropy"].arguments(target, FLOAT))
    labels = make.integers(0, 9, -100)  # one that is no class, and one that is ignored
    few, progress = x[:, 0, 0].copy(), Progress(make.integers(0, 0, 0), target.array(np.zeros(2)))
    dense_cross_entropy(few, w[:, 0, 0].copy(), None, labels, 0.0, progress)
    few, weights = make.normal(3, 3, 2000), make.normal(4, 5, 2000)
    kernels.dense(few, weights, relu=True)  # rows that do not fill a micro-tile
    kernels.dense_backward(few[:, :5].copy(), few, weights)


def _of_function(call: Call) -> Callable[[Any], None]:
    def on(target: Any) -> None:
        call(call.arguments(target, FLOAT))

    return on


def _in_precision(name: str) -> Callable[[Any], None]:
    def on(target: Any) -> None:
        with lowlevel.precision(name):
            products(target)

    return on


OTHERS = (
    *(small_pools, grey_images, padded_images, winograd_tiles, kept_filters, norms, fused_norms),
    *(misaligned_norms, long_rows, losses, pools, elementwise, overflows, batches),
    sliced_products,
)
CALLS = {name: _of_function(call) for name, call in (FUNCTIONS | PLANNED).items()}
# Others have paths for windows and tiles: another tile is another kernel.
CALLS |= {
    f"{case.name}: {why}": _of_function(case.call(sizes))
    for family in (of_elements, loss, norm)
    for case in family.CASES
    for why, sizes in case.sizes.items()
}
CALLS |= {other.__name__: other for other in OTHERS}
CALLS |= {f"products in {name}": _in_precision(name) for name in ("fp32", "tf32", "bf16", "fp16")}
