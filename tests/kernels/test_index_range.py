"""Arrays of more than 2^31 elements: 64-bit offsets, or a clear error.

A sparse file, or memory of the emulated GPU, takes nothing where nobody writes, so a few elements
at its far end can be tested.
"""

from pathlib import Path

import numpy as np
import pytest

import kernels
from kernels.common.geometry import window
from kernels.runtime.source import Source
from tests.lib.support import host

TEXT = (Path(__file__).parents[1] / "device" / "far_indices.cu").read_text()
FLOAT = np.dtype(np.float32)


def sparse(folder, name, shape):
    return np.memmap(folder / name, np.float32, mode="w+", shape=shape)


def test_loaders_reach_elements_past_2_to_the_31(target, tmp_path):
    """With one tap and stride 1, a row of each loader's matrix is one pixel's channels."""
    images, size, channels = 70_000, 100, 4  # 2.8e9 elements, rows far below 2^31
    rows = images * size * size
    count = rows * channels
    x = sparse(tmp_path, "x", count) if target.name == "cpu" else target.fresh((count,), FLOAT)
    x[-2 * channels :] = target.array(np.arange(2 * channels, dtype=FLOAT))
    g, _ = window((size, size), (1, 1), stride=1, padding=0, dilation=1)
    kernel = Source("far_indices.cu", TEXT, packaged=False).kernel("far_rows", target, FLOAT)
    for row, expected in ((rows - 1, [4, 5, 6, 7]), (rows - 2, [0, 1, 2, 3])):
        out = target.array(np.full(2 * channels, np.nan, np.float32))
        kernel((1, 1, 1), 1, x, out, g, row, channels)
        assert host(out).tolist() == 2 * expected


def test_the_last_part_of_k_ends_where_k_does(target):
    K, share = 2**31 - 1, 2**23
    end = target.array(np.zeros(1, np.int32))
    kernel = Source("far_indices.cu", TEXT, packaged=False).kernel("far_share", target, FLOAT)
    for split, expected in ((254, 255 * share), (255, K)):
        kernel((1, 1, 1), 1, end, K, share, split)
        assert host(end) == expected


def test_grid_strides_and_places_count_in_64_bits(target):
    pixels, C, height, width = 2**33 + 5, 3, 7, 11
    out = target.array(np.full(5, -1, np.int64))
    kernel = Source("far_indices.cu", TEXT, packaged=False).kernel("far_pixels", target, FLOAT)
    kernel((3, 1, 1), target.threads, out, pixels, C, height, width)
    # The last of three blocks starts at its 256th thread of the grid, or at its third of the range.
    first = 2 * 256 if target.name == "cuda" else pixels * C * 2 // 3
    n, rest = divmod(pixels - 1, height * width)
    assert host(out).tolist() == [first // C, first % C, n, rest // width, rest % width]


def test_gradients_of_pools_reach_elements_past_2_to_the_31(tmp_path):
    """The only pixel is under the first tap of the last of 47 x 47 windows."""
    apart, channels = 46, 10**6
    x_shape, shape = (1, 1, 1, channels), (1, apart + 1, apart + 1, channels)
    dy = sparse(tmp_path, "dy", shape)
    dy[0, -1, -1, -1] = 4
    options = {"stride": 1, "padding": apart, "dilation": apart}
    average = kernels.avg_pool2d_backward(dy, x_shape, 2, **options)
    maximum = kernels.max_pool2d_backward(dy, np.zeros(shape, np.uint8), x_shape, 2, **options)
    for dx, expected in ((average, 1), (maximum, 4)):
        assert dx[0, 0, 0, -1] == expected and np.count_nonzero(dx) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: kernels.conv2d(x.reshape(-1, 1, 1, 1), np.ones((1, 1, 1, 1), FLOAT)), "x: "),
        (lambda x: kernels.conv2d(x.reshape(1, -1, 2, 1), np.ones((1, 1, 1, 1), FLOAT)), "x: "),
        (lambda x: kernels.dense(x.reshape(-1, 1), np.ones((1, 1), FLOAT)), "x: "),
        (lambda x: kernels.max_pool2d(x.reshape(1, -1, 2, 1), 1), "x: "),
        (lambda x: kernels.avg_pool2d(x.reshape(1, 2, -1, 1), 1), "x: "),
        (lambda x: kernels.softmax(x.reshape(-1, 1)), "x: "),
    ],
    ids=["conv2d rows", "conv2d image", "dense rows", "max_pool image", "avg_pool", "softmax"],
)
def test_more_than_the_index_holds_is_a_clear_error(call, message, tmp_path):
    x = sparse(tmp_path, "x", 2**31 + 2)
    with pytest.raises(ValueError, match=r"below 2\*\*31") as caught:
        call(x)
    assert str(caught.value).startswith(message)
