"""Float64 NumPy oracle, part one: everything that slides a window (convolution, im2col, pools).

Every function loops over the taps (kh, kw) of the window and treats all output positions at once.
Tap (kh, kw) of output (oh, ow) reads the image at
    ih = oh * stride_h - top + kh * dilation_h,    iw = ow * stride_w - left + kw * dilation_w.
The functions are re-exported by `reference`, which is what tests import.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Pair = tuple[int, int]
Padding = int | Pair | tuple[Pair, Pair] | str


class Window(NamedTuple):
    """A sliding window over an image: every parameter as one (vertical, horizontal) pair."""

    image: Pair
    kernel: Pair
    stride: Pair
    padding: tuple[Pair, Pair]
    dilation: Pair
    output: Pair


def float64(x) -> Array:
    """Return `x` as a float64 array."""
    return np.asarray(x).astype(np.float64)


def pair(value) -> Pair:
    """Return an int or a pair as a (vertical, horizontal) pair."""
    vertical, horizontal = (value, value) if np.ndim(value) == 0 else value
    return int(vertical), int(horizontal)


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> Pair:
    """Padding (before, after) that gives ceil(size / stride) outputs; an odd one goes after."""
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    return total // 2, total - total // 2


def output_size(
    size: int, kernel: int, stride: int, padding: Pair, dilation: int, ceil_mode: bool
) -> int:
    """Count the window's positions along one axis, by PyTorch's rule.

    In ceil mode a last window may hang over the end, but it must start in the image or in the
    padding before it.
    """
    before, after = padding
    room = size + before + after - (dilation * (kernel - 1) + 1)
    if not ceil_mode:
        return room // stride + 1
    count = -(-room // stride) + 1
    if (count - 1) * stride >= size + before:
        count -= 1
    return count


def window_geometry(
    x_shape: tuple[int, ...],
    kernel: int | Pair,
    *,
    stride: int | Pair | None = 1,
    padding: Padding = 0,
    dilation: int | Pair = 1,
    ceil_mode: bool = False,
) -> Window:
    """Resolve the parameters of a window over images of shape (N, H, W, C).

    A stride of None means the kernel's size. Raises ValueError where no window fits.
    """
    image = (x_shape[1], x_shape[2])
    kernel = pair(kernel)
    stride = kernel if stride is None else pair(stride)
    dilation = pair(dilation)
    if padding == "same":
        vertical, horizontal = map(same_padding, image, kernel, stride, dilation)
    elif padding == "valid":
        vertical, horizontal = (0, 0), (0, 0)
    elif isinstance(padding, str):
        raise ValueError(f'padding: expected "same" or "valid", got {padding!r}')
    else:
        sides: Any = padding if np.ndim(padding) else (padding, padding)
        vertical, horizontal = pair(sides[0]), pair(sides[1])
    height, width = (
        output_size(*axis, ceil_mode)
        for axis in zip(image, kernel, stride, (vertical, horizontal), dilation, strict=True)
    )
    if min(height, width) < 1:
        raise ValueError(f"kernel {kernel} (dilation {dilation}) exceeds the padded image {image}")
    return Window(image, kernel, stride, (vertical, horizontal), dilation, (height, width))


def tap_positions(window: Window, axis: int, tap: int) -> Array:
    """Image positions, one per output along `axis`, that a tap reads; outside ones included."""
    start = tap * window.dilation[axis] - window.padding[axis][0]
    return np.arange(window.output[axis]) * window.stride[axis] + start


def inside(window: Window, kh: int, kw: int) -> tuple[Array, Array, Array, Array]:
    """Index arrays (oh, ow, ih, iw) of the outputs whose tap (kh, kw) falls inside the image.

    oh and ih have shape (rows, 1), ow and iw (1, columns): together they index a grid.
    """
    rows = tap_positions(window, 0, kh)
    columns = tap_positions(window, 1, kw)
    oh, ow = np.ix_(
        (rows >= 0) & (rows < window.image[0]), (columns >= 0) & (columns < window.image[1])
    )
    return oh, ow, rows[oh], columns[ow]


def gather(x: Array, window: Window, kh: int, kw: int, outside: float = 0.0) -> Array:
    """What tap (kh, kw) reads for every output, (N, OH, OW, C); `outside` where that is padding."""
    oh, ow, ih, iw = inside(window, kh, kw)
    values = np.full((x.shape[0], *window.output, x.shape[3]), outside)
    values[:, oh, ow] = x[:, ih, iw]
    return values


def scatter_add(dx: Array, values: Array, window: Window, kh: int, kw: int) -> None:
    """Add (N, OH, OW, C) to the pixels that tap (kh, kw) reads: the adjoint of `gather`.

    Within one tap no pixel is read twice, so a plain += is enough.
    """
    oh, ow, ih, iw = inside(window, kh, kw)
    dx[:, ih, iw] += values[:, oh, ow]


def _group_slices(channels: int, filters: int, groups: int) -> list[tuple[slice, slice]]:
    """For each group, the input channels it reads and the filters that belong to it."""
    if channels % groups or filters % groups:
        raise ValueError(f"groups={groups} does not divide {channels} channels, {filters} filters")
    c, f = channels // groups, filters // groups
    return [(slice(g * c, (g + 1) * c), slice(g * f, (g + 1) * f)) for g in range(groups)]


def conv2d(x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1, relu=False) -> Array:
    """Cross-correlate x (N, H, W, C) with w (F, KH, KW, C/groups) and add b (F): (N, OH, OW, F).

    Padding is zeros that take part in the products, as in im2col: an infinite weight on it is NaN.
    """
    x, w = float64(x), float64(w)
    window = window_geometry(
        x.shape, w.shape[1:3], stride=stride, padding=padding, dilation=dilation
    )
    y = np.zeros((x.shape[0], *window.output, w.shape[0]))
    for kh, kw in np.ndindex(window.kernel):
        patch = gather(x, window, kh, kw)
        for of_group, filters in _group_slices(x.shape[3], w.shape[0], groups):
            y[..., filters] += patch[..., of_group] @ w[filters, kh, kw].T
    if b is not None:
        y += float64(b)
    return np.maximum(y, 0) if relu else y


def conv2d_backward(
    dy, x, w, *, stride=1, padding=0, dilation=1, groups=1
) -> tuple[Array, Array, Array]:
    """Gradients (dx, dw, db) of `conv2d` without ReLU, from dy (N, OH, OW, F)."""
    dy, x, w = float64(dy), float64(x), float64(w)
    window = window_geometry(
        x.shape, w.shape[1:3], stride=stride, padding=padding, dilation=dilation
    )
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for kh, kw in np.ndindex(window.kernel):
        patch = gather(x, window, kh, kw)
        dpatch = np.zeros_like(patch)
        for of_group, filters in _group_slices(x.shape[3], w.shape[0], groups):
            dpatch[..., of_group] = dy[..., filters] @ w[filters, kh, kw]
            dw[filters, kh, kw] = np.tensordot(
                dy[..., filters], patch[..., of_group], axes=((0, 1, 2), (0, 1, 2))
            )
        scatter_add(dx, dpatch, window, kh, kw)
    return dx, dw, dy.sum(axis=(0, 1, 2))


def im2col(x, kernel, *, stride=1, padding=0, dilation=1) -> Array:
    """Lay the windows of x (N, H, W, C) out as rows: (N*OH*OW, KH*KW*C), zeros for padding."""
    x = float64(x)
    window = window_geometry(x.shape, kernel, stride=stride, padding=padding, dilation=dilation)
    taps = [gather(x, window, kh, kw) for kh, kw in np.ndindex(window.kernel)]
    rows = x.shape[0] * window.output[0] * window.output[1]
    return np.concatenate(taps, axis=3).reshape(rows, len(taps) * x.shape[3])


def col2im(cols, x_shape, kernel, *, stride=1, padding=0, dilation=1) -> Array:
    """Sum the rows of cols (N*OH*OW, KH*KW*C) back into an image `x_shape`: adjoint of `im2col`."""
    window = window_geometry(x_shape, kernel, stride=stride, padding=padding, dilation=dilation)
    cols = float64(cols).reshape(x_shape[0], *window.output, *window.kernel, x_shape[3])
    x = np.zeros(x_shape)
    for kh, kw in np.ndindex(window.kernel):
        scatter_add(x, cols[:, :, :, kh, kw], window, kh, kw)
    return x


def max_pool2d(
    x, kernel, *, stride=None, padding=0, dilation=1, ceil_mode=False
) -> tuple[Array, Array]:
    """Maximum of each window of x (N, H, W, C): (y, argmax), both (N, OH, OW, C).

    argmax is the offset kh*KW + kw in the window, uint8, or uint16 for more than 256 taps. The
    first maximum in row-major window order wins a tie, the first NaN wins over every number,
    padding never wins, not even over -inf. A window that touches no pixel gives -inf, argmax 0.
    """
    x = float64(x)
    window = window_geometry(
        x.shape, kernel, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode
    )
    taps = list(np.ndindex(window.kernel))
    y = np.full((x.shape[0], *window.output, x.shape[3]), -np.inf)
    argmax = np.zeros(y.shape, np.uint8 if len(taps) <= 256 else np.uint16)
    found = np.zeros(y.shape, bool)
    for offset, (kh, kw) in enumerate(taps):
        value = gather(x, window, kh, kw, outside=-np.inf)
        in_image = gather(np.ones_like(x), window, kh, kw, outside=0.0) == 1
        wins = in_image & (~found | (value > y) | (np.isnan(value) & ~np.isnan(y)))
        y[wins] = value[wins]
        argmax[wins] = offset
        found |= in_image
    return y, argmax


def max_pool2d_backward(
    dy, argmax, x_shape, kernel, *, stride=None, padding=0, dilation=1, ceil_mode=False
) -> Array:
    """Gradient `x_shape` of `max_pool2d`: each dy (N, OH, OW, C) goes to the pixel that won.

    A window that touched no pixel passes nothing on.
    """
    dy, argmax = float64(dy), np.asarray(argmax)
    window = window_geometry(
        x_shape, kernel, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode
    )
    dx = np.zeros(x_shape)
    for offset, (kh, kw) in enumerate(np.ndindex(window.kernel)):
        scatter_add(dx, np.where(argmax == offset, dy, 0.0), window, kh, kw)
    return dx


def pool_indices(
    argmax, x_shape, kernel, *, stride=None, padding=0, dilation=1, ceil_mode=False
) -> Array:
    """Position ih*W + iw of each maximum in its channel plane, int64 (N, OH, OW, C).

    These are PyTorch's `return_indices`. A window that touched no pixel gives -1.
    """
    argmax = np.asarray(argmax)
    window = window_geometry(
        x_shape, kernel, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode
    )
    indices = np.full(argmax.shape, -1, np.int64)
    for offset, (kh, kw) in enumerate(np.ndindex(window.kernel)):
        oh, ow, ih, iw = inside(window, kh, kw)
        position = (ih * x_shape[2] + iw)[..., None]
        indices[:, oh, ow] = np.where(argmax[:, oh, ow] == offset, position, indices[:, oh, ow])
    return indices


def _average_divisor(window: Window, count_include_pad: bool) -> Array:
    """What each average divides by, (OH, OW, 1): the taps that land where cells count.

    Pixels always count, padding does with `count_include_pad`, and cells beyond the padding, which
    only ceil mode reaches, never do. Windows without a counted cell get 1.
    """
    counts = []
    for axis in range(2):
        before, after = window.padding[axis] if count_include_pad else (0, 0)
        taps = [tap_positions(window, axis, tap) for tap in range(window.kernel[axis])]
        positions = np.stack(taps, axis=1)
        counted = (positions >= -before) & (positions < window.image[axis] + after)
        counts.append(counted.sum(axis=1))
    return np.maximum(np.multiply.outer(*counts), 1)[..., None]


def avg_pool2d(
    x, kernel, *, stride=None, padding=0, dilation=1, ceil_mode=False, count_include_pad=True
) -> Array:
    """Average of each window of x (N, H, W, C): (N, OH, OW, C); 0 where a window has no pixel."""
    x = float64(x)
    window = window_geometry(
        x.shape, kernel, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode
    )
    total = np.zeros((x.shape[0], *window.output, x.shape[3]))
    for kh, kw in np.ndindex(window.kernel):
        total += gather(x, window, kh, kw)
    return total / _average_divisor(window, count_include_pad)


def avg_pool2d_backward(
    dy,
    x_shape,
    kernel,
    *,
    stride=None,
    padding=0,
    dilation=1,
    ceil_mode=False,
    count_include_pad=True,
) -> Array:
    """Gradient `x_shape` of `avg_pool2d` from dy (N, OH, OW, C)."""
    window = window_geometry(
        x_shape, kernel, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode
    )
    share = float64(dy) / _average_divisor(window, count_include_pad)
    dx = np.zeros(x_shape)
    for kh, kw in np.ndindex(window.kernel):
        scatter_add(dx, share, window, kh, kw)
    return dx
