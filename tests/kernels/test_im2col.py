"""Tests of im2col and col2im against the oracle, and of their being each other's adjoint."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import kernels
from kernels.common.geometry import window
from kernels.conv.im2col import distance, with_padding
from tests.cases.check import check
from tests.cases.conv import UNEVEN
from tests.lib import comparison, reference, strategies
from tests.lib.support import host, normal, numbers


@hypothesis.given(strategies.windows(), st.integers(0, 3), st.sampled_from([1, 3, 8, 9]))
def test_equal_the_oracle(target, dtype, drawn, N, C):
    (H, W), K, options = drawn
    sizes = {"N": N, "H": H, "W": W, "C": C, "K": K, **options}
    check(target, dtype, "im2col", **sizes)
    check(target, dtype, "col2im", **sizes)


def test_col2im_is_the_gradient_of_im2col(target):
    x = normal(0, 2, 4, 3, 2)
    dy = normal(1, *reference.im2col(x, (2, 3), **UNEVEN).shape)

    def loss(x):
        return (dy * host(kernels.im2col(target.array(x), (2, 3), **UNEVEN))).sum()

    gradient = kernels.col2im(target.array(dy), x.shape, (2, 3), **UNEVEN)
    comparison.assert_close(gradient, reference.finite_difference(loss, x), rtol=1e-7)


def test_special_values_are_copied(target, dtype):
    x = np.array([np.nan, np.inf, -np.inf, -0.0], dtype).reshape(1, 2, 2, 1)
    cols = host(kernels.im2col(target.array(x), 2, padding=1)).reshape(3, 3, 4)
    assert cols[1, 1].tobytes() == x.tobytes()
    # A NaN stays in the pixels that it is summed to.
    summed = numbers(kernels.col2im(target.array(cols.reshape(9, 4)), x.shape, 2, padding=1))
    np.testing.assert_array_equal(summed, 4 * numbers(x))


@pytest.mark.parametrize(
    "kernel, options",
    [
        (3, {"padding": 1}),
        ((2, 3), {"padding": ((2, 1), (0, 3)), "dilation": (1, 2)}),  # every side otherwise
        (2, {"padding": 1, "stride": 4}),  # pixels on the right that no window reaches
        ((1, 2), {"padding": ((0, 0), (0, 5))}),  # padding on one side alone
        (1, {"padding": 3, "stride": 16}),  # one window, in the padding
    ],
)
def test_padding_written_out_changes_no_window(target, dtype, kernel, options):
    x = normal(0, 2, 7, 5, 3, dtype=dtype)
    options = {"stride": 1, "padding": 0, "dilation": 1} | options
    g, _ = window((7, 5), kernel, **options)
    padded, inside = with_padding(target, target.array(x), g)
    assert padded.shape == (2, inside.H, inside.W, 3) and inside.PH == inside.PW == 0
    plain = {name: options[name] for name in ("stride", "dilation")}
    np.testing.assert_array_equal(
        reference.im2col(host(padded), kernel, **plain), reference.im2col(x, kernel, **options)
    )


@pytest.mark.parametrize(
    "size, C, kernel, dilation, near",
    [
        ((40, 40), 8, (15, 15), 1, True),
        ((40, 40), 8, (16, 1), 1, False),
        ((40, 40), 8, (2, 3), (1, 7), True),
        ((40, 40), 8, (2, 3), (1, 8), False),
        # 64 images of 2^25 elements, and of one row less.
        ((64, 2**10), 2**9, (3, 3), 1, False),
        ((62, 2**10), 2**9, (3, 3), 1, True),
    ],
)
def test_near_windows_have_few_pixels_and_whole_numbers_tell_them_apart(
    target, size, C, kernel, dilation, near
):
    g, _ = window(size, kernel, stride=1, padding=1, dilation=dilation)
    assert distance(target, g, C) == ({} if target.in_lanes or near else {"NEAR": 0})
