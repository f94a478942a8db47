"""The convolution and its gradients; im2col and its adjoint."""

import numpy as np

from tests.cases.case import Case, images, zeros
from tests.lib import reference
from tests.lib.support import normal

# Every parameter differs between the axes and sides, so that none can be mixed up.
UNEVEN = {"stride": (1, 2), "padding": ((2, 1), (0, 3)), "dilation": (2, 1)}

# On a CPU a block has 256 rows and packs 96 filters x 1024 of k; on a GPU a tile is 64 x 64 x 16.
SIZES = {
    "several blocks, a tail": images(5, 15, 13, 9, F=10, K=3, padding=1),
    "one pixel, one product": images(1, 1, 1, 1, F=1, K=1),
    "windows of one pixel": images(3, 5, 7, 9, F=6, K=1),
    "windows of one pixel, apart": images(2, 5, 7, 6, F=9, K=1, stride=(2, 3)),
    "windows of one pixel, in the padding, too": images(2, 4, 3, 5, F=6, K=1, padding=1),
    "windows of one pixel, by groups": images(2, 4, 3, 6, F=4, K=1, groups=2),
    "a window of the whole image": images(9, 3, 5, 7, F=6, K=(3, 5), stride=2),
    "a window as large as the image, its taps apart": images(
        2, 3, 4, 7, F=6, K=(3, 4), dilation=2, padding=((0, 2), (0, 3))
    ),
    "a window of the whole image, and of padding": images(
        9, 3, 5, 7, F=6, K=(4, 5), padding=(1, 0)
    ),
    "eight taps of nine in the padding": images(1, 1, 1, 2, F=3, K=3, padding=1),
    "an empty batch": images(0, 5, 5, 3, F=4, K=3),
    "images without a pixel, padded": images(2, 0, 4, 3, F=4, K=2, padding=1),
    "every side and axis otherwise": images(2, 5, 4, 7, F=9, K=(3, 2), **UNEVEN),
    "one less than a tile of rows, filters and k": images(1, 15, 19, 85, F=63, K=(1, 3)),
    "exactly one tile of each": images(1, 16, 16, 4, F=64, K=8, padding="same"),
    "one more: a tile of one row, column and k": images(1, 1, 259, 43, F=65, K=(1, 3)),
    "one more than is packed": images(1, 4, 9, 205, F=97, K=(1, 5)),
    "primes; k of 603 takes three steps": images(2, 19, 23, 67, F=13, K=3, padding=1),
    "depthwise, two filters a channel": images(3, 7, 5, 33, F=66, K=3, groups=33),
    "whole registers by group": images(2, 6, 6, 16, F=16, K=3, groups=2, padding=1),
    "pixels that no window covers": images(5, 13, 11, 24, F=9, K=(2, 3), stride=(2, 3)),
    "a stride at the limit of an int": images(2, 4, 4, 3, F=2, K=2, stride=2**31 - 1),
    "one window, a stride of any length": images(40, 3, 3, 4, F=8, K=3, stride=(2**30, 2**31 - 1)),
    "the window just fits": images(1, 9, 9, 3, F=2, K=3, dilation=4),
    "as many pixels as near windows have": images(
        2, 9, 6, 8, F=6, K=(15, 3), padding=((7, 9), (7, 8)), dilation=(1, 7)
    ),
    "a row more": images(1, 9, 6, 8, F=6, K=(16, 3), padding=((7, 9), (1, 1))),
    "a column more": images(2, 3, 6, 8, F=6, K=2, padding=(1, 9), dilation=(1, 15)),
    "mostly padding": images(1, 2, 3, 3, F=2, K=2, padding=9, dilation=7),
    "one channel: by taps": images(3, 19, 17, 1, F=24, K=5, padding=((2, 1), (0, 3))),
    "one channel, taps and windows apart": images(
        2, 23, 29, 1, F=33, K=(4, 3), stride=(2, 3), dilation=(1, 2), padding=3
    ),
    "more filters than are packed, by few taps": images(2, 11, 13, 1, F=99, K=3),
    "more taps than are packed, in short runs": images(1, 35, 33, 1, F=3, K=(34, 31)),
    "a split that ends with one row past a band of 256": images(1, 1, 4354, 1, F=1, K=(1, 2)),
    "over 128 steps of rows: splits of two steps each": images(2, 129, 129, 1, F=2, K=(1, 2)),
}
SMALL = images(1, 4, 4, 2, F=2, K=3)
DIFFERENCES = [images(2, 3, 4, 4, F=2, K=(2, 3), groups=groups, **UNEVEN) for groups in (1, 2)]
RESNET = images(8, 56, 56, 64)
TIMED = {
    "speedrun 1": images(256, 28, 28, 1, F=24, K=5),
    "speedrun 2": images(256, 12, 12, 24, F=32, K=3),
    "batch-norm net 1": images(256, 28, 28, 1, F=16, K=3, padding=1),
    "batch-norm net 5": images(256, 7, 7, 64, F=96, K=3, padding=1),
    "ResNet 64": {**RESNET, "F": 64, "K": 3, "padding": 1},
    "ResNet 128": images(8, 28, 28, 128, F=128, K=3, padding=1),
    "ResNet 256": images(8, 14, 14, 256, F=256, K=3, padding=1),
    "ResNet 64-128, stride 2": {**RESNET, "F": 128, "K": 3, "stride": 2, "padding": 1},
    "ResNet 256-64, 1x1": images(8, 28, 28, 256, F=64, K=1),
    # Every tile has tails: of rows, channels and filters.
    "odd sizes": images(17, 15, 13, 19, F=37, K=3, padding=1),
}


def taps(K):
    """Return a kernel's (height, width)."""
    return (K, K) if isinstance(K, int) else K


def conv2d_arguments(*, N, H, W, C, F, K, groups=1, bias=True, **options):
    arrays = {"x": normal(0, N, H, W, C), "w": normal(1, F, *taps(K), C // groups)}
    options |= {"groups": groups} if groups > 1 else {}
    return {**arrays, "b": normal(2, F) if bias else None, **options}


def conv2d_gradient_arguments(*, bias=True, relu=False, **sizes):
    arguments = conv2d_arguments(**sizes)
    del arguments["b"]
    window = {key: value for key, value in sizes.items() if key in UNEVEN}
    OH, OW = reference.window_geometry(arguments["x"].shape, sizes["K"], **window).output
    return {"dy": normal(3, sizes["N"], OH, OW, sizes["F"]), **arguments}


def conv2d_backward(dy, x, w, need_dx=True, need_dw=True, need_db=True, **window):
    dx, dw, db = reference.conv2d_backward(dy, x, w, **window)
    return dx if need_dx else None, dw if need_dw else None, db if need_db else None


def operations(*, N, H, W, F, K, C, groups=1, **window):
    """Return those of one product: a multiply-add is two, and padding counts."""
    OH, OW = reference.window_geometry((N, H, W, C), K, **window).output
    KH, KW = taps(K)
    return 2 * N * OH * OW * F * KH * KW * C // groups


class TorchWindow:
    """PyTorch's arguments for a window: it pads both sides of an axis alike, so we may before."""

    def __init__(self, x, kernel, *, groups=1, **window):
        N, C, H, W = x.shape
        g = reference.window_geometry((N, H, W, C), kernel, **window)
        (top, bottom), (left, right) = g.padding
        self.even = top == bottom and left == right
        self.sides, self.padding = (left, right, top, bottom), (top, left) if self.even else (0, 0)
        self.inside = ..., slice(top, top + H), slice(left, left + W)
        self.kernel, self.stride, self.dilation, self.groups = (
            g.kernel,
            g.stride,
            g.dilation,
            groups,
        )

    def padded(self, torch, x):
        return x if self.even else torch.nn.functional.pad(x, self.sides)

    def cropped(self, dx):
        return dx if self.even else dx[self.inside]


def torch_conv2d(torch, x, w, b, relu=False, **options):
    g = TorchWindow(x, w.shape[2:], **options)
    x = g.padded(torch, x)

    def run():
        y = torch.nn.functional.conv2d(x, w, b, g.stride, g.padding, g.dilation, g.groups)
        return torch.relu(y) if relu else y

    return run


def torch_conv2d_backward(torch, dy, x, w, need_dx=True, need_dw=True, need_db=True, **options):
    g = TorchWindow(x, w.shape[2:], **options)
    x, wanted = g.padded(torch, x), [need_dx, need_dw, need_db]
    window = ([len(w)], g.stride, g.padding, g.dilation, False, [0, 0], g.groups)

    def run():
        dx, dw, db = torch.ops.aten.convolution_backward(dy, x, w, *window, wanted)
        return g.cropped(dx) if need_dx else None, dw, db

    return run


def im2col_arguments(*, N, H, W, C, K, F=None, **window):
    return {"x": normal(0, N, H, W, C), "kernel": K, **window}


def col2im_arguments(*, N, H, W, C, K, F=None, **window):
    OH, OW = reference.window_geometry((N, H, W, C), K, **window).output
    KH, KW = taps(K)
    cols = normal(1, N * OH * OW, KH * KW * C)
    return {"cols": cols, "x_shape": (N, H, W, C), "kernel": K, **window}


def torch_im2col(torch, x, kernel, **window):
    g = TorchWindow(x, kernel, **window)
    options = {"dilation": g.dilation, "padding": g.padding, "stride": g.stride}
    x = g.padded(torch, x)

    def run():
        cols = torch.nn.functional.unfold(x, g.kernel, **options)
        return cols.unflatten(1, (x.shape[1], -1)).permute(0, 3, 2, 1).flatten(2).flatten(0, 1)

    return run


def torch_col2im(torch, cols, x_shape, kernel, **window):
    N, H, W, C = x_shape
    g = TorchWindow(cols.new_empty(N, C, H, W), kernel, **window)
    left, right, top, bottom = (0,) * 4 if g.even else g.sides
    options = {"dilation": g.dilation, "padding": g.padding, "stride": g.stride}
    KH, KW = g.kernel

    def run():
        by_image = cols.reshape(N, -1, KH * KW, C).permute(0, 3, 2, 1).flatten(1, 2)
        size = H + top + bottom, W + left + right
        return g.cropped(torch.nn.functional.fold(by_image, size, g.kernel, **options))

    return run


WINDOW_SIZES = {
    "several blocks, a tail": images(
        5, 15, 13, 9, K=(2, 3), stride=(1, 2), padding=((1, 0), (1, 1))
    ),
    "one pixel": images(1, 1, 1, 1, K=1),
    "one pixel, eight taps of nine in the padding": images(1, 1, 1, 3, K=3, padding=1),
    "a stride at the limit of an int": images(2, 3, 3, 2, K=2, stride=2**31 - 1),
    "pixels that no window covers": images(2, 3, 3, 2, K=2, stride=5),
    "holes as wide as the image": images(1, 5, 7, 2, K=2, dilation=(4, 6)),
    "images without a pixel, padded": images(2, 0, 3, 2, K=1, padding=1),
    "primes; more elements than one block's 8192": images(3, 47, 31, 2, K=3, padding="same"),
    "every side and axis otherwise": images(2, 4, 3, 8, K=(2, 3), **UNEVEN),
}
WINDOW_SIZES |= {
    f"{C} channels": images(2, 5, 4, C, K=(3, 2), padding=1)
    for C in (1, 7, 24, 33)  # below, at and above registers
}
WINDOW_SMALL = images(1, 4, 4, 2, K=2)

CASES = [
    Case(
        "conv2d",
        conv2d_arguments,
        reference.conv2d,
        SIZES
        | {
            "no bias": SIZES["primes; k of 603 takes three steps"] | {"bias": False},
            "no bias, a ReLU": SIZES["whole registers by group"] | {"bias": False, "relu": True},
            "a ReLU": SIZES["every side and axis otherwise"] | {"relu": True},
        },
        SMALL,
        images=True,
        in_pytorch=lambda H, W, **_: H * W > 0,
        pytorch=torch_conv2d,
        refused=[
            ({"x": zeros(15, 13, 9)}, r"x: got shape \(15, 13, 9\), expected 4 dimensions"),
            ({"w": zeros(10, 9, 9)}, r"w: got shape \(10, 9, 9\), expected 4 dimensions"),
            ({"w": zeros(10, 3, 3, 8)}, r"w: got .* 8\), expected \(10, 3, 3, 9\)"),
            ({"b": zeros(9)}, r"b: got shape \(9,\), expected \(10,\) "),
            ({"b": zeros(1, 10)}, r"b: got shape \(1, 10\), expected \(10,\)"),
            ({"x": zeros(5, 15, 13, 0)}, r"x: got .* 0\), expected images with channels"),
            ({"w": zeros(0, 3, 3, 9)}, r"w: got shape \(0, .*, expected filters with taps"),
            ({"w": zeros(10, 0, 3, 9)}, r"w: got shape \(10, 0, .*, expected filters with taps"),
            ({"w": zeros(10, 3, 3, 0)}, r"w: got .* 0\), expected filters with taps"),
            ({"groups": 2}, "groups: got 2 for 9 channels and 10 filters, expected"),
            ({"groups": 0}, "groups: got 0, expected at least 1"),
            ({"groups": 3, "w": zeros(9, 3, 3, 9)}, r"w: got .*, expected \(9, 3, 3, 3\)"),
            ({"w": zeros(10, 18, 3, 9)}, "kernel: extends over 18, larger than .* height 17"),
            ({"dilation": (1, 8)}, "kernel: extends over 17, larger than .* width 15"),
            ({"padding": "full"}, "padding: got 'full', expected .* 'valid' or 'same'"),
        ],
        mistyped=[
            ({"groups": 1.0}, "groups: got 1.0, expected a whole number"),
            ({"groups": np.timedelta64(1)}, "groups: got np.timedelta64"),
            ({"stride": "2"}, "stride: got '2', expected a whole number"),
            ({"padding": np.ones(2)}, "padding: got array"),
        ],
        row="conv2d forward",
        timed=TIMED,
        operations=operations,
    ),
    Case(
        "conv2d_backward",
        conv2d_gradient_arguments,
        conv2d_backward,
        SIZES
        | {
            "no dx": SIZES["several blocks, a tail"] | {"need_dx": False},
            "no dw": SIZES["several blocks, a tail"] | {"need_dw": False},
            "no db": SIZES["several blocks, a tail"] | {"need_db": False},
            "dx alone": SIZES["several blocks, a tail"] | {"need_dw": False, "need_db": False},
            "db alone": SIZES["several blocks, a tail"] | {"need_dx": False, "need_dw": False},
        },
        SMALL,
        DIFFERENCES,
        gradients=("x", "w", "b"),
        images=True,
        in_pytorch=lambda H, W, **_: H * W > 0,
        pytorch=torch_conv2d_backward,
        refused=[
            ({"dy": zeros(5, 15, 13, 9)}, r"dy: got .*, expected \(5, 15, 13, 10\)"),
            ({"stride": 2}, r"dy: got .*, expected \(5, 8, 7, 10\)"),
            ({"x": zeros(4, 15, 13, 9)}, r"dy: got .*, expected \(4, 15, 13, 10\)"),
        ],
        row="conv2d gradients",
        timed=TIMED,
        operations=lambda **sizes: 2 * operations(**sizes),
    ),
    Case(
        "im2col",
        im2col_arguments,
        reference.im2col,
        WINDOW_SIZES,
        WINDOW_SMALL,
        rounding=0,
        images=True,
        in_pytorch=lambda H, W, **_: H * W > 0,
        pytorch=torch_im2col,
        refused=[
            ({"x": zeros(15, 13)}, r"x: got shape \(15, 13\), expected 4 dimensions"),
            ({"kernel": 99}, "kernel: extends over 99, larger than"),
        ],
    ),
    Case(
        "col2im",
        col2im_arguments,
        reference.col2im,
        WINDOW_SIZES,
        WINDOW_SMALL,
        images=True,
        in_pytorch=lambda H, W, **_: H * W > 0,
        pytorch=torch_col2im,
        refused=[
            ({"cols": zeros(5 * 105, 9)}, r"cols: got .*, expected \(525, 54\)"),
            ({"x_shape": (1, 2, 3)}, r"x_shape: got \(1, 2, 3\), expected \(N, H, W, C\)"),
            ({"x_shape": (5, 15, -1, 9)}, "x_shape: got -1, expected at least 0"),
        ],
        mistyped=[
            ({"x_shape": None}, r"x_shape: got None, expected \(N, H, W, C\)"),
            ({"x_shape": "NHWC"}, r"x_shape: got 'NHWC', expected \(N, H, W, C\)"),
        ],
    ),
]
