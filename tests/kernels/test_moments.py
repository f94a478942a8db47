"""Tests of the statistics that convolutions leave for a batch normalisation after them."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import kernels
from kernels import lowlevel
from kernels.conv.conv2d import forward_with_moments
from kernels.norm import batchnorm
from tests.lib import comparison
from tests.lib.calls import winograd_with_moments
from tests.lib.support import CHANNELS, RTOL, host, normal


def statistics(target, y, moments):
    """Return the mean and the variance of y (..., C), merged from its moments."""
    C = y.shape[-1]
    running = target.zeros((C,), y.dtype), target.zeros((C,), y.dtype)
    options = {"training": True, "momentum": 1, "eps": 1e-3}
    saved = batchnorm.statistics(target, y, *running, **options, moments=moments)
    return host(saved.mean), 1 / host(saved.inv_std).astype(float) ** 2 - options["eps"]


def check(target, x, w, b, convolve=forward_with_moments, rtol=None, **options):
    """Compare with the mean and the variance of the very result, in float64."""
    rtol = rtol or RTOL[x.dtype.name]
    arrays = [None if array is None else target.array(array) for array in (x, w, b)]
    y, moments = convolve(*arrays, **options)
    if convolve is forward_with_moments:
        np.testing.assert_array_equal(host(y), host(kernels.conv2d(*arrays, **options)))
    assert host(moments.counts).sum() == y.size // y.shape[-1]
    values = host(y).astype(float).reshape(-1, y.shape[-1])
    if len(values) == 1:
        with pytest.raises(ValueError, match="expected more than one value per channel"):
            statistics(target, y, moments)
        return y, moments
    mean, variance = statistics(target, y, moments)
    scale = abs(values).max()
    assert abs(mean - values.mean(axis=0)).max() <= rtol * scale
    assert abs(variance - values.var(axis=0)).max() <= rtol * scale**2
    return y, moments


def arrays(N, size, C, F, kernel=(3, 3), groups=1, dtype=np.float64):
    x, w = normal(0, N, *size, C, dtype=dtype), normal(1, F, *kernel, C // groups, dtype=dtype)
    return x, w, normal(2, F, dtype=dtype)


@pytest.mark.parametrize(
    ("N", "size", "C", "F", "kernel", "options"),
    [
        (1, (1, 1), 1, 1, (1, 1), {}),  # one value
        (1, (1, 3), 2, 3, (1, 1), {}),  # rows that do not fill a micro-tile
        (1, (5, 13), 1, 7, (3, 3), {"padding": 1}),  # a row more than a block of a GPU, a channel
        (3, (11, 7), 5, 13, (3, 2), {"padding": 1}),  # primes
        (7, (9, 9), 2, 17, (3, 3), {"stride": 2, "padding": 1}),  # fewer outputs than pixels
        (4, (17, 16), 3, 65, (3, 3), {"padding": 1}),  # a filter more than a tile of a GPU
        (2, (6, 5), 3, 130, (2, 2), {}),  # several panels on cpu
        (3, (8, 9), 6, 10, (3, 3), {"groups": 2, "padding": 1}),
        (2, (5, 5), 4, 4, (3, 3), {"groups": 4}),  # a filter a group
        (9, (16, 15), 1, 4, (1, 1), {}),  # blocks of unequal parts on cpu
        (900, (4, 4), 1, 6, (3, 3), {"padding": 1}),  # several images for a block of a GPU
        (5, (33, 31), 1, 1, (1, 1), {}),  # more chunks on a GPU than threads merge them
        (5, (9, 10), 17, 18, (3, 3), {"padding": 1}),  # Winograd's on cpu, with tiles cut off
    ],
)
@pytest.mark.usefixtures("undivided")
def test_are_those_of_the_result(target, dtype, N, size, C, F, kernel, options):
    x, w, b = arrays(N, size, C, F, kernel, options.get("groups", 1), dtype)
    check(target, x, w, b, **options)
    check(target, x, w, None, **options)


@pytest.mark.parametrize(
    ("N", "size", "C", "F", "padding"),
    [
        (1, (3, 3), 1, 1, 0),  # one value
        (1, (6, 6), 8, 8, 0),  # exactly one tile
        (33, (4, 4), 3, 5, 1),  # a chunk of 32 tiles, and one of one
        (40, (8, 9), 2, 3, 0),  # tiles cut off at either side, in several chunks
        (2, (7, 13), 11, 19, 1),  # primes
    ],
)
def test_of_winograds_tiles_are_those_of_the_result(target, dtype, N, size, C, F, padding):
    x, w, b = arrays(N, size, C, F, dtype=dtype)
    check(target, x, w, b, winograd_with_moments, padding=padding)
    check(target, x, w, None, winograd_with_moments, padding=padding)


@pytest.mark.parametrize("F", [*CHANNELS, 40, 49, 64])  # and up to four registers
def test_channel_counts(target, dtype, F):
    x, w, b = arrays(3, (5, 6), 3, F, dtype=dtype)
    check(target, x, w, b, padding=1)
    check(target, x, w, b, winograd_with_moments, padding=1)


@hypothesis.given(
    N=st.integers(1, 4),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    C=st.integers(1, 5),
    F=st.integers(1, 20),
    padding=st.integers(1, 3),
)
@hypothesis.settings(max_examples=25)
def test_images_of_any_size(target, dtype, N, size, C, F, padding):
    x, w, b = arrays(N, size, C, F, dtype=dtype)
    for convolve in (forward_with_moments, winograd_with_moments):
        check(target, x, w, b, convolve, padding=padding)


@pytest.mark.parametrize("convolve", [forward_with_moments, winograd_with_moments])
def test_a_large_mean_survives(target, convolve):
    # In float32, E[y^2] - E[y]^2 of a mean of 1e4 keeps no digit of a variance of 1.
    x, w, _ = arrays(24, (14, 13), 3, 9, dtype="float32")
    w /= 27**0.5  # so that results have a deviation of about 1
    b = np.full(9, 1e4, "float32")
    y, moments = convolve(*map(target.array, (x, w, b)), padding=1)
    mean, variance = statistics(target, y, moments)
    values = host(y).astype(float).reshape(-1, 9)
    assert abs(mean - values.mean(axis=0)).max() < 1.1 * np.spacing(np.float32(1e4))
    comparison.assert_close(variance, values.var(axis=0), rtol=2 * RTOL["float32"])


@pytest.mark.parametrize("convolve", [forward_with_moments, winograd_with_moments])
def test_a_constant_has_no_variance(target, dtype, convolve):
    # However its values are grouped: also three, whose sum a division by three does not undo.
    x, w, b = arrays(5, (7, 7), 3, 5, dtype=dtype)
    _, moments = convolve(*map(target.array, (x, 0 * w, b + dtype.type(1e4))), padding=0)
    assert not host(moments.squares).any()
    np.testing.assert_array_equal(
        host(moments.means), (b + dtype.type(1e4))[None].repeat(len(moments.counts), 0)
    )


@pytest.mark.parametrize("convolve", [forward_with_moments, winograd_with_moments])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_special_value_spoils_its_channel_alone(target, dtype, convolve, value):
    x, w, b = arrays(5, (8, 9), 3, 19, dtype=dtype)
    b[4] = value
    y, moments = convolve(*map(target.array, (x, w, b)), padding=1)
    _, variance = statistics(target, y, moments)
    assert np.isnan(variance[4]) and np.isfinite(np.delete(variance, 4)).all()


@pytest.mark.parametrize("convolve", [forward_with_moments, winograd_with_moments])
def test_an_empty_batch_has_none(target, dtype, convolve):
    x, w, b = arrays(0, (5, 5), 3, 4, dtype=dtype)
    y, moments = convolve(*map(target.array, (x, w, b)), padding=1)
    assert y.shape == (0, 5, 5, 4) and len(moments.counts) == 0
    mean, variance = statistics(target, y, moments)
    assert not mean.any() and abs(variance).max() < 1e-6  # the running ones


def test_in_each_precision_they_are_those_of_the_result(target):
    x, w, b = arrays(4, (17, 16), 3, 65, dtype="float32")
    for precision in target.precisions:
        with lowlevel.precision(precision):
            check(target, x, w, b, padding=1)
