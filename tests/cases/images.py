"""Normalisation, affine warps given and random, dropout and its gradient."""

import numpy as np

from tests.cases.case import Case, axes, images, zeros
from tests.lib import reference
from tests.lib.support import normal

# Of random numbers


def philox(seed, index, offset):
    """Return the four words of each block of Philox4x32-10 (Salmon et al., 2011), (..., 4)."""
    half, low = np.uint64(32), np.uint64(2**32 - 1)
    index, seed, offset = np.asarray(index, np.uint64), np.uint64(seed), np.uint64(offset)
    w0, w1, w2, w3 = index & low, index >> half, offset & low + 0 * index, offset >> half
    key0, key1 = int(seed & low), int(seed >> half)
    for _ in range(10):
        a, b = w0 * np.uint64(0xD2511F53), w2 * np.uint64(0xCD9E8D57)
        w0, w1 = (b >> half) ^ w1 ^ np.uint64(key0), b & low
        w2, w3 = (a >> half) ^ w3 ^ np.uint64(key1), a & low
        key0, key1 = (key0 + 0x9E3779B9) % 2**32, (key1 + 0xBB67AE85) % 2**32
    return np.stack(np.broadcast_arrays(w0, w1, w2, w3), axis=-1)


def uniform(words):
    """Return numbers in [0, 1) with 24 bits."""
    return (words >> np.uint64(8)) / 2**24


# Dropout

DROPOUT_SIZES = {
    "several blocks, a tail": {"count": (5, 15, 13, 9), "p": 0.5, "seed": 1},
    "no axis": {"count": (), "p": 0.25},
    "one element": {"count": 1, "p": 0.9},
    "none": {"count": (0, 3), "p": 0.25},
    "less than a block of four": {"count": 3, "p": 0.25},
    "one element more than one": {"count": 5, "p": 0.25},
    "nothing dropped": {"count": (7, 11, 13), "p": 0},
    "primes": {"count": (7, 11, 13), "p": 0.25},
    "most dropped": {"count": (3, 10_007), "p": 0.9},
    "the largest seed": {"count": 99, "p": 0.3, "seed": 2**64 - 1, "offset": 7},
    "the largest offset": {"count": 99, "p": 0.3, "seed": 12345, "offset": 2**64 - 1},
}


def dropout_arguments(*, count, p=0.5, seed=5, offset=0):
    x = np.asarray(normal(0, *axes(count)))
    return {"x": x, "p": p, "seed": seed, "offset": offset}


def dropout(x, p, seed, offset):
    words = philox(seed, np.arange(-(-x.size // 4)), offset).reshape(-1)[: x.size]
    mask = (uniform(words) >= np.float32(p)).reshape(x.shape)
    return np.where(mask, x / (1 - p), 0), mask.astype(np.uint8)


def dropout_gradient_arguments(**sizes):
    arguments = dropout_arguments(**sizes)
    _, mask = dropout(**arguments)
    return {"dy": np.asarray(normal(1, *mask.shape)), "mask": mask, "p": arguments["p"]}


def torch_dropout_backward(torch, dy, mask, p):
    mask = mask.bool()
    return lambda: torch.ops.aten.native_dropout_backward(dy, mask, 1 / (1 - p))


# Warps

WARP_SIZES = {
    "several blocks, a tail": images(5, 15, 13, 9, pixels=True),
    "floating": images(5, 15, 13, 9),
    "no axis of channels": images(5, 15, 13, None),
    "one pixel": images(1, 1, 1, 1),
    "an empty batch": images(0, 4, 4, 1),
    "images without a pixel": images(2, 0, 3, 1),
    "another fill": images(3, 7, 9, 2, fill=-3.5),
    "pixels that leave the range": images(3, 7, 9, 2, pixels=True, fill=300),
    "far outside": images(3, 7, 9, 2, scale=4),
    "pixels of more than one block": images(3, 61, 59, 1, pixels=True),
    "more than a core's own cache keeps": images(3, 151, 149, 3),
}
DIGITS = {"H": 28, "W": 28}


def some_images(N, H, W, C, pixels):
    shape = (N, H, W) if C is None else (N, H, W, C)
    if pixels:
        return np.random.default_rng(8).integers(0, 256, shape, np.uint8)
    return normal(0, *shape)


def warp_arguments(*, N, H, W, C=1, pixels=False, scale=0.1, fill=0):
    matrix = np.tile(np.eye(2, 3), (N, 1, 1)) + scale * normal(9, N, 2, 3)
    return {"images": some_images(N, H, W, C, pixels), "matrix": matrix, "fill": fill}


def affine_warp(images, matrix, fill):
    channels = images if images.ndim == 4 else images[..., None]
    return reference.affine_warp(channels, matrix, fill=fill).reshape(images.shape)


def torch_affine_warp(torch, images, matrix, fill):
    """Maps between pixels as maps between PyTorch's coordinates, which go from -1 to 1."""
    H, W = images.shape[2:]
    images = images.to(matrix.dtype)
    to_pixels = matrix.new_tensor(
        [[W / 2, 0, (W - 1) / 2], [0, H / 2, (H - 1) / 2], [0, 0, 1]], dtype=torch.float64
    )
    inside = (to_pixels.inverse()[:2, :2] @ (matrix.double() @ to_pixels)).clone()
    inside[:, :, 2] += to_pixels.inverse()[:2, 2]
    theta = inside.to(matrix.dtype)

    def run():
        grid = torch.nn.functional.affine_grid(theta, list(images.shape), align_corners=False)
        return torch.nn.functional.grid_sample(images, grid, align_corners=False)

    return run


AUGMENT_SIZES = {
    "several blocks, a tail": images(5, 15, 13, 9, rotate=9, shift=2, zoom=0.1, pixels=True),
    "floating": images(5, 15, 13, 9, rotate=90, shift=2, zoom=0.5),
    "no axis of channels": images(7, 9, 9, None, rotate=40, shift=2, zoom=0.3),
    "turned alone": images(3, 8, 9, 1, rotate=180),
    "zoomed alone": images(3, 8, 9, 1, zoom=0.9),
    "shifted alone, the largest seed": images(3, 8, 9, 1, shift=3.5, seed=2**64 - 1),
    "the largest offset": images(3, 8, 9, 1, rotate=9, shift=2, zoom=0.1, offset=2**64 - 1),
    "nothing changed": images(3, 5, 7, 2),
    "an empty batch": images(0, 4, 4, 1, rotate=9),
}


def augment_arguments(*, N, H, W, C=1, pixels=False, seed=1, **options):
    return {"images": some_images(N, H, W, C, pixels), "seed": seed, **options}


def augment(images, seed, rotate=0, shift=0, zoom=0, offset=0):
    N, H, W = images.shape[:3]
    drawn = 2 * uniform(philox(seed, np.arange(N), offset)) - 1
    more = 2 * uniform(philox(seed, np.arange(N), 2**64 - 1 - offset)) - 1
    angle, size = np.radians(rotate * drawn[:, 0]), 1 + zoom * drawn[:, 1]
    cosine, sine = np.cos(angle) / size, np.sin(angle) / size
    x, y = (W - 1) / 2, (H - 1) / 2  # the centre, which is at (from_x, from_y) afterwards
    from_x, from_y = x + shift * drawn[:, 2], y + shift * more[:, 0]
    matrix = np.array(
        [
            [cosine, sine, x - cosine * from_x - sine * from_y],
            [-sine, cosine, y + sine * from_x - cosine * from_y],
        ]
    )
    return affine_warp(images, np.moveaxis(matrix, 2, 0), 0)


def normalize_arguments(*, N, H, W, C=1, mean=33.0, std=78.0):
    return {"images": some_images(N, H, W, C, True), "mean": mean, "std": std}


CASES = [
    Case(
        "normalize",
        normalize_arguments,
        lambda images, mean, std: (images.astype(float) - mean) / std,
        {
            "several blocks, a tail": images(5, 15, 13, 9, mean=9, std=5),
            "no axis of channels": images(3, 31, 97, None),
            "an empty batch": images(0, 4, 4, 1),
        },
        images(1, 4, 4, None, mean=9, std=5),
        coarsest="float32",  # by default, the result is
        pytorch=lambda torch, images, mean, std: (
            lambda: images.to(torch.float32).sub_(mean).div_(std)
        ),
        refused=[
            ({"std": 0}, "std: got 0.0, expected more than 0"),
            ({"std": 1e-39}, r"normalize: inv_std: got 1.0*1e\+39, which does not fit float32"),
        ],
        mistyped=[
            ({"dtype": np.int32}, "dtype: got int32 on .*, expected one of float32"),
            ({"dtype": ">f4"}, "dtype: got >f4 on"),  # kernels would write bytes in another order
            ({"dtype": None}, "dtype: got None on"),
            ({"dtype": "float31"}, "dtype: got 'float31' on"),
            ({"dtype": "f4,("}, r"dtype: got 'f4,\(' on"),  # a SyntaxError of NumPy
        ],
        row="normalize",
        timed={"16384 digits": {"N": 16384, **DIGITS}},
    ),
    Case(
        "affine_warp",
        warp_arguments,
        affine_warp,
        WARP_SIZES,
        images(1, 4, 4, None, pixels=True),
        images=True,
        pytorch=torch_affine_warp,
        in_pytorch=lambda N, H, W, C=1, fill=0, **_: N * H * W > 0 and bool(C) and fill == 0,
        refused=[
            ({"images": zeros(15, 13)}, r"images: got .*, expected \(N, H, W, C\) or"),
            ({"matrix": zeros(5, 3, 3)}, r"matrix: got .*, expected \(5, 2, 3\)"),
            ({"matrix": zeros(2, 3)}, r"matrix: got .*, expected \(5, 2, 3\)"),
            ({"fill": np.nan}, "fill: got nan, expected at least -3.4"),
            ({"fill": 1e39}, r"fill: got 1e\+39, expected at least -3.4.* and at most 3.4"),
        ],
        row="affine_warp",
        timed={"1024 digits": {"N": 1024, **DIGITS}},
    ),
    Case(
        "augment",
        augment_arguments,
        augment,
        AUGMENT_SIZES,
        images(1, 4, 4, None, rotate=9, pixels=True),
        coarsest="float32",  # the maps are
        refused=[
            ({"images": zeros(9)}, r"images: got shape \(9,\), expected \(N, H, W, C\)"),
            ({"rotate": -1}, "rotate: got -1, expected at least 0"),
            ({"shift": np.inf}, "shift: got inf, expected at least 0"),
            ({"zoom": 1}, "zoom: got 1, expected at least 0 and below 1"),
        ],
        mistyped=[
            ({"offset": "1"}, "offset: got '1', expected a whole number"),
            ({"seed": np.timedelta64(1)}, "seed: got np.timedelta64"),
        ],
    ),
    Case(
        "dropout",
        dropout_arguments,
        dropout,
        DROPOUT_SIZES,
        {"count": (1, 4, 4, 2)},
        refused=[
            ({"p": 1}, "p: got 1, expected at least 0 and below 1"),
            ({"p": -0.1}, "p: got -0.1, expected at least 0 and below 1"),
            ({"p": 10**400}, "p: got 1000.*, expected at least 0 and below 1"),
            ({"seed": -1}, r"seed: got -1, expected a whole number from 0 to 2\*\*64 - 1"),
            ({"offset": 2**64}, "offset: got 18446744073709551616, expected a whole number"),
        ],
        mistyped=[
            ({"p": None}, "p: got None, expected a number"),
            ({"seed": 0.5}, "seed: got 0.5, expected a whole number"),
            ({"seed": None}, "seed: got None, expected a whole number"),
        ],
    ),
    Case(
        "dropout_backward",
        dropout_gradient_arguments,
        reference.dropout_backward,
        DROPOUT_SIZES,
        {"count": (1, 2, 2, 2)},
        gradients=("x",),
        pytorch=torch_dropout_backward,
        refused=[
            ({"mask": zeros(5, 15, 7, 9, dtype="u1")}, r"mask: .*expected \(5, 15, 13, 9\)"),
            ({"p": np.inf}, "p: got inf, expected at least 0 and below 1"),
        ],
    ),
]
