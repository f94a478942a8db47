"""``cnn train``: train a recipe."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from .options import (
    add_data,
    add_device,
    add_json,
    check_writable,
    device,
    positive,
    rate,
    say,
    seed,
    silence,
    write_json,
)

HELP = "train a network"
DESCRIPTION = "Train a network on MNIST or on synthetic digits."
EXAMPLES = """\
  cnn train --recipe speedrun --seed 1
  cnn train --recipe default --epochs 5 --save model.safetensors --json run.json
  cnn train --dataset synthetic          no data needed
  cnn train --data ~/mnist --device cpu  the four IDX files in a folder"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the recipe, what differs from it, and what is written."""
    parser.add_argument(
        "--recipe",
        choices=("speedrun", "default"),
        default="speedrun",
        help="speedrun: one epoch of a small network; default: up to 10 epochs with batch-norm "
        "and augmentation (default: %(default)s)",
    )
    add_data(parser)
    add_device(parser)
    for name, kind, letter, text in (
        ("--epochs", positive, "N", "passes over the data"),
        ("--batch-size", positive, "N", "images per step"),
        ("--lr", rate, "X", "learning rate at its peak"),
    ):
        help_text = f"{text} (default: the recipe's)"
        parser.add_argument(name, type=kind, metavar=letter, help=help_text)
    parser.add_argument(
        "--seed",
        type=seed,
        default=0,
        metavar="N",
        help="of weights, order and augmentation (default: %(default)s)",
    )
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the trained model")
    add_json(parser)
    parser.add_argument("--quiet", action="store_true", help="print no progress and no summary")


def run(options: argparse.Namespace) -> int:
    """Train, then print the accuracy and the time it took."""
    from .. import data, recipes
    from ..model import Sequential
    from ..trainer import Trainer, evaluate

    start = time.perf_counter()
    tell = silence if options.quiet else say
    check_writable(options.save, options.json)
    recipe = recipes.RECIPES[options.recipe]
    epochs = options.epochs or recipe.epochs
    batch_size = options.batch_size or recipe.batch_size
    chosen = device(options.device, tell)
    train, test = data.load(options.dataset, options.data, say=say)
    model = Sequential(
        recipe.layers(), (*train.images.shape[1:3], 1), device=chosen, seed=options.seed
    )
    tell(f"{model.summary()}\ntraining on {train.name}, {len(train):,} images, on {chosen}")
    trainer = Trainer(
        model,
        recipe.optimizer(options.lr or recipe.lr),
        recipe.loss,
        recipe.schedule,
        recipe.augment,
        seed=options.seed,
        ema=recipe.average(),
    )
    interrupted = False
    try:
        trainer.fit(train, epochs, batch_size, progress=not options.quiet)
    except KeyboardInterrupt:
        interrupted = True
        say(f"interrupted after {trainer.images_seen:,} images; what was reached:")
    train_loss = trainer.running_loss if trainer.images_seen else None
    found = evaluate(model, test)  # its loss is no recipe's, so that runs can be compared
    results = {
        "dataset": train.name,
        "device": chosen,
        "recipe": options.recipe,
        "epochs": len(trainer.history),
        "batch_size": batch_size,
        "seed": options.seed,
        "parameters": model.parameter_count,
        "setup_seconds": time.perf_counter() - start - trainer.train_seconds,
        "train_seconds": trainer.train_seconds,
        "images_per_second": trainer.images_seen / max(trainer.train_seconds, 1e-9),
        "train_loss": train_loss,
        "test_loss": found["loss"],
        "test_accuracy": found["accuracy"],
    }
    if options.save is not None:
        model.save(options.save)
    write_json(options.json, results)
    print(
        f"{train.name} test accuracy {found['accuracy']:.2%}, loss {found['loss']:.4f}; "
        f"trained {trainer.train_seconds:.2f} s at {results['images_per_second']:,.0f} images/s, "
        f"set up in {results['setup_seconds']:.2f} s"
    )
    return 130 if interrupted else 0
