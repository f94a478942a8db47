"""The network of `naive.py` on NumPy or CuPy, with the functions of `worker_cnn`.

python -m bench.peers.worker_naive DEVICE FOLDER PRODUCTS, with PRODUCTS "naive" or "BLAS".
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

from bench.peers import naive, numpy_calls
from bench.peers.worker import serve

network: Any = None


def load(described: dict[str, Any]) -> None:
    global network, settings, smoothing
    weights = dict(np.load(described["weights"]))
    products = {"naive": naive, "BLAS": numpy_calls}[products_name]
    network = naive.Network(described["layers"], weights, products)
    _, settings = described["optimizer"]
    smoothing = described["label_smoothing"]


def losses(batch_size: int, steps: int) -> list[float]:
    """Return the losses of steps on the first images, the same batch each time."""
    return [_step(images[:batch_size], labels[:batch_size]) for _ in range(steps)]


def train(batch_size: int, count: int) -> float:
    """Train on `count` images and return the seconds of the steps."""
    start = time.perf_counter()
    for first in range(0, count, batch_size):
        chosen = slice(first, first + batch_size)
        _step(images[chosen], labels[chosen])
    return time.perf_counter() - start


def _step(pixels: Any, expected: Any) -> float:
    global statistics
    if statistics is None:
        statistics = pixels.mean(), pixels.std()
    x = naive.grey_images(pixels, *statistics)
    return float(network.step(x, expected, settings["lr"], settings["momentum"], smoothing))


if __name__ == "__main__":
    device, folder, products_name = sys.argv[1:]
    if device == "cuda":
        import cupy

        naive.xp = numpy_calls.xp = cupy
    statistics: Any = None
    stored = np.load(f"{folder}/data.npz")
    images, labels = (naive.xp.asarray(stored[name]) for name in stored.files[:2])
    serve(load, losses, train)
