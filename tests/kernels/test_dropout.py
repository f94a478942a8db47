"""Tests of dropout and of the counter-based generator under it."""

import numpy as np
import pytest

import kernels
from kernels.runtime import Source
from tests.cases.images import philox
from tests.lib.support import host, numbers

# Compiled here alone: taken off the list of the package's sources.
PHILOX = Source(
    "philox_test.cu",
    text="""#include "images/random.cuh"
KERNEL philox_words(int *__restrict__ words, uint64 seed, uint64 index, uint64 offset) {
    const Random4 random = philox(seed, index, offset);
    for (int i = 0; i < 4; ++i) words[i] = int(random.word[i]);
}
""",
)
Source.all.remove(PHILOX)


def words(target, seed, index, offset):
    """Return the four words of one Philox block, from the kernels' own generator."""
    array = target.empty((4,), np.int32)
    kernel = PHILOX.kernel("philox_words", target, np.dtype(np.float32))
    kernel((1, 1, 1), 1, array, seed, index, offset)
    return host(array).view(np.uint32)


def joined(low, high):
    return low | high << 32


# The known answers of the Random123 distribution, `kat_vectors`: counter, key, words.
@pytest.mark.parametrize(
    "counter, key, expected",
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([2**32 - 1] * 4, [2**32 - 1] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],  # digits of pi
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_known_answers(target, counter, key, expected):
    block = joined(*key), joined(*counter[:2]), joined(*counter[2:])
    assert words(target, *block).tolist() == philox(*block).tolist() == expected


def test_an_element_is_kept_where_its_number_reaches_p(target):
    number = (0x6627E8D5 >> 8) / 2**24  # the first known answer, above
    for p, kept in [(number, 1), (number + 2**-24, 0)]:
        _, mask = kernels.dropout(target.array(np.ones(1)), p, seed=0)
        assert host(mask).tolist() == [kept]


def test_the_mask_depends_on_seed_offset_and_index_alone(target):
    def mask(count, value=1.0, dtype=np.float32, p=0.5, **key):
        array = target.array(np.full(count, value, dtype))
        return host(kernels.dropout(array, p, **key)[1])

    whole = mask(20_000, seed=1, offset=2)
    assert (mask(20_000, seed=1, offset=2) == whole).all()
    for count in (1, 2, 3, 5, 8191, 8193):  # an element does not depend on those after it
        assert (mask(count, seed=1, offset=2) == whole[:count]).all()
    assert (mask(20_000, np.nan, np.float64, seed=1, offset=2) == whole).all()
    assert (mask(20_000, p=0.7, seed=1, offset=2) <= whole).all()  # drops more of the same
    for key in ({"seed": 2, "offset": 2}, {"seed": 1, "offset": 3}, {"seed": 2, "offset": 1}):
        same = (mask(20_000, **key) == whole).mean()
        assert abs(same - 0.5) < 0.02  # as two independent masks; six standard deviations


@pytest.mark.parametrize("p", [0, 0.1, 0.5, 0.9, 1 - 2**-24])
def test_the_kept_fraction_is_one_minus_p(target, p):
    count = 200_000
    _, mask = kernels.dropout(target.array(np.ones(count, np.float32)), p, seed=0)
    kept = host(mask)
    assert abs(kept.mean() - (1 - p)) <= 5 * np.sqrt(p * (1 - p) / count)
    if 0 < p < 0.95:  # neighbours are independent
        both = (kept[1:] & kept[:-1]).mean()
        assert abs(both - (1 - p) ** 2) < 6 * np.sqrt(p / count)


def test_special_values_are_dropped_like_others(target, dtype):
    x = np.array([np.nan, np.inf, -np.inf, -0.0] * 8, dtype)
    y, mask = kernels.dropout(target.array(x), 0.5, seed=0)
    kept = host(mask).astype(bool)
    assert 0 < kept.sum() < kept.size
    np.testing.assert_array_equal(numbers(y), np.where(kept, numbers(x), 0))
    dx = kernels.dropout_backward(target.array(x), mask, 0.5)
    np.testing.assert_array_equal(numbers(dx), np.where(kept, numbers(x), 0))


def test_backward_takes_any_nonzero_mask_as_kept(target, dtype):
    dy, mask = np.ones(3, dtype), np.array([0, 2, 255], np.uint8)
    dx = kernels.dropout_backward(target.array(dy), target.array(mask), 0.5)
    assert host(dx).tolist() == [0, 2, 2]
