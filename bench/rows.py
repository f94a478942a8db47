"""The rows of the kernel suite: a function, sizes, its work counted, and who computes it.

`operations` are floating-point ones, two for a multiply-add, padding counted; `bytes` are those
of every array that must be read or written, once each unless a comment says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import kernels
import naive
import numpy_calls

try:
    import torch_calls
except ModuleNotFoundError:  # PyTorch is a peer where it is installed
    torch_calls = None

OURS = "kernels"
#: Beyond this many operations, einsum on NumPy takes a second and more.
_NAIVE_OPERATIONS_ON_CPU = 5e8


class Contender(NamedTuple):
    """A call, how to read its result as NumPy arrays, and a call whose time is taken off."""

    run: Callable[[], Any]
    read: Callable[[Any], list[Any]]
    less: Callable[[], Any] | None = None


@dataclass
class Work:
    """A row made ready."""

    bytes: int
    expected: list[Any]
    contenders: dict[str, Contender]
    operations: int = 0
    rtol: float = 1e-4


@dataclass(frozen=True)
class Row:
    """What is computed, on what sizes, and what bounds it: "arithmetic" or "memory"."""

    operation: str
    shape: str
    bound: str
    prepare: Callable[..., Work]
    sizes: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.operation}: {self.shape}"


class Arrays:
    """Random float32 arrays on a device, and results read from it."""

    def __init__(self, target: Any) -> None:
        self.target = target
        self.random = np.random.default_rng(0)

    @property
    def on_cpu(self) -> bool:
        return self.target.name == "cpu"

    def normal(self, *shape: int) -> Any:
        return self.target.array(self.random.standard_normal(shape, np.float32))

    def labels(self, count: int, classes: int) -> Any:
        return self.target.array(self.random.integers(0, classes, count))

    def pixels(self, *shape: int) -> Any:
        return self.target.array(self.random.integers(0, 256, shape, np.uint8))


def host(value: Any) -> np.ndarray:
    return value.get() if hasattr(value, "get") else np.asarray(value)


def read(result: Any) -> list[np.ndarray]:
    """Return the arrays in a result of ours, of NumPy's or of CuPy's."""
    results = result if isinstance(result, tuple) else (result,)
    return [host(value) for value in results if hasattr(value, "dtype")]


def wide(*values: Any) -> list[Any]:
    return [host(v).astype(np.float64) if host(v).dtype.kind == "f" else host(v) for v in values]


def size_of(*values: Any) -> int:
    return sum(value.nbytes for value in values)


def contenders(
    arrays: Arrays,
    ours: Contender,
    numpy: Callable[[], Any] | Contender,
    torch: dict[str, Callable[[], Any]],
    naively: Callable[[], Any] | None = None,
) -> dict[str, Contender]:
    """Return ours and the peers there are."""
    library = "NumPy" if arrays.on_cpu else "CuPy"
    numpy_calls.xp = naive.xp = np if arrays.on_cpu else __import__("cupy")
    found = {OURS: ours}
    found[library] = numpy if isinstance(numpy, Contender) else Contender(numpy, read)
    if naively is not None:
        found[f"naive {library}"] = Contender(naively, read)
    if torch_calls is not None:
        for name, make in torch.items():
            found[name] = Contender(*make())
            if not arrays.on_cpu:
                run, reader = make()
                found[f"{name}, compiled"] = Contender(torch_calls.torch.compile(run), reader)
    return found


def layouts(call: str, *arguments: Any, **options: Any) -> dict[str, Callable[[], Any]]:
    """Return a call of PyTorch in both of its memory formats."""
    names = {"PyTorch": "contiguous", "PyTorch channels_last": "channels_last"}
    return {
        name: lambda layout=layout: getattr(torch_calls, call)(layout, *arguments, **options)
        for name, layout in names.items()
    }


def torch(call: str, *arguments: Any, **options: Any) -> dict[str, Callable[[], Any]]:
    return {"PyTorch": lambda: getattr(torch_calls, call)(*arguments, **options)}


# Convolution


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
            # No public function gives dx alone: the time of dw and db is taken off.
            ours = Contender(both, lambda result: read(result[0]), less=weights_only)
    call = {"forward": "conv2d"}.get(part, f"conv2d_{part.replace(' ', '_')}")
    expected = getattr(numpy_calls, call)(*wide(*arguments), **window)
    small = operations <= _NAIVE_OPERATIONS_ON_CPU or not arrays.on_cpu
    found = contenders(
        arrays,
        ours,
        lambda: getattr(numpy_calls, call)(*arguments, **window),
        layouts(call, *arguments, **window),
        (lambda: getattr(naive, call)(*arguments, **window)) if small else None,
    )
    return Work(moved, read(expected), found, operations)


# Dense


def dense_forward(arrays: Arrays, *, N: int, inputs: int, outputs: int) -> Work:
    x, w, b = arrays.normal(N, inputs), arrays.normal(outputs, inputs), arrays.normal(outputs)
    found = contenders(
        arrays,
        Contender(lambda: kernels.dense(x, w, b), read),
        lambda: numpy_calls.dense(x, w, b),
        torch("dense", x, w, b),
    )
    expected = numpy_calls.dense(*wide(x, w, b))
    moved = size_of(x, w, b) + 4 * N * outputs
    return Work(moved, [expected], found, 2 * N * inputs * outputs)


def dense_gradients(arrays: Arrays, *, N: int, inputs: int, outputs: int) -> Work:
    """All three gradients."""
    dy, x = arrays.normal(N, outputs), arrays.normal(N, inputs)
    w = arrays.normal(outputs, inputs)
    found = contenders(
        arrays,
        Contender(lambda: kernels.dense_backward(dy, x, w), read),
        lambda: numpy_calls.dense_backward(dy, x, w),
        torch("dense_backward", dy, x, w),
    )
    expected = numpy_calls.dense_backward(*wide(dy, x, w))
    return Work(size_of(dy, x, w, x, w), list(expected), found, 4 * N * inputs * outputs)


# Pools


def max_pool(
    arrays: Arrays, *, N: int, H: int, W: int, C: int, K: int, stride: int, padding: int = 0
) -> Work:
    window = {"stride": stride, "padding": padding}
    x = arrays.normal(N, H, W, C)
    plain = stride == K and not padding
    found = contenders(
        arrays,
        Contender(lambda: kernels.max_pool2d(x, K, **window), lambda result: read(result[0])),
        lambda: numpy_calls.max_pool2d(x, K, **window)[0],
        layouts("max_pool2d", x, K, **window),
        (lambda: naive.max_pool2d(x, K)[0]) if plain else None,
    )
    y, argmax = numpy_calls.max_pool2d(*wide(x), K, **window)
    return Work(size_of(x, argmax) + 4 * y.size, [y], found)


def max_pool_gradient(
    arrays: Arrays, *, N: int, H: int, W: int, C: int, K: int, stride: int, padding: int = 0
) -> Work:
    window = {"stride": stride, "padding": padding}
    x = arrays.normal(N, H, W, C)
    y, argmax = kernels.max_pool2d(x, K, **window)
    dy = arrays.normal(*y.shape)
    mask = naive.max_pool2d(x, K)[1] if stride == K and not padding else None
    found = contenders(
        arrays,
        Contender(lambda: kernels.max_pool2d_backward(dy, argmax, x.shape, K, **window), read),
        lambda: numpy_calls.max_pool2d_backward(dy, argmax, x.shape, K, **window),
        layouts("max_pool2d_backward", dy, x, K, **window),
        None if mask is None else lambda: naive.max_pool2d_backward(dy, mask),
    )
    _, first = numpy_calls.max_pool2d(*wide(x), K, **window)
    expected = numpy_calls.max_pool2d_backward(*wide(dy), first, x.shape, K, **window)
    return Work(size_of(dy, argmax, x), [expected], found)


def avg_pool(arrays: Arrays, *, N: int, H: int, W: int, C: int, K: int) -> Work:
    x = arrays.normal(N, H, W, C)
    found = contenders(
        arrays,
        Contender(lambda: kernels.avg_pool2d(x, K), read),
        lambda: numpy_calls.avg_pool2d(x, K),
        layouts("avg_pool2d", x, K),
    )
    expected = numpy_calls.avg_pool2d(*wide(x), K)
    return Work(size_of(x) + 4 * expected.size, [expected], found)


def avg_pool_gradient(arrays: Arrays, *, N: int, H: int, W: int, C: int, K: int) -> Work:
    x, dy = arrays.normal(N, H, W, C), arrays.normal(N, H // K, W // K, C)
    found = contenders(
        arrays,
        Contender(lambda: kernels.avg_pool2d_backward(dy, x.shape, K), read),
        lambda: numpy_calls.avg_pool2d_backward(dy, x.shape, K),
        layouts("avg_pool2d_backward", dy, x, K),
    )
    expected = numpy_calls.avg_pool2d_backward(*wide(dy), x.shape, K)
    return Work(size_of(x, dy), [expected], found)


def global_avg_pool(arrays: Arrays, *, N: int, H: int, W: int, C: int) -> Work:
    x = arrays.normal(N, H, W, C)
    found = contenders(
        arrays,
        Contender(lambda: kernels.global_avg_pool2d(x), read),
        lambda: x.mean(axis=(1, 2)),
        layouts("global_avg_pool2d", x),
    )
    return Work(size_of(x) + 4 * N * C, [wide(x)[0].mean(axis=(1, 2))], found)


# Batch-norm


def batch_norm(arrays: Arrays, *, N: int, H: int, W: int, C: int) -> Work:
    """x is read twice: the statistics must be there before the first output."""
    x, gamma, beta = arrays.normal(N, H, W, C), arrays.normal(C), arrays.normal(C)
    running = arrays.normal(C), abs(arrays.normal(C))
    found = contenders(
        arrays,
        Contender(
            lambda: kernels.batch_norm(x, gamma, beta, *running, training=True),
            lambda result: read(result[0]),
        ),
        lambda: numpy_calls.batch_norm(x, gamma, beta),
        layouts("batch_norm", x, gamma, beta),
    )
    return Work(3 * size_of(x), [numpy_calls.batch_norm(*wide(x, gamma, beta))], found)


def batch_norm_gradient(arrays: Arrays, *, N: int, H: int, W: int, C: int) -> Work:
    """dy and x are read twice: dx needs the sums of both."""
    x, dy, gamma = arrays.normal(N, H, W, C), arrays.normal(N, H, W, C), arrays.normal(C)
    running = arrays.normal(C), abs(arrays.normal(C))
    _, saved = kernels.batch_norm(x, gamma, gamma, *running, training=True)
    found = contenders(
        arrays,
        Contender(lambda: kernels.batch_norm_backward(dy, x, gamma, saved), read),
        lambda: numpy_calls.batch_norm_backward(dy, x, gamma),
        layouts("batch_norm_backward", dy, x, gamma),
    )
    expected = numpy_calls.batch_norm_backward(*wide(dy, x, gamma))
    return Work(5 * size_of(x), list(expected), found)


# Softmax and cross-entropy


def softmax(arrays: Arrays, *, N: int, C: int) -> Work:
    x = arrays.normal(N, C)
    found = contenders(
        arrays,
        Contender(lambda: kernels.softmax(x), read),
        lambda: numpy_calls.softmax(x),
        torch("softmax", x),
    )
    return Work(2 * size_of(x), [numpy_calls.softmax(*wide(x))], found)


def softmax_cross_entropy(arrays: Arrays, *, N: int, C: int) -> Work:
    """Loss and gradient."""
    logits, labels = arrays.normal(N, C), arrays.labels(N, C)
    found = contenders(
        arrays,
        Contender(lambda: kernels.softmax_cross_entropy(logits, labels), read),
        lambda: numpy_calls.softmax_cross_entropy(logits, labels),
        torch("softmax_cross_entropy", logits, labels),
        (lambda: naive.softmax_cross_entropy(logits, labels)) if C <= 10 else None,
    )
    expected = numpy_calls.softmax_cross_entropy(*wide(logits, labels))
    return Work(2 * size_of(logits) + size_of(labels), list(expected), found)


# Elementwise, augmentation, optimizers


def relu(arrays: Arrays, *, count: int) -> Work:
    x = arrays.normal(count)
    found = contenders(
        arrays,
        Contender(lambda: kernels.relu(x), read),
        lambda: numpy_calls.relu(x),
        torch("relu", x),
    )
    return Work(2 * size_of(x), [numpy_calls.relu(*wide(x))], found)


def relu_gradient(arrays: Arrays, *, count: int) -> Work:
    y, dy = arrays.normal(count), arrays.normal(count)
    found = contenders(
        arrays,
        Contender(lambda: kernels.relu_backward(dy, y), read),
        lambda: numpy_calls.relu_backward(dy, y),
        torch("relu_backward", dy, y),
    )
    return Work(3 * size_of(y), [numpy_calls.relu_backward(*wide(dy, y))], found)


def normalize(arrays: Arrays, *, N: int, H: int, W: int) -> Work:
    images = arrays.pixels(N, H, W, 1)
    found = contenders(
        arrays,
        Contender(lambda: kernels.normalize(images, 33.0, 78.0), read),
        lambda: numpy_calls.normalize(images, 33.0, 78.0),
        torch("normalize", images, 33.0, 78.0),
    )
    return Work(5 * images.size, [(host(images) - 33.0) / 78.0], found)


def affine_warp(arrays: Arrays, *, N: int, H: int, W: int) -> Work:
    """What `augment` does once it has drawn its maps."""
    images = arrays.normal(N, H, W, 1)
    matrix = arrays.target.array(
        np.eye(2, 3, dtype=np.float32) + 0.1 * host(arrays.normal(N, 2, 3))
    )
    found = contenders(
        arrays,
        Contender(lambda: kernels.affine_warp(images, matrix), read),
        lambda: numpy_calls.affine_warp(images, matrix),
        layouts("affine_warp", images, matrix),
    )
    expected = numpy_calls.affine_warp(*wide(images, matrix))
    # Positions beyond a hundred pixels are computed in float32, by three libraries.
    return Work(2 * size_of(images) + size_of(matrix), [expected], found, rtol=2e-3)


def sgd(arrays: Arrays, *, count: int) -> Work:
    """Nesterov's momentum: reads param, grad and velocity, writes param and velocity."""
    settings = {"lr": 1e-3, "momentum": 0.9}
    param, grad, velocity = arrays.normal(count), arrays.normal(count), arrays.normal(count) * 0
    judged = wide(param, grad, velocity)
    numpy_calls.sgd_step(*judged, **settings)
    mine, theirs = ([param.copy(), velocity.copy()] for _ in range(2))
    found = contenders(
        arrays,
        updating(
            mine,
            lambda: kernels.sgd_step(mine[0], grad, mine[1], nesterov=True, **settings),
        ),
        updating(theirs, lambda: numpy_calls.sgd_step(theirs[0], grad, theirs[1], **settings)),
        optimizer("SGD", param, grad, nesterov=True, **settings),
    )
    return Work(5 * size_of(param), [judged[0]], found)


def adam(arrays: Arrays, *, count: int) -> Work:
    """Reads param, grad and both moments, writes all but grad."""
    param, grad = arrays.normal(count), arrays.normal(count)
    judged = wide(param, grad, 0 * param, 0 * param)
    numpy_calls.adam_step(*judged, lr=1e-3)
    mine, theirs = ([param.copy(), 0 * param, 0 * param] for _ in range(2))
    found = contenders(
        arrays,
        updating(mine, lambda: kernels.adam_step(mine[0], grad, *mine[1:], step=1, lr=1e-3)),
        updating(theirs, lambda: numpy_calls.adam_step(theirs[0], grad, *theirs[1:], lr=1e-3)),
        optimizer("Adam", param, grad, lr=1e-3),
    )
    return Work(7 * size_of(param), [judged[0]], found)


def updating(state: list[Any], step: Callable[[], Any]) -> Contender:
    """Return a step in place, whose result is the parameter after it."""
    return Contender(step, lambda _: [host(state[0]).copy()])


def optimizer(kind: str, param: Any, grad: Any, **settings: Any) -> dict[str, Callable[[], Any]]:
    return {
        "PyTorch": lambda: torch_calls.optimizer(
            getattr(torch_calls.torch.optim, kind), param, grad, **settings
        )
    }


# The table


def rows(smoke: bool = False) -> Iterator[Row]:
    """Yield every row; with `smoke`, on batches of two and few elements."""
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
        # Tails in every tile, of rows, channels and filters.
        "odd sizes": {"N": 17, "H": 15, "W": 13, "C": 19, "F": 37, "K": 3, "padding": 1},
    }
    for shape, sizes in convolutions.items():
        sizes = sizes | {"N": batch(sizes["N"])}
        # No layer comes before one of grey images: it needs no input gradient.
        parts = ["forward", "weight gradient", *["input gradient"] * (sizes["C"] > 1)]
        for part in parts:
            prepare = partial(convolution, part=part)
            yield Row(f"conv2d {part}", shape, "arithmetic", prepare, sizes)
    matrices = {
        "speedrun 1": {"N": 256, "inputs": 800, "outputs": 256},
        "speedrun 2": {"N": 256, "inputs": 256, "outputs": 10},
        "large": {"N": 1024, "inputs": 1024, "outputs": 1024},
        "odd sizes": {"N": 33, "inputs": 129, "outputs": 67},
    }
    for shape, sizes in matrices.items():
        sizes = sizes | {"N": batch(sizes["N"])}
        yield Row("dense forward", shape, "arithmetic", dense_forward, sizes)
        yield Row("dense gradients", shape, "arithmetic", dense_gradients, sizes)
    pools = {
        "speedrun 1": {"N": batch(256), "H": 24, "W": 24, "C": 24, "K": 2, "stride": 2},
        "ResNet stem": {
            **{"N": batch(16), "H": 112, "W": 112, "C": 64},
            **{"K": 3, "stride": 2, "padding": 1},
        },
    }
    for shape, sizes in pools.items():
        yield Row("max_pool2d", shape, "memory", max_pool, sizes)
        yield Row("max_pool2d gradient", shape, "memory", max_pool_gradient, sizes)
    large = {"N": batch(64), **images}
    yield Row("avg_pool2d", "2x2", "memory", avg_pool, {**large, "K": 2})
    yield Row("avg_pool2d gradient", "2x2", "memory", avg_pool_gradient, {**large, "K": 2})
    yield Row("global_avg_pool2d", "56x56", "memory", global_avg_pool, large)
    for shape, sizes in {
        "14x14, 32 channels": {"N": batch(256), "H": 14, "W": 14, "C": 32},
        "56x56, 64 channels": large,
    }.items():
        yield Row("batch_norm", shape, "memory", batch_norm, sizes)
        yield Row("batch_norm gradient", shape, "memory", batch_norm_gradient, sizes)
    for N, C in ((256, 10), (16384, 10), (4096, 1000), (256, 32768)):
        sizes = {"N": batch(N), "C": C}
        if C >= 1000:
            yield Row("softmax", f"{N} x {C}", "memory", softmax, sizes)
        name = "softmax_cross_entropy"
        yield Row(name, f"{N} x {C}", "memory", softmax_cross_entropy, sizes)
    many = 2**24
    for name, shape, prepare, elements in (
        ("relu", "16M", relu, many),
        ("relu gradient", "16M", relu_gradient, many),
        ("sgd", "speedrun", sgd, 215_194),
        ("sgd", "16M", sgd, many),
        ("adam", "speedrun", adam, 215_194),
        ("adam", "16M", adam, many),
    ):
        yield Row(name, shape, "memory", prepare, {"count": count(elements)})
    digits = {"H": 28, "W": 28}
    yield Row("normalize", "16384 digits", "memory", normalize, {"N": batch(16384), **digits})
    yield Row("affine_warp", "1024 digits", "memory", affine_warp, {"N": batch(1024), **digits})
