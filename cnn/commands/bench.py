"""``cnn bench``: how fast a recipe trains and predicts on this machine."""

from __future__ import annotations

import argparse
import statistics
import time
from typing import TYPE_CHECKING, Any

from .options import (
    PREPARING,
    RECIPES,
    add_device,
    add_json,
    check_outputs,
    device,
    positive,
    report,
    say,
    write_json,
)

if TYPE_CHECKING:
    from ..model import Sequential

HELP = "measure how fast a recipe trains and predicts"
DESCRIPTION = """\
Measure a recipe's network on random images: a few short epochs of training,
and inference at batch 1 and 1024. Rates are medians; "slowest" is the longest
time, in ms per batch. Compiling and a first pass are not counted."""
EXAMPLES = """\
  cnn bench
  cnn bench --recipe default --batch-size 256 --json bench.json"""

_EPOCHS = 5  # and one more to warm up
_STEPS = 24  # of an epoch
_INFERENCE = {1: 200, 1024: 7}  # batch size: repetitions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the recipe, its batch size and the device."""
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        default="speedrun",
        help="the network to measure (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-size",
        type=positive,
        metavar="N",
        help="images per training step (default: the recipe's)",
    )
    add_device(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Print a table of images per second."""
    import numpy as np

    from .. import recipes
    from ..model import Sequential

    check_outputs(options, [options.json])
    recipe = recipes.RECIPES[options.recipe]
    batch_size = options.batch_size or recipe.batch_size
    chosen = device(options.device, say)
    random = np.random.default_rng(0)
    count = max(_STEPS * batch_size, *_INFERENCE)
    images = random.integers(256, size=(count, 28, 28), dtype=np.uint8)
    labels = random.integers(10, size=count)
    model = Sequential(recipe.layers(), (28, 28, 1), device=chosen)
    say(PREPARING)
    trainer = recipe.trainer(model, fresh_statistics=False)  # no part of a step
    steps = -(-count // batch_size)
    history = trainer.fit((images, labels), 1 + _EPOCHS, batch_size)
    seconds = {
        f"training, batch {batch_size}": (
            batch_size,
            [record["seconds"] / steps for record in history[1:]],
        )
    }
    for size, repetitions in _INFERENCE.items():
        batch = model.target.array(images[:size])
        seconds[f"inference, batch {size}"] = size, _seconds(model, batch, repetitions)
    results: dict[str, Any] = {"recipe": options.recipe, "device": chosen}
    title = f"{options.recipe} on {chosen}"
    report(f"{title:<30}{'images/s':>12}{'ms per batch':>14}{'slowest':>9}", options.json)
    for name, (size, times) in seconds.items():
        median = statistics.median(times)
        results[name] = {"images_per_second": size / median, "seconds": times}
        row = f"{size / median:>12,.0f}{median * 1e3:>14.3f}{max(times) * 1e3:>9.3f}"
        report(f"{name:<30}{row}", options.json)
    write_json(options.json, results)
    return 0


def _seconds(model: Sequential, images: Any, repetitions: int) -> list[float]:
    """Return the time of each forward pass over the images, after one that is not counted."""
    times = []
    for _ in range(1 + repetitions):
        start = time.perf_counter()
        float(model.predict(images, len(images))[0, 0])  # waits for a GPU
        times.append(time.perf_counter() - start)
    return times[1:]
