"""Images of one channel and few taps, a GPU's own path: convolution, with pool, filter gradient.

In 16 bits they are those of `one_channel_mma`, where it suits.
"""

from __future__ import annotations

from ..common.geometry import Window
from ..common.moments import Moments
from ..common.reduce import accumulator, accumulator_bytes
from ..gemm.precision import rounds
from ..runtime import Array, Source, Target
from ..runtime.types import GRID_YZ_MAX
from . import one_channel_mma

_SOURCE = Source("conv/one_channel.cu")
_POOL = Source("conv/one_channel_pool.cu")
_GRADIENT = Source("conv/one_channel_gradient.cu")
_FILTERS, _OUTPUTS, _CHUNKS = 4, 4, 4  # as in one_channel.cu
_POOL_FILTERS = 8  # of a thread, as in one_channel_pool.cu
_MOST_ACROSS = 32  # threads that share the filters of a block
_TIMES = 4  # the most groups of pixels of a thread: its block loads the filters once
_THREADS = 128
_MOST_MEMBERS = 32  # threads of a team, which has a row of the gradient at a time
_THREADS_OF_GRADIENT = 96
_BLOCKS_EACH = 3  # of these threads, the most for each multiprocessor
_MOST_TAPS = 25  # pixels under them, in registers beside what else there is
_MOST_OUTPUTS = 2**30  # of a filter: the last block counts up to twice as far


def suits(target: Target, x: Array, F: int, g: Window) -> bool:
    """Whether this convolution and its filters' gradients cost less here than as products.

    There, copies of single elements to shared memory take more instructions than all multiply-adds
    here.
    """
    few = x.shape[3] == 1 and g.KH * g.KW <= _MOST_TAPS and F <= _POOL_FILTERS * GRID_YZ_MAX
    counted = x.size > 0 and x.shape[0] * g.OH * g.OW <= _MOST_OUTPUTS
    plain = (g.SH, g.SW, g.DH, g.DW) == (1, 1, 1, 1)
    return not target.in_lanes and few and counted and plain and not rounds()


def forward(
    target: Target,
    x: Array,
    w: Array,
    b: Array | None,
    y: Array,
    g: Window,
    *,
    relu: bool,
    with_moments: bool,
) -> Moments | None:
    """Write the convolution of x (N, H, W, 1) to y (N, OH, OW, F); return its moments if asked."""
    if one_channel_mma.suits(target, x, g):
        return one_channel_mma.forward(target, x, w, b, y, g, relu=relu, with_moments=with_moments)
    N, OH, OW, F = y.shape
    across = min(-(-F // _FILTERS), _MOST_ACROSS)
    at_once = _THREADS // across
    groups = N * OH * -(-OW // _OUTPUTS)
    blocks, parts = -(-groups // at_once), -(-F // (across * _FILTERS))
    times = max(1, min(_TIMES, blocks * parts // (_BLOCKS_EACH * target.multiprocessors)))
    grid = (-(-blocks // times), parts, 1)
    moments = Moments.empty(target, grid[0] * _CHUNKS, F, x.dtype) if with_moments else None
    launch = _SOURCE.kernel("one_channel_forward", target, x.dtype, **_taps(g))
    arrays = (x, w, b, y, *(moments or (None,) * 3))
    width = across * _FILTERS * accumulator_bytes(x.dtype)
    sizes = (g, N * OH, F, int(relu), across, times)
    launch(grid, at_once * across, *arrays, *sizes, shared=g.KH * g.KW * width)
    return moments


def pool_forward(
    target: Target,
    x: Array,
    w: Array,
    b: Array | None,
    y: Array,
    argmax: Array,
    g: Window,
    kernel: tuple[int, int],
) -> None:
    """Write y and argmax (N, PH, PW, F) of x (N, H, W, 1), pooled in windows of a size."""
    if one_channel_mma.suits(target, x, g):
        return one_channel_mma.pool_forward(target, x, w, b, y, argmax, g, kernel)
    N, PH, PW, F = y.shape
    sizes = _taps(g) | {"POOL_H": kernel[0], "POOL_W": kernel[1]}
    launch = _POOL.kernel("one_channel_pool_forward", target, x.dtype, **sizes)
    windows = N * PH * PW
    grid = (-(-windows // _THREADS), -(-F // _POOL_FILTERS), 1)
    return launch(grid, _THREADS, x, w, b, y, argmax, g, windows, PH, PW, F)


def filter_gradient(target: Target, dy: Array, x: Array, g: Window, bias: int) -> Array:
    """Return the sums of parts of the gradients of filters and, if `bias` is 1, of biases.

    They lie as `sum_gradients` takes them.
    """
    N, OH, OW, F = dy.shape
    filters = 1 if F % 2 or target.address(dy) % (2 * dy.itemsize) else 2  # of a thread
    if filters == 2 and OW % 2 == 0 and one_channel_mma.suits(target, x, g):
        return one_channel_mma.filter_gradient(target, dy, x, g, bias)
    members = min(F // filters, _MOST_MEMBERS)
    teams = max(1, _THREADS_OF_GRADIENT // members)
    rows = N * OH
    most_blocks = _BLOCKS_EACH * target.multiprocessors
    share = -(-rows // (teams * most_blocks)) * teams
    blocks = -(-rows // share) if rows else 0
    partial = target.empty((blocks, (g.KH * g.KW + bias) * F), accumulator(dy.dtype))
    constants = _taps(g) | {"FILTERS": filters}
    launch = _GRADIENT.kernel("one_channel_filter_gradient", target, dy.dtype, **constants)
    grid = (blocks, -(-F // (filters * members)), 1)
    launch(grid, teams * members, dy, x, partial, g, rows, F, bias, teams, share)
    return partial


def _taps(g: Window) -> dict[str, int]:
    """Return what kernels know of a window when they are compiled."""
    return {"TAPS_H": g.KH, "TAPS_W": g.KW, "PADDED": int(not g.inside)}
