"""The last dense layer and its loss in one: what the two make apart, to the bit."""

import numpy as np
import pytest

import kernels
from kernels import lowlevel
from kernels.common.reduce import accumulator
from kernels.loss.dense_loss import dense_cross_entropy, fits
from kernels.step.batch import Progress, count_batch
from tests.lib import reference
from tests.lib.comparison import assert_close
from tests.lib.support import RTOL, host, normal, unit_roundoff

INF = np.inf


# Compared to the bit with a dense layer and a loss, which may divide k.
pytestmark = pytest.mark.usefixtures("undivided")


def check(target, x, w, b, labels, smoothing=0.0):
    """Compare with the functions apart and with the oracle; return losses and dlogits."""
    x, w, b, labels = (None if a is None else target.array(a) for a in (x, w, b, labels))
    logits, losses, dlogits = dense_cross_entropy(x, w, b, labels, smoothing)
    apart = kernels.dense(x, w, b)
    options = {"label_smoothing": smoothing}
    _, gradient = kernels.softmax_cross_entropy(apart, labels, **options)
    row_losses, _ = kernels.softmax_cross_entropy(apart, labels, reduction="none", **options)
    # Row losses are kept in the type of sums; apart they are rounded to x's.
    assert losses.dtype == accumulator(x.dtype)
    for found, expected in (
        (logits, apart),
        (losses.astype(x.dtype), row_losses),
        (dlogits, gradient),
    ):
        assert found.dtype == expected.dtype == x.dtype
        assert host(found).tobytes() == host(expected).tobytes()
    arrays = host(logits), host(labels)
    _, gradient = reference.softmax_cross_entropy(*arrays, **options)
    row_losses, _ = reference.softmax_cross_entropy(*arrays, reduction="none", **options)
    rtol = RTOL[x.dtype.name]
    weights = host(w).T, None if b is None else host(b)
    assert_close(logits, reference.dense(host(x), *weights), rtol=rtol)
    assert_close(losses, row_losses, rtol=RTOL[losses.dtype.name])
    assert_close(dlogits, gradient, rtol=rtol)
    return host(losses), host(dlogits)


def of_logits(target, row, labels, dtype, smoothing=0.0):
    """Return losses and gradients where the logits of every row are these: the bias alone."""
    x, w = np.empty((len(labels), 0), dtype), np.empty((len(row), 0), dtype)
    return check(target, x, w, np.array(row, dtype), np.array(labels), smoothing)


# A block has 64 rows on cuda, about 256 on cpu, and a thread there eight of them.
@pytest.mark.parametrize(
    ("rows", "inputs", "classes"),
    [
        (1, 1, 1),  # one row, one class
        (1, 70, 10),  # batch 1: dot products on cpu
        (9, 33, 3),  # a tail of one
        (64, 16, 64),  # a whole tile on cuda
        (65, 17, 63),  # one row more; two columns a lane but one
        (129, 5, 33),  # one class more than lanes
        (513, 40, 10),  # several blocks everywhere
    ],
)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_equals_the_layers_apart(target, dtype, rows, inputs, classes, smoothing):
    # Weights so small that a loss is no small difference of large logits.
    x, w = normal(0, rows, inputs, dtype=dtype), (0.2 * normal(1, classes, inputs)).astype(dtype)
    labels = np.random.default_rng(2).integers(classes, size=rows)
    check(target, x, w, normal(3, classes, dtype=dtype), labels, smoothing)
    check(target, x, w, None, labels, smoothing)


def test_as_many_classes_as_fit(target, dtype):
    classes = next(number for number in range(1, 1000) if not fits(target, number + 1))
    assert fits(target, 10) and not fits(target, 0)
    x, w = normal(0, 70, 9, dtype=dtype), normal(1, classes, 9, dtype=dtype)
    check(target, x, w, None, np.arange(70) % classes, 0.1)


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_the_fastest_tile_leaves_shared_memory_for_rows(cuda, kind, monkeypatch):
    monkeypatch.setattr(cuda, "multiprocessors", 1)  # then the fastest tile is chosen
    x, w = normal(0, 384, 41, dtype=kind), normal(1, 50, 41, dtype=kind)
    check(cuda, x, w, None, np.arange(384) % 50)


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
def test_rounded_products_are_those_of_the_layer(cuda, precision):
    x, w, b = normal(0, 130, 40, dtype="f4"), normal(1, 50, 40, dtype="f4"), normal(2, 50)
    labels = np.arange(130) % 50
    on = [cuda.array(array) for array in (x, w, b.astype("f4"), labels)]
    with lowlevel.precision(precision):
        found = dense_cross_entropy(*on, 0.1)
        apart = kernels.dense(*on[:3])
        _, gradient = kernels.softmax_cross_entropy(apart, on[3], label_smoothing=0.1)
    logits, losses, dlogits = map(host, found)
    assert logits.tobytes() == host(apart).tobytes()
    assert dlogits.tobytes() == host(gradient).tobytes()
    expected, _ = reference.softmax_cross_entropy(
        logits, labels, label_smoothing=0.1, reduction="none"
    )
    assert_close(losses, expected, rtol=RTOL["float32"])
    exact = reference.dense(x, w.T, b)
    assert 1e-5 < abs(logits - exact).max() < 0.3  # operands were rounded


def test_extreme_logits_give_finite_gradients(target, dtype):
    large = float(dtype.type(1e4))  # not every type has 1e4 itself
    losses, dlogits = of_logits(target, [large, -large, 0], [0, 1, 2], dtype)
    assert losses.tolist() == [0, 2 * large, large] and np.isfinite(dlogits).all()
    losses, dlogits = of_logits(target, [-INF, 0, 1], [2, 1, 0], dtype)
    assert np.isfinite(losses[:2]).all() and losses[2] == INF and np.isfinite(dlogits).all()
    losses, _ = of_logits(target, [-INF, 0, 1], [2], dtype, smoothing=0.1)
    assert losses[0] == INF  # the impossible class has a share of the target


@pytest.mark.parametrize("label", [-1, 3, -101, 2**31, -(2**31), 2**62, -(2**62)])
def test_a_label_out_of_range_gives_nan_for_its_row(target, dtype, label):
    losses, dlogits = of_logits(target, [1, 2, 3], [0, label, 2], dtype)
    assert np.isnan(losses).tolist() == [False, True, False]
    assert np.isnan(dlogits).all(axis=1).tolist() == [False, True, False]


def test_ignored_rows_give_zero(target, dtype):
    losses, dlogits = of_logits(target, [1, 2, 3], [0, -100, 2], dtype, smoothing=0.1)
    assert losses[1] == 0 and not dlogits[1].any() and dlogits[0].any()


def test_an_empty_batch(target, dtype):
    arrays = (np.empty((0, 5), dtype), np.ones((3, 5), dtype), None, np.empty(0, np.int64))
    results = dense_cross_entropy(*(a if a is None else target.array(a) for a in arrays), 0.0)
    assert [array.shape for array in results] == [(0, 3), (0,), (0, 3)]


def test_a_nan_stays_in_its_row(target, dtype):
    x = normal(0, 5, 4, dtype=dtype)
    x[2, 1] = np.nan
    arrays = (x, normal(1, 3, 4, dtype=dtype), None, np.array([0, 1, 2, 0, 1]))
    results = dense_cross_entropy(*(a if a is None else target.array(a) for a in arrays), 0.1)
    for array in map(host, results):
        assert np.isnan(array[2]).all() and np.isfinite(np.delete(array, 2, axis=0)).all()


# Rows of one block, and of several.
@pytest.mark.parametrize("rows", [30, 300, 700])
def test_a_step_is_counted_as_its_mean_loss_is(target, dtype, rows):
    x, w = (target.array(normal(seed, n, 7, dtype=dtype)) for seed, n in enumerate((rows, 5)))
    labels = np.random.default_rng(0).integers(5, size=rows)
    labels[:2] = -100, -100  # ignored: their losses are 0, and the mean is over the others
    labels = target.array(labels)
    counted = [
        Progress(target.array(np.array([3, 4, 2])), target.array(np.array([1.5, 2.0])))
        for _ in range(2)
    ]
    logits, losses, _ = dense_cross_entropy(x, w, None, labels, 0.0, counted[0])
    mean = host(losses).sum(dtype="f8") / (rows - 2)
    count_batch(target, target.array(np.asarray(mean, dtype)), logits, labels, counted[1])
    found, expected = ([host(array) for array in progress] for progress in counted)
    assert found[0].tolist() == expected[0].tolist() == [4, 4 + rows, 3]
    # The mean is rounded, the row losses are not.
    assert_close(found[1][:1], expected[1][:1], rtol=1e-7 + unit_roundoff(dtype))
    assert found[1][1] == expected[1][1] > 2
    labels[2] = 5  # no class
    dense_cross_entropy(x, w, None, labels, 0.0, counted[0])
    assert np.isnan(host(counted[0].totals)[0]) and host(counted[0].totals)[1] >= found[1][1]
