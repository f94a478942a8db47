"""Every load and store of every shipped kernel is executed by the tests, on `simt`.

So every loader, epilogue and fast path is taken: what a path reads or writes is an instruction, and
each that the compiler made is looked for among those that ran.
"""

import re
import subprocess

import numpy as np
import pytest

import kernels
from calls import CALLS, PLANNED, conv2d_pool_and_gradients, winograd_and_gradients
from kernels import batchnorm_pool, conv2d_pool, gemm, loss_scale, winograd
from kernels.batch import Augmentation, Progress, advance, count_batch, count_losses, gather_batch
from kernels.conv2d import forward_with_moments, with_padding
from kernels.dense_loss import dense_cross_entropy
from kernels.elementwise import adam_update, average_update, sgd_update
from kernels.fold import fold_norm
from kernels.geometry import window
from kernels.runtime import numpy_arrays_on
from kernels.runtime.elementwise import Table
from kernels.runtime.memory import Arena
from kernels.runtime.recording import Recording
from kernels.runtime.simt import SimtTarget
from kernels.runtime.source import Source
from kernels.runtime.targets import numpy_target
from support import normal

FLOAT = np.dtype(np.float32)


@pytest.fixture(scope="module")
def target():
    target = SimtTarget()
    target.visited = {}
    with numpy_arrays_on(target):
        for call in (CALLS | PLANNED).values():
            call(call.arguments(target, FLOAT))
        take_the_other_paths()
        for precision in target.precisions:
            with gemm.precision(precision):
                take_the_paths_of_products(target)
    return target


def take_the_other_paths():
    """What one call of every function leaves out."""
    x = normal(0, 2, 6, 5, 4).astype(FLOAT)
    odd = normal(7, 1, 5, 5, 5).astype(FLOAT)
    for kernel in ((1, 2), (2, 2)):  # both, with and without a bias, on filters in a tail
        for bias in (None, odd[0, 0, 0]):
            shape = (1, 5 // kernel[0], 2, 5)
            conv2d_pool_and_gradients(
                odd, np.ones((5, 3, 3, 5), FLOAT), bias, np.ones(shape, FLOAT), kernel=kernel
            )
    with_padding(numpy_target(), x, window((6, 5), 3, stride=1, padding=1, dilation=1)[0])
    for F in (1, 2, 7, 9):  # panels of one to three registers, and one of less than the others
        dy, w = normal(8, 10, 6, 5, F).astype(FLOAT), normal(9, F, 3, 3, 4).astype(FLOAT)
        winograd_and_gradients(np.concatenate([x] * 5), w, None, dy)  # two chunks of tiles
        tile = np.s_[:1, :2, :2]  # a single one
        winograd_and_gradients(x[tile].copy(), w, None, dy[tile].copy())
    keep_filters(x, w, dy[:2].copy())
    channel = np.ones((4, 4), FLOAT)
    kernels.batch_norm(x, *channel, training=False, relu=True)
    rows = np.ones((257 * 128, 1), FLOAT)  # more chunks than threads merge them
    kernels.batch_norm(rows, *channel[:, :1].copy(), training=True)
    logits, labels = normal(3, 40, 2000).astype(FLOAT), np.arange(40) - 2
    kernels.softmax_cross_entropy(logits, labels, reduction="sum", ignore_index=-2)
    kernels.softmax_cross_entropy(logits, labels, reduction="none", grad=False)
    kernels.cross_entropy(kernels.softmax(logits), labels)
    kernels.avg_pool2d(x, 2, count_include_pad=False)
    y, argmax = kernels.max_pool2d(x, 2)  # windows apart, and a column in none
    kernels.max_pool2d_backward(y, argmax, x.shape, 2)
    for padded in (True, False):
        options = {"ceil_mode": True, "count_include_pad": padded}
        kernels.avg_pool2d_backward(kernels.avg_pool2d(x, 2, **options), x.shape, 2, **options)
    kernels.avg_pool2d_backward(y, x.shape, 2)
    y, argmax = kernels.max_pool2d(x, 2, stride=1, dilation=2)  # holes between taps
    kernels.max_pool2d_backward(y, argmax, x.shape, 2, stride=1, dilation=2)
    param, grad = normal(5, 300).astype(FLOAT), normal(6, 300).astype(FLOAT)
    kernels.sgd_step(param, grad, lr=0.1)
    kernels.augment(x, rotate=5, seed=1)
    take_a_planned_step()


def keep_filters(x, w, y):
    """Fold and transform filters once, and find them unchanged in a replay."""
    target, g = numpy_target(), window(x.shape[1:3], 3, stride=1, padding=1, dilation=1)[0]
    for bias_and_norm in ((None,), np.ones((5, len(w)), FLOAT)):
        inputs = [array for array in (x, w, y, *bias_and_norm) if array is not None]
        with Recording(Arena(target), inputs) as recording:
            folded, shift, changed = fold_norm(w, *bias_and_norm)
            with winograd.keeping(changed):
                winograd.forward(x, folded, shift, y, g, relu=False, target=target)
        recording.replay()


def take_a_planned_step():
    """What only the steps of a training do."""
    take_a_fused_batch_norm()
    target, counters, totals = numpy_target(), np.zeros(3, np.int64), np.zeros(2)
    images, labels = np.ones((3, 5, 4, 2), np.uint8), np.arange(3)
    for augmentation in (None, Augmentation(9, 1, 0.1, 1, 1)):
        data = (target, images, labels, labels, counters, images.shape, FLOAT)
        x, chosen = gather_batch(*data, 0.5, 2.0, augmentation)
    outputs = x.reshape(3, -1)
    count_batch(target, np.ones((), FLOAT), outputs, chosen, Progress(counters, totals))
    count_losses(target, np.ones(3, FLOAT), outputs, chosen, Progress(counters, totals))
    advance(target, FLOAT, 3, Progress(counters, totals))
    flat = outputs.ravel()
    step = counters[:1] * 0
    for update, columns, arrays in (
        (sgd_update, 2, (None,)),
        (sgd_update, 4, (flat * 0,)),
        (adam_update, 9, (flat * 0, flat * 0)),
    ):
        table = Table(np.full((1, columns), 0.5, FLOAT), step)
        update(table, flat, flat + 1, *arrays)
        state = loss_scale.new_state(target, FLOAT)
        for value in (1, np.inf):  # a step, and one left out
            grad = np.full_like(flat, value)
            loss_scale.scale_gradient(grad, state)
            unscale = loss_scale.update(grad, state, interval=1)
            for scalars in (table, (1,) * columns):
                update(scalars, flat, grad, *arrays, unscale)
    average_update((0.5,), flat * 0, flat)
    average_update(Table(np.full((1, 1), 0.5, FLOAT), step), flat * 0, flat)
    with Recording(Arena(target), [x], counters):
        target.zeros((5,), FLOAT)
        kernels.dropout(x, 0.5, seed=1)


def take_the_paths_of_products(target):
    """What is compiled anew for every precision."""
    for name in ("conv2d", "conv2d_backward", "dense", "dense_backward"):
        CALLS[name](CALLS[name].arguments(target, FLOAT))
    x, w, dy = normal(0, 2, 6, 5, 4), normal(1, 6, 3, 3, 2), normal(2, 2, 6, 5, 6)
    x, w, dy = x.astype(FLOAT), w.astype(FLOAT), dy.astype(FLOAT)
    grouped = {"padding": 1, "groups": 2}  # im2col runs of one tap, not of a row of taps
    kernels.conv2d(x, w, **grouped, relu=True)
    forward_with_moments(x, w, None, **grouped)
    kernels.conv2d_backward(dy, x, w, **grouped)
    kernels.conv2d(x[..., :2], w, dilation=2)  # and of taps apart
    grey, filters = x[..., :1], w[..., :1]  # one channel, in runs of neighbours and with a stride
    for options in ({"padding": 1}, {"padding": 1, "stride": 2}):
        y = kernels.conv2d(grey, filters, w[:, 0, 0, 0], **options)
        kernels.conv2d_backward(y, grey, filters, **options)
    x, w = normal(3, 3, 5, 3, 5).astype(FLOAT), normal(4, 5, 3, 3, 5).astype(FLOAT)
    kernels.conv2d_backward(kernels.conv2d(x, w, stride=2), x, w, stride=2)
    for kernel, dilation, pool in (((3, 3), 1, (1, 2)), ((3, 1), 1, (2, 2)), ((2, 2), 2, (4, 1))):
        geometry, _ = window((5, 3), kernel, stride=1, padding=1, dilation=dilation)
        windows = conv2d_pool.Pool(geometry.OH // pool[0], geometry.OW // pool[1], *pool)
        filters = w[:, : kernel[0], : kernel[1]].copy()
        for bias in (None, w[:, 0, 0, 0].copy()):
            conv2d_pool.forward(x, filters, bias, geometry, windows)
    PLANNED["dense_cross_entropy"](PLANNED["dense_cross_entropy"].arguments(target, FLOAT))
    labels = np.array([0, 9, -100])  # one that is no class, and one that is ignored
    dense_cross_entropy(x[:3, 0, 0], w[:, 0, 0], None, labels, 0.0)
    few, weights = normal(3, 3, 2000).astype(FLOAT), normal(4, 5, 2000).astype(FLOAT)
    kernels.dense(few, weights, relu=True)  # rows that do not fill a micro-tile
    kernels.dense_backward(few[:, :5], few, weights)


def take_a_fused_batch_norm():
    x, channel = normal(0, 2, 5, 5, 3).astype(FLOAT), np.ones((6, 3), FLOAT)
    g = window(x.shape[1:3], 2, stride=2, padding=0, dilation=1)[0]
    for relu in (True, False):
        y, argmax, saved = batchnorm_pool.forward(
            x, *channel[:4], window=g, training=True, momentum=0.1, eps=1e-5, relu=relu
        )
        batchnorm_pool.backward(y, x, y, argmax, channel[0], saved, *channel[4:], g, relu)


def call_sites(library):
    """Return the return addresses of all checked loads and stores in a library, by disassembly."""
    command = ["objdump", "--disassemble", "--no-show-raw-insn", str(library)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = re.findall(r"^\s*([0-9a-f]+):\s+(.*)$", text, re.MULTILINE)
    return [
        int(after, 16)
        for (_, instruction), (after, _) in zip(lines, lines[1:], strict=False)
        if re.search(r"call.*<__tsan_\w*(read|write)", instruction)
    ]


def source_lines(library, addresses):
    command = ["addr2line", "-e", str(library), *(hex(address - 1) for address in addresses)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return sorted({line.split(" ")[0] for line in done.stdout.splitlines()})


def test_every_load_and_store_is_executed(target):
    assert len(target.visited) >= len(Source.all)
    missed = []
    for library, marks in target.visited.items():
        sites = call_sites(library)
        assert sites, f"{library} has no checked access: is it compiled as it should be?"
        never = [site for site in sites if not marks[site]]
        if never:
            missed += source_lines(library, never)
    assert missed == [], "\n".join(missed)


def test_a_path_not_taken_is_noticed():
    target = SimtTarget()
    target.visited = {}
    with numpy_arrays_on(target):
        kernels.softmax(np.zeros((2, 3), FLOAT))
    [(library, marks)] = target.visited.items()
    assert any(not marks[site] for site in call_sites(library))
