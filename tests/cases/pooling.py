"""Max- and average-pooling and their gradients."""

import numpy as np

from tests.cases.case import Case, images, zeros
from tests.cases.conv import UNEVEN, taps
from tests.lib import reference
from tests.lib.support import normal

NAN, INF = np.nan, np.inf

SIZES = {
    "several blocks, a tail": images(
        5, 15, 13, 9, K=(2, 3), stride=(1, 2), padding=((1, 0), (1, 1))
    ),
    "one pixel": images(1, 1, 1, 1, K=1),
    "one pixel, eight taps of nine in the padding": images(1, 1, 1, 3, K=3, padding=1),
    "an empty batch": images(0, 4, 4, 3, K=2),
    "no channels": images(2, 4, 4, 0, K=2),
    "windows wholly in the padding": images(1, 1, 2, 3, K=2, padding=4, dilation=5),
    "images without a pixel, padded": images(2, 0, 3, 2, K=2, padding=1, stride=1),
    "the last windows hang over both edges": images(3, 5, 7, 2, K=2, ceil_mode=True),
    "the last windows hang over the padding": images(
        3, 7, 5, 3, K=3, stride=2, padding=1, ceil_mode=True
    ),
    "the only window hangs over": images(2, 2, 1, 3, K=3, stride=(2, 3), ceil_mode=True),
    "the only window hangs over; windows touch": images(1, 2, 2, 9, K=3, ceil_mode=True),
    "pixels that no window covers": images(2, 6, 6, 2, K=2, stride=3),
    "a stride at the limit of an int": images(2, 5, 7, 3, K=(2, 3), stride=2**31 - 1),
    "holes between the taps": images(2, 9, 8, 3, K=3, stride=1, dilation=(4, 3)),
    "primes; more outputs than one block's 8192": images(3, 53, 47, 3, K=2),
    "256 taps: the last that uint8 holds": images(1, 21, 19, 1, K=16, stride=3),
    "257 taps: uint16; longer than the image": images(1, 31, 2, 1, K=(257, 1), padding=(120, 0)),
    "400 taps over the whole image": images(1, 20, 20, 9, K=20),
}
SIZES |= {
    f"{C} channels": images(
        2, 5, 6, C, K=(2, 3), stride=(1, 2), padding=((1, 0), (1, 1)), ceil_mode=True
    )
    for C in (1, 7, 8, 24, 33, 90, 100)  # below, at and above registers; six, and two parts
}
SMALL = images(1, 4, 4, 2, K=2)
DIFFERENCES = [images(2, 5, 4, 2, K=(2, 3), **UNEVEN | {"padding": ((1, 0), (1, 1))})]
STEM = images(16, 112, 112, 64, K=3, stride=2, padding=1)
MAX_TIMED = {
    "speedrun 1": images(256, 24, 24, 24, K=2, stride=2),
    "ResNet stem": STEM,
}
IMAGES = images(64, 56, 56, 64)


def values(kind, *shape):
    """Return values of a kind: few different ones to tie, or NaN, infinities and -0.0."""
    if kind == "normal":
        return normal(0, *shape)
    choices = [-1, 0, 1] if kind == "ties" else [NAN, INF, -INF, -0.0, 0.0, 1, -INF, -INF]
    return np.random.default_rng(0).choice(choices, shape).astype(np.float64)


def pool_arguments(*, N, H, W, C, K, kind="normal", **window):
    return {"x": values(kind, N, H, W, C), "kernel": K, **window}


def index_arguments(**sizes):
    arguments = pool_arguments(**sizes)
    argmax = reference.max_pool2d(**arguments)[1]
    x_shape = arguments.pop("x").shape
    return {"argmax": argmax, "x_shape": x_shape, **arguments}


def max_gradient_arguments(**sizes):
    arguments = index_arguments(**sizes)
    return {"dy": normal(9, *arguments["argmax"].shape), **arguments}


def average_gradient_arguments(**sizes):
    arguments = pool_arguments(**sizes)
    dy = normal(9, *reference.avg_pool2d(**arguments).shape)
    x_shape = arguments.pop("x").shape
    return {"dy": dy, "x_shape": x_shape, **arguments}


def in_pytorch(*, N, H, W, C, K, kind="normal", count_include_pad=True, **window):
    """Whether PyTorch takes a window: it pads both sides of an axis alike, at most half of it."""
    g = reference.window_geometry((N, H, W, C), K, **({"stride": None} | window))
    sides = zip(g.padding, g.kernel, strict=True)
    even = all(before == after <= k // 2 for (before, after), k in sides)
    return kind == "normal" and even and min(H, W, C) > 0


def torch_window(kernel, stride=None, padding=0, dilation=1, ceil_mode=False):
    """Return the arguments of PyTorch's maximum."""
    return [taps(value) for value in (kernel, stride or kernel, padding, dilation)] + [ceil_mode]


def torch_max_pool2d(torch, x, **window):
    window = torch_window(**window)
    return lambda: torch.nn.functional.max_pool2d(x, *window, return_indices=True)


def torch_max_pool2d_backward(torch, dy, argmax, x_shape, **window):
    x = torch_images(torch, dy, x_shape)
    places = reference.pool_indices(argmax.movedim(1, -1).cpu().numpy(), x_shape, **window)
    indices = torch.empty_like(dy, dtype=torch.int64).copy_(torch.from_numpy(places).movedim(-1, 1))
    others = (*torch_window(**window), indices)
    return lambda: torch.ops.aten.max_pool2d_with_indices_backward(dy, x, *others)


def torch_images(torch, dy, x_shape):
    """Return images of a shape (N, H, W, C) in the memory format of a gradient."""
    N, H, W, C = x_shape
    ours = dy.is_contiguous(memory_format=torch.channels_last)
    form = torch.channels_last if ours else torch.contiguous_format
    return dy.new_zeros(N, C, H, W).contiguous(memory_format=form)


def torch_average(count_include_pad=True, **window):
    kernel, stride, padding, _, ceil_mode = torch_window(**window)
    return kernel, stride, padding, ceil_mode, count_include_pad, None


def torch_avg_pool2d(torch, x, **window):
    return lambda: torch.nn.functional.avg_pool2d(x, *torch_average(**window))


def torch_avg_pool2d_backward(torch, dy, x_shape, **window):
    x, others = torch_images(torch, dy, x_shape), torch_average(**window)
    return lambda: torch.ops.aten.avg_pool2d_backward(dy, x, *others)


def torch_global_avg_pool2d_backward(torch, dy, x_shape):
    N, H, W, C = x_shape
    return lambda: (dy / (H * W))[..., None, None].expand(N, C, H, W)


def global_arguments(*, N, H, W, C):
    # The mean of values about 0 would be far smaller than its rounding.
    return {"x": 1 + normal(0, N, H, W, C)}


def global_gradient_arguments(*, N, H, W, C):
    return {"dy": normal(1, N, C), "x_shape": (N, H, W, C)}


MAX_SIZES = SIZES | {
    "ties": SIZES["several blocks, a tail"] | {"kind": "ties"},
    "NaN, infinities and -0.0": SIZES["several blocks, a tail"] | {"kind": "special"},
}
# Without a floating argument: the types of others are all the same to it.
INDEX_SIZES = {why: sizes for why, sizes in MAX_SIZES.items() if "channels" not in why}
AVERAGE_SIZES = SIZES | {
    f"{why}; padding does not count": sizes | {"count_include_pad": False}
    for why, sizes in SIZES.items()
    if "padding" in sizes or "ceil_mode" in sizes
}
GLOBAL_SIZES = {
    "several blocks, a tail": images(5, 15, 13, 9),
    "one pixel": images(1, 1, 1, 1),
    "an empty batch": images(0, 3, 3, 2),
    "a tail of channels": images(3, 7, 5, 9),
    "12544 terms": images(2, 112, 112, 3),
}
NOT_FOUR = ({"x": zeros(15, 13, 9)}, "x: got shape .*, expected 4 dimensions")
WRONG_DY = ({"dy": zeros(5, 15, 13, 9)}, r"dy: got shape .*, expected \(5, 15, 7, 9\)")
NO_SHAPE = ({"x_shape": 5}, r"x_shape: got 5, expected \(N, H, W, C\)")
AVG_TIMED = {"2x2": {**IMAGES, "K": 2}}

CASES = [
    Case(
        "max_pool2d",
        pool_arguments,
        reference.max_pool2d,
        MAX_SIZES,
        SMALL,
        results=1,
        rounding=0,  # a choice
        images=True,
        pytorch=torch_max_pool2d,
        in_pytorch=in_pytorch,
        refused=[
            NOT_FOUR,
            ({"padding": (2, 0)}, "padding: got 2 for a window .* 2, expected at most 1"),
            ({"padding": (0, 3)}, "padding: got 3 for a window .* 3, expected at most 2"),
            ({"stride": 0}, "stride: got 0, expected at least 1"),
        ],
        mistyped=[({"kernel": None}, "kernel: got None, expected a whole number")],
        row="max_pool2d",
        timed=MAX_TIMED,
    ),
    Case(
        "max_pool2d_backward",
        max_gradient_arguments,
        reference.max_pool2d_backward,
        MAX_SIZES,
        SMALL,
        DIFFERENCES,
        gradients=("x"),
        images=True,
        pytorch=torch_max_pool2d_backward,
        in_pytorch=in_pytorch,
        refused=[
            WRONG_DY,
            ({"argmax": zeros(5, 15, 13, 9, dtype="u1")}, "argmax: got shape"),
        ],
        mistyped=[
            NO_SHAPE,
            (
                {"kernel": (17, 16), "padding": (16, 15), "stride": 4, "dy": zeros(5, 8, 7, 9)},
                "argmax: got uint8, expected uint16 for 272 taps",
            ),
        ],
        row="max_pool2d gradient",
        timed=MAX_TIMED,
    ),
    Case(
        "pool_indices",
        index_arguments,
        reference.pool_indices,
        INDEX_SIZES,
        SMALL,
        refused=[
            ({"x_shape": (5, 15, 13, 8)}, r"argmax: got .*, expected \(5, 15, 7, 8\)"),
        ],
    ),
    Case(
        "avg_pool2d",
        pool_arguments,
        reference.avg_pool2d,
        AVERAGE_SIZES,
        SMALL,
        images=True,
        pytorch=torch_avg_pool2d,
        in_pytorch=lambda **sizes: "dilation" not in sizes and in_pytorch(**sizes),
        refused=[
            ({"kernel": 20}, "kernel: extends over 20, larger than .* height 16"),
            ({"padding": ((0, 2), (0, 0))}, "padding: got 2"),
        ],
        row="avg_pool2d",
        timed=AVG_TIMED,
    ),
    Case(
        "avg_pool2d_backward",
        average_gradient_arguments,
        reference.avg_pool2d_backward,
        AVERAGE_SIZES,
        SMALL,
        DIFFERENCES,
        gradients=("x"),
        images=True,
        pytorch=torch_avg_pool2d_backward,
        in_pytorch=lambda **sizes: "dilation" not in sizes and in_pytorch(**sizes),
        refused=[WRONG_DY],
        row="avg_pool2d gradient",
        timed=AVG_TIMED,
    ),
    Case(
        "global_avg_pool2d",
        global_arguments,
        reference.global_avg_pool2d,
        GLOBAL_SIZES,
        images(1, 4, 4, 2),
        images=True,
        pytorch=lambda torch, x: lambda: x.mean((2, 3)),
        numpy=lambda x: x.mean(axis=(1, 2)),
        refused=[
            ({"x": zeros(5, 9)}, "x: got shape .*, expected 4 dimensions"),
            ({"x": zeros(5, 0, 13, 9)}, "x: got .*, expected images with pixels"),
        ],
        row="global_avg_pool2d",
        timed={"56x56": IMAGES},
    ),
    Case(
        "global_avg_pool2d_backward",
        global_gradient_arguments,
        reference.global_avg_pool2d_backward,
        GLOBAL_SIZES,
        images(1, 4, 4, 2),
        gradients=("x"),
        images=True,
        pytorch=torch_global_avg_pool2d_backward,
        refused=[({"dy": zeros(9, 5)}, r"dy: got .*, expected \(5, 9\)")],
    ),
]
