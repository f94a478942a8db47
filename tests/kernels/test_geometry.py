"""Tests of the windows' geometry: how many outputs, and which padding."""

import hypothesis
import pytest
from hypothesis import strategies as st

from kernels.common.geometry import window
from tests.lib import reference, strategies


def outputs(size, kernel, *, stride=1, padding=0, dilation=1, **options):
    packed, _ = window(size, kernel, stride=stride, padding=padding, dilation=dilation, **options)
    return packed.OH, packed.OW


@hypothesis.given(strategies.windows(pool=True))
@hypothesis.settings(max_examples=200)
def test_outputs_and_padding_equal_the_oracle(drawn):
    size, kernel, options = drawn
    options["stride"] = options["stride"] or kernel
    expected = reference.window_geometry((1, *size, 1), kernel, **options)
    packed, pads = window(size, kernel, pool=True, **options)
    pairs = {
        "image": (packed.H, packed.W),
        "kernel": (packed.KH, packed.KW),
        "stride": (packed.SH, packed.SW),
        "dilation": (packed.DH, packed.DW),
        "output": (packed.OH, packed.OW),
        "padding": pads,
    }
    assert pairs == expected._asdict()
    starts = pads[0][0], pads[1][0]
    assert starts == (packed.PH, packed.PW)


@pytest.mark.parametrize("forms", [(2, (2, 2), [2, 2], ((2, 2), (2, 2)), [[2, 2], [2, 2]])])
def test_forms_of_padding_are_equal(forms):
    assert {outputs((5, 7), 3, padding=form) for form in forms} == {(7, 9)}


def test_each_parameter_takes_height_first():
    assert outputs((9, 9), (2, 3)) == (8, 7)
    assert outputs((9, 9), 1, stride=(2, 3)) == (5, 3)
    assert outputs((9, 9), 3, dilation=(2, 3)) == (5, 3)
    assert outputs((9, 9), 1, padding=(1, 2)) == (11, 13)
    assert outputs((9, 9), 1, padding=((1, 2), (3, 4))) == (12, 16)


@hypothesis.given(st.integers(1, 20), st.integers(1, 7), st.integers(1, 7), st.integers(1, 3))
def test_same_gives_one_output_per_stride(length, taps, stride, dilation):
    count = -(-length // stride)
    got = outputs((length, length), taps, stride=stride, padding="same", dilation=dilation)
    assert got == (count, count)


@pytest.mark.parametrize(
    "length, options, count",
    [
        (5, {"ceil_mode": False}, 2),
        (5, {"ceil_mode": True}, 3),  # the last window hangs over the end
        (4, {"ceil_mode": True}, 2),  # nothing left over
        (3, {"ceil_mode": True, "padding": 1}, 2),  # a third would start in the padding below
        (3, {"ceil_mode": True, "padding": ((1, 0), (1, 0))}, 2),
        (1, {"ceil_mode": True, "padding": 1}, 1),  # starts in the padding above: allowed
        (7, {"ceil_mode": True, "stride": 5}, 2),  # stride beyond the kernel, inside the image
        (6, {"ceil_mode": True, "stride": 6}, 1),  # a second would start at the very end
        (1, {"ceil_mode": True}, 1),  # the only window hangs over the end
        (2, {"ceil_mode": True, "stride": 4, "dilation": 4}, 1),
    ],
)
def test_ceil_mode_counts_as_pytorch_does(length, options, count):
    options = {"stride": 2, **options}
    assert outputs((length, length), 2, pool=True, **options) == (count, count)


def test_stride_beyond_the_image_gives_one_output():
    assert outputs((5, 7), 3, stride=2**31 - 1) == (1, 1)


def test_one_window_more_would_begin_below_2_to_the_31():
    padding = ((0, 0), (0, 2**30))
    assert outputs((1, 1), 1, stride=(1, 2**30 - 1), padding=padding) == (1, 2)
    with pytest.raises(ValueError, match="kernel: pixels of the width .* got 2147483648, expected"):
        outputs((1, 1), 1, stride=(1, 2**30), padding=padding)


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"kernel": 0}, ValueError, "kernel: got 0, expected at least 1"),
        ({"kernel": 2.0}, TypeError, "kernel: got 2.0, expected a whole number"),
        ({"kernel": (1, 2, 3)}, ValueError, r"kernel: got \(1, 2, 3\), expected .* pair"),
        ({"kernel": "33"}, TypeError, "kernel: got '33'"),
        ({"kernel": 6}, ValueError, "kernel: extends over 6, larger than .* height 5"),
        ({"kernel": (5, 8)}, ValueError, "kernel: extends over 8, larger than .* width 7"),
        ({"dilation": 3}, ValueError, "kernel: extends over 7, larger than .* height 5"),
        (
            {"kernel": 8, "stride": 3, "ceil_mode": True, "pool": True},
            ValueError,
            "kernel: extends over 8, larger than .* height 5",
        ),
        (
            {"dilation": 2**30, "stride": 2**31 - 1, "ceil_mode": True, "pool": True},
            ValueError,
            r"kernel: pixels of the height that windows reach: got 2147483649, expected below 2",
        ),
        ({"stride": 0}, ValueError, "stride: got 0, expected at least 1"),
        ({"stride": True}, TypeError, "stride: got True"),
        ({"stride": (1, None)}, TypeError, "stride: got None"),
        ({"stride": 2**31}, ValueError, "stride: got 2147483648, expected .* below 2"),
        ({"dilation": (1, -1)}, ValueError, "dilation: got -1"),
        ({"padding": -1}, ValueError, "padding: got -1, expected at least 0"),
        ({"padding": "SAME"}, ValueError, "padding: got 'SAME', expected .* 'valid' or 'same'"),
        ({"padding": None}, TypeError, "padding: got None"),
        ({"padding": 1.5}, TypeError, "padding: got 1.5"),
        ({"padding": (1, 2, 3)}, ValueError, r"padding: got \(1, 2, 3\)"),
        ({"padding": ((1, 2, 3), (1, 2))}, ValueError, "padding: got"),
        ({"padding": 2**20}, ValueError, "padding: got 1048576, expected .* below 2"),
        ({"pool": True, "padding": 3}, ValueError, "padding: got 3 .* expected at most 2"),
        ({"pool": True, "padding": ((0, 0), (0, 5)), "dilation": 2}, ValueError, "at most 4"),
    ],
)
def test_wrong_parameters_are_named(options, error, message):
    with pytest.raises(error, match=message):
        outputs((5, 7), **{"kernel": 3, **options})
