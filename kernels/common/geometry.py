"""The geometry of sliding windows: checks of stride, padding and dilation, packed for kernels."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from ..runtime import checks
from ..runtime.types import INT32_MAX, Shape

Pair = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[Sequence[int]]
Pads = tuple[tuple[int, int], tuple[int, int]]


class Window(ctypes.Structure):
    """The struct of ``common/window.cuh``, field for field."""

    _fields_ = [
        (name, ctypes.c_int)
        for name in ("H", "W", "OH", "OW", "KH", "KW", "SH", "SW", "PH", "PW", "DH", "DW")
    ]
    H: int
    W: int
    OH: int
    OW: int
    KH: int
    KW: int
    SH: int
    SW: int
    PH: int
    PW: int
    DH: int
    DW: int

    @property
    def reach(self) -> tuple[int, int]:
        """The rows and columns that all windows together extend over."""
        rows = (self.OH - 1) * self.SH + (self.KH - 1) * self.DH + 1
        return rows, (self.OW - 1) * self.SW + (self.KW - 1) * self.DW + 1

    @property
    def inside(self) -> bool:
        """Whether no window has a tap outside its image."""
        rows, columns = self.reach
        return self.PH == self.PW == 0 and rows <= self.H and columns <= self.W

    @property
    def extent(self) -> tuple[int, int]:
        """The rows and columns that each window extends over."""
        return (self.KH - 1) * self.DH + 1, (self.KW - 1) * self.DW + 1


class Lattice(ctypes.Structure):
    """The struct of ``conv/im2col.cuh``, field for field."""

    _fields_ = [
        (name, ctypes.c_int)
        for name in ("row", "column", "rows", "columns", "row_step", "column_step")
    ]


class Pooling(ctypes.Structure):
    """The struct of ``pooling/unpool.cuh``, field for field."""

    _fields_ = [(name, ctypes.c_int) for name in ("OH", "OW", "F", "PH", "PW", "KH", "KW")]
    OH: int
    OW: int
    F: int
    PH: int
    PW: int
    KH: int
    KW: int


def pair(name: str, value: Any, least: int) -> tuple[int, int]:
    """Return an int or (h, w) as two whole numbers of at least `least`.

    Raises
    ------
    TypeError, ValueError
        If it is neither, or a number is out of range.
    """
    if isinstance(value, (int, str)) or not isinstance(value, Sequence):
        number = checks.whole(name, value, least)
        return number, number
    if len(value) != 2:
        raise ValueError(
            f"{name}: got {checks.shown(value)}, expected a whole number or a pair (h, w)"
        )
    return checks.whole(name, value[0], least), checks.whole(name, value[1], least)


def pool_stride(stride: Any, kernel: tuple[int, int]) -> tuple[int, int]:
    """Return a pool's stride as a pair; by default the kernel, so that windows do not overlap."""
    return kernel if stride is None else pair("stride", stride, 1)


def window(
    size: tuple[int, int],
    kernel: Pair,
    *,
    stride: Pair | None,
    padding: Padding,
    dilation: Pair,
    ceil_mode: bool = False,
    pool: bool = False,
) -> tuple[Window, Pads]:
    """Return the window over an image of `size` (H, W) and its padding on each side.

    Parameters
    ----------
    size : tuple of int
        Height and width of the image.
    kernel, stride, dilation : int or (h, w)
        At least 1. A stride of None is the kernel's size; for pools only.
    padding : int, (h, w), ((top, bottom), (left, right)), "valid" or "same"
        "same" gives ceil(size / stride) outputs; an odd cell goes to the bottom or right.
    ceil_mode : bool
        Round the number of outputs up, as long as the last window starts inside the image or its
        top or left padding.
    pool : bool
        Whether it is a pool's: padding is then at most the window's extent minus one on each side.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range, or no window fits in the padded image.
    """
    kernels = pair("kernel", kernel, 1)
    strides = pool_stride(stride, kernels) if pool else pair("stride", stride, 1)
    dilations = pair("dilation", dilation, 1)
    extents = [d * (k - 1) + 1 for k, d in zip(kernels, dilations, strict=True)]
    pads = _pads(padding, size, extents, strides)
    outputs = []
    for axis, length, extent, step, (before, after) in zip(
        ("height", "width"), size, extents, strides, pads, strict=True
    ):
        if pool and max(before, after) >= extent:
            raise ValueError(
                f"padding: got {max(before, after)} for a window that extends over {extent}, "
                f"expected at most {extent - 1}"
            )
        count = output_count(axis, length, before, after, extent, step, ceil_mode)
        # Kernels that move from window to window count to where one more would begin.
        beyond = count * step if count > 1 else 0
        reached = max((count - 1) * step + extent, beyond)
        checks.count(f"kernel: pixels of the {axis} that windows reach", reached)
        outputs.append(count)
    if (size[0] + sum(pads[0])) * (size[1] + sum(pads[1])) > INT32_MAX:
        raise ValueError(f"padding: got {padding!r}, expected a padded image below 2**31 pixels")
    tops = (pads[0][0], pads[1][0])
    return Window(*size, *outputs, *kernels, *strides, *tops, *dilations), pads


def image_shape(name: str, shape: Shape) -> tuple[int, int, int, int]:
    """Return an argument (N, H, W, C) as four whole numbers, or raise TypeError or ValueError."""
    if not isinstance(shape, Sequence) or isinstance(shape, str):
        raise TypeError(f"{name}: got {checks.shown(shape)}, expected (N, H, W, C)")
    if len(shape) != 4:
        raise ValueError(f"{name}: got {tuple(shape)}, expected (N, H, W, C)")
    N, H, W, C = (checks.whole(name, length, 0) for length in shape)
    return N, H, W, C


def output_count(
    axis: str, length: int, before: int, after: int, extent: int, step: int, ceil_mode: bool
) -> int:
    """Return the number of windows along an axis, or raise ValueError if there is none.

    With `ceil_mode` the last window, even an only one, may reach past the end, if it starts in the
    image or in the padding before it; as in PyTorch.
    """
    room = length + before + after - extent
    count = (-(-room // step) if ceil_mode else room // step) + 1
    if ceil_mode and (count - 1) * step >= length + before:
        count -= 1
    if count < 1:
        raise ValueError(
            f"kernel: extends over {extent}, larger than the padded input of {axis} "
            f"{length + before + after}"
        )
    return count


def _pads(
    padding: Padding, size: tuple[int, int], extents: list[int], strides: tuple[int, int]
) -> Pads:
    pads = sides(padding)
    if pads is not None:
        return pads
    rows, columns = (
        max((-(-length // step) - 1) * step + extent - length, 0)
        for length, extent, step in zip(size, extents, strides, strict=True)
    )
    return (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)


def sides(padding: Padding) -> Pads | None:
    """Return a padding as ((top, bottom), (left, right)); None for "same", which needs the image.

    Raises
    ------
    TypeError, ValueError
        If it is no padding, or less than 0.
    """
    if isinstance(padding, int) or not isinstance(padding, Sequence):
        side = pair("padding", padding, 0)
        return side, side
    if isinstance(padding, str) and padding == "valid":
        return (0, 0), (0, 0)
    if isinstance(padding, str) and padding == "same":
        return None
    if isinstance(padding, str) or len(padding) != 2:
        raise ValueError(
            f"padding: got {checks.shown(padding)}, expected a whole number, (h, w), "
            "((top, bottom), (left, right)), 'valid' or 'same'"
        )
    both: Any = padding
    (top, bottom), (left, right) = (pair("padding", side, 0) for side in both)
    return (top, bottom), (left, right)
