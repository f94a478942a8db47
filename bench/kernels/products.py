"""Rows limited by arithmetic: convolutions and dense layers."""

from __future__ import annotations

from functools import partial

import kernels
from bench.kernels.contenders import (
    Arrays,
    Contender,
    Work,
    contenders,
    judged,
    layouts,
    read,
    size_of,
)
from bench.peers import naive, numpy_calls

#: With more operations, naive NumPy takes a second and more, and naive CuPy's array of all products
#: takes 4 GB.
NAIVE_OPERATIONS = {"cpu": 5e8, "cuda": 2e9}


def convolution(
    arrays: Arrays,
    part: str,
    *,
    N: int,
    H: int,
    W: int,
    C: int,
    F: int,
    K: int,
    stride: int = 1,
    padding: int = 0,
) -> Work:
    window = {"stride": stride, "padding": padding}
    x, w, b = arrays.normal(N, H, W, C), arrays.normal(F, K, K, C), arrays.normal(F)
    OH, OW = ((length + 2 * padding - K) // stride + 1 for length in (H, W))
    dy = arrays.normal(N, OH, OW, F)
    operations = 2 * N * OH * OW * F * K * K * C
    if part == "forward":
        arguments, moved = (x, w, b), size_of(x, w, b, dy)
        ours = Contender(lambda: kernels.conv2d(x, w, b, **window), read)
    else:
        arguments, moved = (dy, x, w), size_of(dy, w, x)
        both = partial(kernels.conv2d_backward, dy, x, w, **window)
        weights_only = partial(both, need_dx=False)
        if part == "weight gradient":
            ours = Contender(weights_only, read)
        else:
            # No public function gives only dx: the time of dw and db is subtracted.
            ours = Contender(both, lambda result: read(result[0]), less=weights_only)
    call = {"forward": "conv2d"}.get(part, f"conv2d_{part.replace(' ', '_')}")
    expected = judged(getattr(numpy_calls, call), *arguments, **window)
    small = operations <= NAIVE_OPERATIONS[arrays.target.name]
    found = contenders(
        arrays,
        ours,
        lambda: getattr(numpy_calls, call)(*arguments, **window),
        layouts(call, *arguments, **window),
        (lambda: getattr(naive, call)(*arguments, **window)) if small else None,
    )
    return Work(moved, read(expected), found, operations)
