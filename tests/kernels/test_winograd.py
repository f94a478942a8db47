"""Tests of convolution with 3 x 3 filters by Winograd's minimal filtering, and its gradients."""

import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import kernels
from kernels import lowlevel
from kernels.common.geometry import window
from kernels.conv import winograd
from kernels.runtime import cpu_target
from kernels.runtime.arena import Arena
from kernels.runtime.recording import Recording
from tests.lib import comparison, reference
from tests.lib.calls import winograd_and_gradients
from tests.lib.support import CHANNELS, RTOL, host, normal


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    """The types of `cpu`: nothing calls these kernels on a GPU, where they run in the tests."""
    return np.dtype(request.param)


def geometry(size, padding):
    """Return the window of 3 x 3 over images of a size (H, W)."""
    return window(size, 3, stride=1, padding=padding, dilation=1)[0]


def check(target, dtype, N, size, C, F, padding=1, *, bias=True):
    """Compare all that there is with the oracle, for random arrays."""
    g = geometry(size, padding)
    x, w = normal(0, N, *size, C, dtype=dtype), normal(1, F, 3, 3, C, dtype=dtype)
    b = normal(2, F, dtype=dtype) if bias else None
    dy = normal(3, N, g.OH, g.OW, F, dtype=dtype)
    arrays = [None if array is None else target.array(array) for array in (x, w, b, dy)]
    y, pooled, argmax, dx, dw = map(host, winograd_and_gradients(*arrays, padding=padding))
    rtol = RTOL[dtype.name]
    convolved = reference.conv2d(x, w, b, padding=padding)
    comparison.assert_close(y, convolved if bias else np.maximum(convolved, 0), rtol=rtol)
    for gradient, expected in zip(
        (dx, dw), reference.conv2d_backward(dy, x, w, padding=padding)[:2], strict=True
    ):
        assert gradient.dtype == dtype
        comparison.assert_close(gradient, expected, rtol=rtol)
    if bias and pooled.size:
        maximum, index = map(host, kernels.max_pool2d(target.array(y), 2))
        comparison.assert_close(pooled, np.maximum(maximum, 0), rtol=rtol)
        # Two outputs that are equal but for their rounding may change places.
        clear = clear_maximum(y, 2 * rtol * abs(y).max())
        np.testing.assert_array_equal(argmax[clear], index[clear])


def clear_maximum(y, margin):
    """Return where the largest of 2 x 2 outputs is larger than the others by more than a margin."""
    N, OH, OW, F = y.shape
    windows = y[:, : OH // 2 * 2, : OW // 2 * 2].reshape(N, OH // 2, 2, OW // 2, 2, F)
    ordered = np.sort(windows.transpose(0, 1, 3, 5, 2, 4).reshape(N, OH // 2, OW // 2, F, 4))
    return ordered[..., 3] - ordered[..., 2] > margin


@pytest.mark.parametrize(
    "N, size, C, F, padding",
    [
        (1, (3, 3), 1, 1, 0),  # one window: a sixteenth of a tile
        (1, (1, 1), 2, 3, 1),  # one pixel, eight taps of nine in the padding
        (1, (6, 6), 8, 8, 0),  # exactly one tile, and one micro-tile of some register
        (49, (4, 4), 3, 5, 0),  # chunks of one micro-tile, and one of a single tile
        (520, (4, 4), 1, 2, 0),  # chunks of 32 tiles, and a last one that is not whole
        (2, (8, 9), 2, 3, 0),  # tiles cut off at either side, pools of two outputs a side at one
        (2, (7, 13), 11, 19, 1),  # primes
        (3, (2, 9), 4, 4, 1),  # two rows: every tile reaches above and below
        (1, (5, 6), 3, 7, ((2, 1), (0, 3))),  # every side padded otherwise
        (1, (3, 4), 2, 2, 5),  # windows wholly in the padding, so dx is a part of what dy gives
        (0, (5, 5), 3, 4, 1),  # an empty batch
        (600, (4, 4), 2, 3, 1),  # several partial results, and a last share that is not whole
    ],
)
def test_equals_the_oracle(target, dtype, N, size, C, F, padding):
    for bias in (True, False):
        check(target, dtype, N, size, C, F, padding, bias=bias)


@pytest.mark.parametrize(
    "C, F",
    # Up to five registers of filters, with few channels so that shared memory holds a micro-tile.
    [*itertools.product(CHANNELS, CHANNELS), (1, 40), (3, 49), (3, 64), (2, 65)],
)
def test_channel_counts(target, dtype, C, F):
    check(target, dtype, 2, (5, 4), C, F)


@hypothesis.given(
    N=st.integers(0, 3),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    sides=st.tuples(*[st.tuples(st.integers(1, 4), st.integers(1, 4))] * 2),
    C=st.integers(1, 20),
    F=st.integers(1, 20),
    bias=st.booleans(),
)
@hypothesis.settings(max_examples=60)
def test_any_size_equals_the_oracle(target, dtype, N, size, sides, C, F, bias):
    check(target, dtype, N, size, C, F, sides, bias=bias)


@pytest.mark.parametrize("values", ["normal", "positive"])  # as behind a ReLU
def test_rounding_errors_are_about_those_of_the_plain_sum(values):
    x, w = normal(0, 2, 12, 12, 64, dtype="float32"), normal(1, 32, 3, 3, 64, dtype="float32")
    b, dy = np.zeros(32, "float32"), normal(2, 2, 12, 12, 32, dtype="float32")
    if values == "positive":
        x, dy = abs(x), abs(dy)
    y, _, _, dx, dw = map(host, winograd_and_gradients(x, w, b, dy))
    expected = reference.conv2d(x, w, b, padding=1), *reference.conv2d_backward(dy, x, w, padding=1)
    for found, right in zip((y, dx, dw), expected, strict=False):
        comparison.assert_close(found, right, rtol=2e-6)  # of the largest


def test_the_first_of_equal_maxima_is_kept(target, dtype):
    # Of an empty part of an image, whose sums are exactly zero.
    x, w = np.zeros((1, 4, 6, 2), dtype), np.ones((3, 3, 3, 2), dtype)
    dy = np.zeros((1, 2, 4, 3), dtype)
    _, pooled, argmax, _, _ = winograd_and_gradients(
        *map(target.array, (x, w, np.full(3, 17, dtype), dy)), padding=0
    )
    assert (host(pooled) == 17).all() and not host(argmax).any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_special_value_reaches_no_more_than_its_tiles(target, dtype, value):
    x, w = normal(0, 1, 10, 10, 3, dtype=dtype), normal(1, 4, 3, 3, 3, dtype=dtype)
    dy, b = normal(2, 1, 10, 10, 4, dtype=dtype), np.zeros(4, dtype)
    x[0, 4, 5, 1] = value
    y, pooled, _, dx, dw = map(host, winograd_and_gradients(*map(target.array, (x, w, b, dy))))
    reached = ~np.isfinite(y[0]).all(axis=-1)
    assert reached[3:6, 4:7].all()  # the windows over it
    reached[0:8, 4:8] = False  # and the tiles that these are in
    assert not reached.any()
    assert np.isfinite(dx).all()
    assert not np.isfinite(dw[..., 1]).any() and np.isfinite(dw[..., (0, 2)]).all()


WIDE = dict(N=4, size=(9, 9), C=16, F=16)


def suits(target, dtype="float32", *, N, size, C, F, kernel=3, groups=1, **options):
    options = {"stride": 1, "padding": 1, "dilation": 1} | options
    g, _ = window(size, kernel, **options)
    return winograd.suits(target, np.dtype(dtype), N, g, C, F, groups)


def test_what_it_is_used_for():
    cpu = cpu_target()
    assert suits(cpu, **WIDE) and suits(cpu, "float64", **WIDE)
    changed, tile = np.zeros(16, np.int32), WIDE | {"N": 1, "size": (4, 4)}
    with Recording(Arena(cpu), []), winograd.keeping(changed):
        assert suits(cpu, **tile)
    with winograd.keeping(changed):  # but nothing is recorded, so nothing kept
        assert not suits(cpu, **tile)
    other = [
        {"kernel": 5},
        {"kernel": (3, 1)},
        {"stride": (1, 2)},
        {"dilation": 2},
        {"groups": 2},
        {"C": 15},
        {"F": 15},
        {"N": 1},  # too few tiles to repay the transform of the filters
        {"N": 100, "size": (5, 1)},  # too few outputs of a tile
        {"C": 100_000},  # a chunk of tiles does not fit
    ]
    assert not any(suits(cpu, **WIDE | change) for change in other)
    with lowlevel.precision("tf32"):  # which `cpu` does not have, and says so
        assert not suits(cpu, **WIDE)


def test_kept_filters_are_transformed_only_when_told(target, dtype):
    x, w = normal(0, 1, 5, 4, 3, dtype=dtype), normal(1, 5, 3, 3, 3, dtype=dtype)
    others, g = normal(2, *w.shape, dtype=dtype), geometry((5, 4), 1)
    images, filters = target.array(x), target.array(w.copy())
    changed, y = target.array(np.ones(5, np.int32)), target.empty((1, 5, 4, 5), dtype)
    inputs = [images, filters, changed, y]
    with Recording(Arena(target), inputs) as recording, winograd.keeping(changed):
        winograd.forward(target, images, filters, None, y, g, relu=False)
    filters[...] = target.array(others)
    # Of one changed filter all are transformed: they share registers.
    for told, used in ((np.zeros(5), w), (np.arange(5) == 4, others), (np.zeros(5), others)):
        changed[...] = target.array(told.astype(np.int32))
        y.fill(np.nan)
        recording.replay()
        expected = reference.conv2d(x, used, None, padding=1)
        comparison.assert_close(host(y), expected, rtol=RTOL[dtype.name])


def test_conv2d_uses_it(monkeypatch):
    # Results that differ in the last bits only show that there are two ways to them.
    x, w = normal(0, 4, 9, 9, 16, dtype="float32"), normal(1, 16, 3, 3, 16, dtype="float32")
    dy = normal(2, 4, 9, 9, 16, dtype="float32")

    def results():
        return kernels.conv2d(x, w, padding=1), *kernels.conv2d_backward(dy, x, w, padding=1)[:2]

    fast = results()
    monkeypatch.setattr(winograd, "suits", lambda *_: False)
    for one, other in zip(fast, results(), strict=True):
        comparison.assert_close(one, other, rtol=1e-5)
        assert (one != other).any()
