"""2-D convolution and its gradients (implicit GEMM)."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..common.geometry import Padding, Pair, Window, window
from ..common.moments import Moments
from ..common.reduce import accumulator, column_sum
from ..gemm import both, dense, division, gemm
from ..gemm.gradients import Rectified, sum_gradients, what_passes
from ..runtime import Array, Source, Target, checks
from ..runtime.types import Shape
from . import one_channel, winograd
from .im2col import distance, padded
from .input_gradient import NO_PRODUCT, input_products

SOURCE = Source("conv/conv2d.cu")


class _Sizes(NamedTuple):
    """Sizes that a convolution's launches share."""

    window: Window
    N: int
    C: int
    F: int
    K: int  # elements of one filter
    output: Shape


def conv2d(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    relu: bool = False,
) -> Array:
    """Return the 2-D convolution (cross-correlation, as in every CNN) of x with w, plus b.

    On `cpu`, 3 x 3 filters at stride 1 with at least 16 channels and 16 filters use Winograd's
    algorithm (winograd.py). It rounds sums of whole numbers, too, and a value that is not finite
    reaches all outputs of each 4 x 4 tile that has one of its windows, not just these windows; in
    the gradients likewise.

    Parameters
    ----------
    x : array (N, H, W, C)
        Images, floating.
    w : array (F, KH, KW, C/groups)
        Filters, of x's dtype.
    b : array (F,), optional
        Biases, of x's dtype.
    stride, dilation : int or (h, w)
        Pixels between neighbouring windows, and between neighbouring taps of one.
    padding : int, (h, w), ((top, bottom), (left, right)), "valid" or "same"
        Zeros around the image, in pixels.
    groups : int
        Parts that C and F are split into; each part of F sees only its part of C.
    relu : bool
        Clip the result below at zero.

    Returns
    -------
    array (N, OH, OW, F)

    Raises
    ------
    TypeError, ValueError
        If dtypes, devices, shapes or parameters do not fit, or the dilated kernel is larger than
        the padded image.
    """
    target, (x, w, b) = checks.arrays(x=x, w=w, b=b, optional=("b",))
    s = _sizes(x, w, stride, padding, dilation, groups)
    if b is not None:
        checks.shape("b", b, (s.F,), "one bias per filter")
    return _forward(target, x, w, b, s, groups, relu=bool(relu))[0]


def forward_with_moments(
    x: Array,
    w: Array,
    b: Array | None,
    *,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> tuple[Array, Moments]:
    """Return the result of `conv2d` and its moments, for a batch normalisation after it."""
    target, (x, w, b) = checks.arrays(x=x, w=w, b=b, optional=("b",))
    s = _sizes(x, w, stride, padding, dilation, groups)
    y, moments = _forward(target, x, w, b, s, groups, with_moments=True)
    assert moments is not None
    return y, moments


def _forward(
    target: Target,
    x: Array,
    w: Array,
    b: Array | None,
    s: _Sizes,
    groups: int,
    *,
    relu: bool = False,
    with_moments: bool = False,
) -> tuple[Array, Moments | None]:
    y = target.empty(s.output, x.dtype)
    moments: Moments | None = None
    if winograd.suits(target, x.dtype, s.N, s.window, s.C, s.F, groups):
        if with_moments:
            moments = Moments.empty(target, winograd.chunks(target, y, s.C), s.F, x.dtype)
        winograd.forward(target, x, w, b, y, s.window, relu=relu, moments=moments)
        return y, moments
    if one_channel.suits(target, x, s.F, s.window):
        moments = one_channel.forward(
            target, x, w, b, y, s.window, relu=relu, with_moments=with_moments
        )
        return y, moments
    x, g = padded(target, x, s.window)
    rows = y.size // s.F
    split: division.Split = "never" if with_moments else "in tiles"
    sizes = division.Sizes(rows, s.F // groups, s.K, groups, split)
    operands = (x, s.C, s.C // groups), (w, s.C // groups)
    near = distance(target, g, s.C)
    launch, work = gemm.forward(SOURCE, "conv2d_forward", target, sizes, *operands, **near)
    chunks = min(target.threads, 4)  # of a block's rows, for its threads to share
    if with_moments:
        moments = Moments.empty(target, work.grid[0] * chunks, s.F, x.dtype)
    sums, arrived, *parts = work.parts(target, x.dtype)
    arrays = (x, w, b, y, *(moments or (None,) * 3), sums, arrived)
    launch(*arrays, g, rows, s.C, s.F, groups, int(relu), chunks, *parts)
    return y, moments


def conv2d_backward(
    dy: Array,
    x: Array,
    w: Array,
    *,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    need_dx: bool = True,
    need_dw: bool = True,
    need_db: bool = True,
    out_dw: Array | None = None,
    out_db: Array | None = None,
) -> tuple[Array | None, Array | None, Array | None]:
    """Return the gradients (dx, dw, db) of `conv2d` without ReLU.

    Parameters
    ----------
    dy : array (N, OH, OW, F)
        Gradient of the result.
    x, w
        The images and filters of `conv2d`.
    stride, padding, dilation, groups
        As in `conv2d`.
    need_dx, need_dw, need_db : bool
        If False, dx, dw or db is not computed and None is returned for it.
    out_dw, out_db : array, optional
        C-contiguous arrays that dw and db are written to, of their shape and dtype.

    Raises
    ------
    TypeError, ValueError
        As in `conv2d`, and if dy does not have the shape of the result.
    """
    target, (dy, x, w) = checks.arrays(dy=dy, x=x, w=w)
    s = _sizes(x, w, stride, padding, dilation, groups)
    checks.shape("dy", dy, s.output, "the shape of the result")
    others, dw, db = {"dy": dy, "x": x, "w": w}, None, None
    if need_dw:
        dw = checks.result(target, "out_dw", out_dw, w.shape, x.dtype, others)
        others["out_dw"] = dw
    if need_db:
        db = checks.result(target, "out_db", out_db, (s.F,), x.dtype, others)
    return gradients(target, dy, x, w, dw, db, s.window, groups, need_dx=need_dx), dw, db


def gradients(
    target: Target,
    dy: Array,
    x: Array,
    w: Array,
    dw: Array | None,
    db: Array | None,
    g: Window,
    groups: int = 1,
    *,
    need_dx: bool,
    past: Rectified | None = None,
) -> Array | None:
    """Return dx or None; write dw and db unless they are None. The caller checks arguments.

    If x is the result of a ReLU, given as `past`, dx is the gradient of its input instead.
    """
    s = _Sizes(g, x.shape[0], x.shape[3], w.shape[0], w[0].size, dy.shape)
    if _are_rows(g, groups):
        shape = x.shape
        dy, x, w = (array.reshape(-1, size) for array, size in ((dy, s.F), (x, s.K), (w, s.K)))
        dw = None if dw is None else dw.reshape(w.shape)
        dx = dense.gradients(target, dy, x, w, dw, db, need_dx=need_dx, past=past)
        return dx if dx is None or past is not None else dx.reshape(shape)
    checks.count("dy: elements of an image", g.OH * g.OW * s.F)
    dx = None
    products: list[both.Product] = []
    bias = None if target.in_lanes else db  # of the same product as dw
    if bias is not None and dw is None:
        dw = target.empty(w.shape, x.dtype)
    if need_dx and winograd.suits(target, x.dtype, s.N, g, s.F, s.C, groups):
        dx = target.empty(x.shape, x.dtype)
        winograd.input_gradient(target, dy, w, dx, g)
    elif need_dx:
        dx, products = input_products(target, dy, x, w, g, groups, past)
    if dw is None:
        pass
    elif winograd.suits(target, x.dtype, s.N, g, s.C, s.F, groups):
        winograd.filter_gradient(target, dy, x, dw, g)
    elif one_channel.suits(target, x, s.F, g):
        partial = one_channel.filter_gradient(target, dy, x, g, int(db is not None))
        sum_gradients(target, partial, dw, db)
    else:
        of_filters = _filter_product(target, dy, x, s, groups, int(bias is not None))
        of_input = products.pop(0) if products else NO_PRODUCT
        partial = _launch(target, x.dtype, of_filters, of_input, s, groups, past)
        sum_gradients(target, partial, dw, bias, s.F if target.in_lanes else 1)
    for product in products:
        _launch(target, x.dtype, _NO_FILTERS, product, s, groups, past)
    if target.in_lanes and db is not None:
        column_sum(target, dy.reshape(dy.size // s.F, s.F), db)
    return dx


def _are_rows(g: Window, groups: int) -> bool:
    """Whether windows are rows of x in memory, as `dense` has them: each a pixel, or an image."""
    pixels = (g.OH, g.OW, g.KH, g.KW, g.SH, g.SW) == (g.H, g.W, 1, 1, 1, 1)
    placed = (g.PH, g.PW, g.DH, g.DW) == (0, 0, 1, 1)
    image = placed and (g.OH, g.OW, g.KH, g.KW) == (1, 1, g.H, g.W)
    return groups == 1 and (pixels or image)


_NO_FILTERS = both.Product(division.NOTHING, (False, False), (None, None, Window(), 0, 0))


def _launch(
    target: Target,
    dtype: Any,
    filters: both.Product,
    pixels: both.Product,
    s: _Sizes,
    groups: int,
    past: Rectified | None,
) -> Array:
    """Launch the products of the filters' and of the input's gradients, or one of them.

    Return the partial sums of the first, those of biases last.
    """
    *_, bias = filters.arguments
    works = division.divide_both(target, dtype, filters.sizes, pixels.sizes)
    splits = works[0].splits
    partial = target.empty((splits, s.K + bias, s.F), accumulator(dtype))
    both.launch(
        SOURCE,
        "conv2d_gradients",
        target,
        dtype,
        filters,
        pixels,
        works,
        (partial, splits),
        *(s.C, s.F, groups),
        PAST=what_passes(past if pixels is not NO_PRODUCT else None),
    )
    return partial


def _filter_product(
    target: Target, dy: Array, x: Array, s: _Sizes, groups: int, bias: int
) -> both.Product:
    x, g = padded(target, x, s.window)
    g = Window.from_buffer_copy(g)
    # With one window along an axis its stride does not matter, and 1 cannot overflow in the kernel.
    g.SH, g.SW = (step if count > 1 else 1 for count, step in ((g.OH, g.SH), (g.OW, g.SW)))
    rows = dy.size // s.F
    channels, filters = s.C // groups, s.F // groups
    sizes = division.Sizes(s.K, filters, rows, groups, split="always")
    vectors = gemm.in_vectors(target, x, s.C, channels), gemm.in_vectors(target, dy, s.F, filters)
    return both.Product(sizes, vectors, (dy, x, g, rows, bias), distance(target, g, s.C))


def _sizes(
    x: Array, w: Array, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> _Sizes:
    checks.dimensions("x", x, "N, H, W, C")
    checks.dimensions("w", w, "F, KH, KW, C/groups")
    groups = checks.whole("groups", groups, 1)
    (N, H, W, C), (F, KH, KW, _) = x.shape, w.shape
    if C == 0:
        raise ValueError(f"x: got shape {x.shape}, expected images with channels")
    if w.size == 0:
        raise ValueError(f"w: got shape {w.shape}, expected filters with taps and channels")
    if C % groups or F % groups:
        raise ValueError(
            f"groups: got {groups} for {C} channels and {F} filters, expected a divisor of both"
        )
    checks.shape("w", w, (F, KH, KW, C // groups), "F, KH, KW, C/groups")
    checks.count("x: pixels of the batch", N * H * W)
    checks.count("x: elements of an image", H * W * C)
    g, (_, sides) = window((H, W), (KH, KW), stride=stride, padding=padding, dilation=dilation)
    checks.count("x: elements of a padded row", (W + sum(sides)) * C)
    checks.count("x: windows of the batch", N * g.OH * g.OW)
    checks.count("w: elements of a filter", KH * KW * C)
    checks.count("w: taps of all filters", KH * KW * F)
    return _Sizes(g, N, C, F, KH * KW * C // groups, (N, g.OH, g.OW, F))
