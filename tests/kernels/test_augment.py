"""Tests of affine warps, given and random."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import kernels
from tests.lib import comparison, reference
from tests.lib.support import RTOL, host, normal

NAN, INF = np.nan, np.inf


def images(*shape, dtype, seed=0):
    if np.dtype(dtype) == np.uint8:
        return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    return normal(seed, *shape, dtype=dtype)


def affine(xx, xy, x0, yx, yy, y0, count=1, dtype=np.float64):
    """Return `count` equal matrices (count, 2, 3)."""
    return np.tile(np.array([[xx, xy, x0], [yx, yy, y0]], dtype), (count, 1, 1))


def shifts(dx, dy, **options):
    return affine(1, 0, dx, 0, 1, dy, **options)


def warp(target, values, matrix, **options):
    return host(kernels.affine_warp(target.array(values), target.array(matrix), **options))


def check(target, values, matrix, **options):
    """Compare affine_warp with the oracle: uint8 to the nearest, floats to rounding."""
    warped = warp(target, values, matrix, **options)
    expected = reference.affine_warp(values, matrix, **options)
    assert warped.dtype == values.dtype
    if values.dtype == np.uint8:
        error = abs(warped - expected.clip(0, 255))
        assert warped.shape == expected.shape and error.max(initial=0) <= 0.5 + 1e-3
        assert warped.any() or expected.max(initial=0) < 0.5
    else:
        # Positions are of the matrix's precision, and each pixel is rounded to its own type.
        rtol = max(RTOL[matrix.dtype.name], RTOL[values.dtype.name])
        comparison.assert_close(warped, expected, rtol=rtol)
    return warped


@hypothesis.given(
    matrix_dtype=st.sampled_from(["float32", "float64"]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    N=st.integers(0, 3),
    C=st.sampled_from([1, 2, 3, 9]),
    fill=st.sampled_from([0, 0.5, 77, -3, 300]),
    scale=st.sampled_from([0.1, 1, 4]),
    seed=st.integers(0, 99),
)
@hypothesis.settings(max_examples=50)
def test_equals_the_oracle(target, pixel_type, matrix_dtype, size, N, C, fill, scale, seed):
    matrix = shifts(0, 0, count=N) + scale * normal(seed, N, 2, 3)
    values = images(N, *size, C, dtype=pixel_type, seed=seed)
    check(target, values, matrix.astype(matrix_dtype), fill=fill)


@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (2, 5, 7), (1, 1, 1), (0, 4, 4, 1), (2, 0, 3, 1)])
def test_the_identity_changes_no_bit(target, pixel_type, shape):
    values = images(*shape, dtype=pixel_type)
    for matrix_dtype in ("float32", "float64"):
        matrix = shifts(0, 0, count=shape[0], dtype=matrix_dtype)
        warped = warp(target, values, matrix)
        assert warped.shape == values.shape
        np.testing.assert_array_equal(warped, values)


@pytest.mark.parametrize("dx, dy", [(1, 0), (-2, 3), (4, -4), (6, 0), (0, -5)])
def test_whole_shifts_are_exact(target, pixel_type, dx, dy):
    values = images(1, 5, 6, 3, dtype=pixel_type)
    padded = np.full((1, 17, 18, 3), 9, values.dtype)
    padded[:, 6:11, 6:12] = values
    expected = padded[:, 6 + dy : 11 + dy, 6 + dx : 12 + dx]
    warped = warp(target, values, shifts(dx, dy, dtype=np.float32), fill=9)
    np.testing.assert_array_equal(warped, expected)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_about_the_centre_are_exact(target, turns):
    values = images(1, 7, 7, 2, dtype="float32")
    cosine, sine = [(0, 1), (-1, 0), (0, -1)][turns - 1]
    matrix = affine(
        cosine, -sine, 3 - 3 * cosine + 3 * sine, sine, cosine, 3 - 3 * sine - 3 * cosine
    )
    np.testing.assert_array_equal(
        warp(target, values, matrix), np.rot90(values, turns, axes=(1, 2))
    )


def test_half_a_pixel_is_the_mean_and_rounds_to_nearest(target):
    values = np.array([0, 1, 2, 255], np.uint8).reshape(1, 1, 4, 1)
    warped = warp(target, values, shifts(0.5, 0, dtype=np.float32), fill=100)
    assert warped.ravel().tolist() == [1, 2, 129, 178]  # halves go up
    warped = warp(target, values.astype(np.float32), shifts(0.5, 0), fill=100)
    assert warped.ravel().tolist() == [0.5, 1.5, 128.5, 177.5]


@pytest.mark.parametrize("fill, expected", [(-5, 0), (0, 0), (7.6, 8), (255, 255), (1000, 255)])
@pytest.mark.parametrize("far", [7, -7, 1e6, 1e20, 3e38, NAN, INF, -INF])
def test_outside_is_fill(target, fill, expected, far):
    for matrix in (shifts(far, 0), shifts(0, far), shifts(0, far, dtype=np.float32)):
        warped = warp(target, images(1, 5, 6, 2, dtype="uint8"), matrix, fill=fill)
        assert (warped == expected).all()
        warped = warp(target, images(1, 5, 6, 2, dtype="float64"), matrix, fill=fill)
        np.testing.assert_allclose(warped, fill)


def test_each_image_has_its_own_matrix(target):
    values = images(3, 4, 5, 1, dtype="float64")
    values[1] = NAN
    matrix = np.concatenate([shifts(1, 0), shifts(0, 0), shifts(0, 1)])
    warped = check(target, values, matrix)
    assert np.isnan(warped[1]).all() and np.isfinite(warped[[0, 2]]).all()


# ---- random maps ---------------------------------------------------------------------------------


def drawn_maps(target, **ranges):
    """Return angle in degrees, magnification and shift (x, y) of 200 random maps.

    Warping the images of the coordinates shows where each pixel comes from.
    """
    size, count = 25, 200
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    coordinates = np.stack([x, y, np.ones_like(x)], axis=-1)
    values = np.tile(coordinates, (count, 1, 1, 1))
    warped = host(kernels.augment(target.array(values), **ranges))
    maps = []
    for image in warped:
        whole = image[..., 2] > 1 - 1e-6  # no neighbour outside
        sources, pixels = image[whole][:, :2], coordinates[whole]
        solution, *_ = np.linalg.lstsq(pixels, sources, rcond=None)
        linear, constant = solution[:2].T, solution[2]
        np.testing.assert_allclose(pixels @ solution, sources, atol=1e-4)  # an affine map indeed
        angle = np.degrees(np.arctan2(linear[0, 1], linear[0, 0]))
        zoom = 1 / np.sqrt(np.linalg.det(linear))
        turned = [[linear[0, 0], linear[0, 1]], [-linear[0, 1], linear[0, 0]]]
        np.testing.assert_allclose(linear, turned, atol=1e-4)  # no shear, no mirror
        maps.append([angle, zoom, *-np.linalg.solve(linear, constant)])
    return np.array(maps).T


def assert_uniform(values, low, high):
    """Assert that values stay in [low, high] and fill it; six standard deviations of the mean."""
    assert low - 1e-3 <= values.min() and values.max() <= high + 1e-3
    assert values.min() < low + 0.1 * (high - low) and values.max() > high - 0.1 * (high - low)
    assert abs(values.mean() - (low + high) / 2) < 6 * (high - low) / np.sqrt(12 * values.size)


def test_ranges_are_respected_and_filled(target):
    angle, zoom, shift_x, shift_y = drawn_maps(target, rotate=30, shift=4, zoom=0.2, seed=0)
    assert_uniform(angle, -30, 30)
    assert_uniform(zoom, 0.8, 1.2)
    assert_uniform(shift_x, -4, 4)
    assert_uniform(shift_y, -4, 4)
    correlation = np.corrcoef([angle, zoom, shift_x, shift_y]) - np.eye(4)
    assert abs(correlation).max() < 6 / np.sqrt(angle.size)  # independent of each other


@pytest.mark.parametrize("name, value, row", [("rotate", 90, 0), ("zoom", 0.5, 1), ("shift", 3, 2)])
def test_each_range_moves_its_own_kind_alone(target, name, value, row):
    maps = drawn_maps(target, seed=1, **{name: value})
    moved = [2, 3] if name == "shift" else [row]
    for i, still in enumerate([0, 1, 0, 0]):
        assert (abs(maps[i] - still).max() < 1e-3) == (i not in moved)


@pytest.mark.parametrize("shape", [(3, 5, 7, 2), (3, 28, 28), (0, 4, 4, 1), (1, 1, 1)])
def test_no_range_changes_no_bit(target, pixel_type, shape):
    values = images(*shape, dtype=pixel_type)
    np.testing.assert_array_equal(host(kernels.augment(target.array(values), seed=3)), values)


def test_maps_depend_on_seed_offset_and_index_alone(target):
    def augmented(count, **key):
        values = np.tile(images(1, 9, 9, 1, dtype="float32"), (count, 1, 1, 1))
        return host(kernels.augment(target.array(values), rotate=40, shift=2, zoom=0.3, **key))

    whole = augmented(6, seed=1, offset=2)
    assert (augmented(6, seed=1, offset=2) == whole).all()
    assert (augmented(3, seed=1, offset=2) == whole[:3]).all()
    assert len({image.tobytes() for image in whole}) == 6
    for key in ({"seed": 2, "offset": 2}, {"seed": 1, "offset": 3}, {"seed": 2**64 - 1}):
        assert (augmented(6, **key) != whole).any(axis=(1, 2, 3)).all()


def test_a_third_axis_is_not_a_channel(target):
    values = images(4, 9, 9, dtype="uint8")
    options = {"rotate": 20, "shift": 2, "seed": 4}
    plain = host(kernels.augment(target.array(values), **options))
    with_channel = host(kernels.augment(target.array(values[..., None]), **options))
    np.testing.assert_array_equal(plain, with_channel[..., 0])
