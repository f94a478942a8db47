"""The table of the kernel suite's rows: functions and sizes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from bench.kernels import products, streams, tabled
from bench.kernels.contenders import Row
from tests.cases import CASES


def rows(smoke: bool = False) -> Iterator[Row]:
    """Yield every row; with `smoke`, with batches of two and few elements."""
    batch = (lambda n: 2) if smoke else (lambda n: n)
    count = (lambda n: 1000) if smoke else (lambda n: n)
    images = {"H": 56, "W": 56, "C": 64}
    convolutions = {
        "speedrun 1": {"N": 256, "H": 28, "W": 28, "C": 1, "F": 24, "K": 5},
        "speedrun 2": {"N": 256, "H": 12, "W": 12, "C": 24, "F": 32, "K": 3},
        "batch-norm net 1": {"N": 256, "H": 28, "W": 28, "C": 1, "F": 16, "K": 3, "padding": 1},
        "batch-norm net 5": {"N": 256, "H": 7, "W": 7, "C": 64, "F": 96, "K": 3, "padding": 1},
        "ResNet 64": {"N": 8, **images, "F": 64, "K": 3, "padding": 1},
        "ResNet 128": {"N": 8, "H": 28, "W": 28, "C": 128, "F": 128, "K": 3, "padding": 1},
        "ResNet 256": {"N": 8, "H": 14, "W": 14, "C": 256, "F": 256, "K": 3, "padding": 1},
        "ResNet 64-128, stride 2": {"N": 8, **images, "F": 128, "K": 3, "stride": 2, "padding": 1},
        "ResNet 256-64, 1x1": {"N": 8, "H": 28, "W": 28, "C": 256, "F": 64, "K": 1},
        # Every tile has tails: of rows, channels and filters.
        "odd sizes": {"N": 17, "H": 15, "W": 13, "C": 19, "F": 37, "K": 3, "padding": 1},
    }
    for shape, sizes in convolutions.items():
        sizes = sizes | {"N": batch(sizes["N"])}
        # Grey images are the network's input: that layer needs no input gradient.
        parts = ["forward", "weight gradient", *["input gradient"] * (sizes["C"] > 1)]
        for part in parts:
            prepare = partial(products.convolution, part=part)
            yield Row(f"conv2d {part}", shape, "arithmetic", prepare, sizes)
    pools = {
        "speedrun 1": {"N": batch(256), "H": 24, "W": 24, "C": 24, "K": 2, "stride": 2},
        "ResNet stem": {
            **{"N": batch(16), "H": 112, "W": 112, "C": 64},
            **{"K": 3, "stride": 2, "padding": 1},
        },
    }
    for shape, sizes in pools.items():
        yield Row("max_pool2d", shape, "memory", streams.max_pool, sizes)
        yield Row("max_pool2d gradient", shape, "memory", streams.max_pool_gradient, sizes)
    large = {"N": batch(64), **images}
    yield Row("avg_pool2d", "2x2", "memory", streams.avg_pool, {**large, "K": 2})
    yield Row("avg_pool2d gradient", "2x2", "memory", streams.avg_pool_gradient, {**large, "K": 2})
    yield Row("global_avg_pool2d", "56x56", "memory", streams.global_avg_pool, large)
    for case in CASES.values():
        for shape, sizes in case.timed.items():
            few = {"N": batch, "count": count}
            sizes = {key: few[key](size) if key in few else size for key, size in sizes.items()}
            bound = "memory" if case.operations is None else "arithmetic"
            yield Row(case.row, shape, bound, partial(tabled.prepare, case), sizes)
    for N, C in ((256, 10), (16384, 10), (4096, 1000), (256, 32768)):
        sizes = {"N": batch(N), "C": C}
        name = "softmax_cross_entropy"
        yield Row(name, f"{N} x {C}", "memory", streams.softmax_cross_entropy, sizes)
    many = 2**24
    for name, shape, prepare, elements in (
        ("sgd", "speedrun", streams.sgd, 215_194),
        ("sgd", "16M", streams.sgd, many),
        ("adam", "speedrun", streams.adam, 215_194),
        ("adam", "16M", streams.adam, many),
    ):
        yield Row(name, shape, "memory", prepare, {"count": count(elements)})
    digits = {"H": 28, "W": 28}
    yield Row(
        "normalize", "16384 digits", "memory", streams.normalize, {"N": batch(16384), **digits}
    )
    yield Row(
        "affine_warp", "1024 digits", "memory", streams.affine_warp, {"N": batch(1024), **digits}
    )
