"""The command line: ``python -m cnn``, or ``cnn`` where the package is installed."""

from __future__ import annotations

import argparse
import errno
import json
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kernels import KernelError

from .checkpoint import CheckpointError
from .data import DataError

_EXAMPLES = {
    None: """examples:
  cnn train                    one epoch of MNIST, as fast as it goes
  cnn train --recipe default --save model.safetensors
  cnn evaluate model.safetensors
  cnn info                     what this machine has""",
    "train": """examples:
  cnn train --recipe speedrun --seed 1
  cnn train --recipe default --epochs 5 --save model.safetensors --json run.json
  cnn train --dataset synthetic          no data needed
  cnn train --data ~/mnist --device cpu  the four IDX files in a folder""",
    "evaluate": """examples:
  cnn evaluate model.safetensors
  cnn evaluate model.safetensors --dataset synthetic""",
    "info": """examples:
  cnn info""",
}

_FAILURES = (KernelError, DataError, CheckpointError, TypeError, ValueError, OSError, MemoryError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return 0, or 1 if it failed, 2 for wrong usage, 130 interrupted."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except _FAILURES as error:
        text = str(error) or type(error).__name__
        if isinstance(error, OSError) and error.filename is not None:
            text = f"{error.filename}: {error.strerror}"  # without the number that str() shows
        _say(f"cnn: error: {text}")
        return 1
    except KeyboardInterrupt:
        _say("cnn: interrupted")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = _described(argparse.ArgumentParser(prog="cnn"), None, "Train small CNNs, fast.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a network")
    _described(train, "train", "Train a network on MNIST or on synthetic digits.")
    train.set_defaults(run=_train)
    train.add_argument(
        "--recipe",
        choices=("speedrun", "default"),
        default="speedrun",
        help="speedrun: one epoch of a small network; default: up to 10 epochs with batch-norm "
        "and augmentation (default: %(default)s)",
    )
    _add_data_options(train)
    for name, kind, letter, text in (
        ("--epochs", _positive, "N", "passes over the data"),
        ("--batch-size", _positive, "N", "images per step"),
        ("--lr", _rate, "X", "learning rate at its peak"),
    ):
        help_text = f"{text} (default: the recipe's)"
        train.add_argument(name, type=kind, metavar=letter, help=help_text)
    train.add_argument(
        "--seed",
        type=_seed,
        default=0,
        metavar="N",
        help="of weights, order and augmentation (default: %(default)s)",
    )
    train.add_argument("--save", type=Path, metavar="FILE", help="write the trained model")
    train.add_argument("--json", type=Path, metavar="FILE", help="write the results")
    train.add_argument("--quiet", action="store_true", help="print no progress and no summary")

    evaluate = commands.add_parser("evaluate", help="measure a saved model")
    _described(evaluate, "evaluate", "Measure a saved model on the test images.")
    evaluate.set_defaults(run=_evaluate)
    evaluate.add_argument("model", type=Path, metavar="MODEL", help="file that train --save wrote")
    _add_data_options(evaluate)
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="write the results")

    info = commands.add_parser("info", help="show targets, compiler, GPU and cache folder")
    _described(info, "info", "Show what kernels can run on here.")
    info.set_defaults(run=_info)
    return parser


def _described(
    parser: argparse.ArgumentParser, command: str | None, text: str
) -> argparse.ArgumentParser:
    parser.description, parser.epilog = text, _EXAMPLES[command]
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser


def _add_data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dataset",
        choices=("auto", "mnist", "synthetic"),
        default="auto",
        help="auto: MNIST, or synthetic digits where it cannot be had (default: %(default)s)",
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with the four MNIST files")
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto: the GPU where one works (default: %(default)s)",
    )


def _train(options: argparse.Namespace) -> int:
    from . import data, recipes
    from .model import Sequential
    from .trainer import Trainer, evaluate

    start = time.perf_counter()
    say = _silence if options.quiet else _say
    _check_writable(options.save, options.json)
    recipe = recipes.RECIPES[options.recipe]
    epochs = options.epochs or recipe.epochs
    batch_size = options.batch_size or recipe.batch_size
    device = _device(options.device, say)
    train, test = data.load(options.dataset, options.data, say=_say)
    model = Sequential(
        recipe.layers(), (*train.images.shape[1:3], 1), device=device, seed=options.seed
    )
    say(f"{model.summary()}\ntraining on {train.name}, {len(train):,} images, on {device}")
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
        _say(f"interrupted after {trainer.images_seen:,} images; what was reached:")
    train_loss = trainer.running_loss if trainer.images_seen else None
    found = evaluate(model, test)  # its loss is no recipe's, so that runs can be compared
    results = {
        "dataset": train.name,
        "device": device,
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
    _write_json(options.json, results)
    print(
        f"{train.name} test accuracy {found['accuracy']:.2%}, loss {found['loss']:.4f}; "
        f"trained {trainer.train_seconds:.2f} s at {results['images_per_second']:,.0f} images/s, "
        f"set up in {results['setup_seconds']:.2f} s"
    )
    return 130 if interrupted else 0


def _evaluate(options: argparse.Namespace) -> int:
    from . import data
    from .model import Sequential
    from .trainer import evaluate

    _check_writable(options.json)
    device = _device(options.device, _say)
    model = Sequential.load(options.model, device)
    _, test = data.load(options.dataset, options.data, say=_say)
    found = evaluate(model, test)
    results = {
        "dataset": test.name,
        "device": device,
        "model": str(options.model),
        "parameters": model.parameter_count,
        "test_loss": found["loss"],
        "test_accuracy": found["accuracy"],
    }
    _write_json(options.json, results)
    print(f"{test.name} test accuracy {found['accuracy']:.2%}, loss {found['loss']:.4f}")
    return 0


def _info(_: argparse.Namespace) -> int:
    from kernels.runtime import describe

    for name, value in describe().items():
        print(f"{name:<14}{value}")
    return 0


def _device(chosen: str, say: Any) -> str:
    """Return "cpu" or "cuda"; where auto settled for cpu, say why."""
    from kernels.runtime import choose_target

    target, reason = choose_target(chosen)
    if reason is not None:
        say(f"using the CPU: {reason}")
    return "cuda" if target.name == "cuda" else "cpu"


def _check_writable(*paths: Path | None) -> None:
    """Raise OSError now rather than after the training, unless all of these can be written."""
    for path in paths:
        if path is None:
            continue
        try:
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "it is a folder")
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            missing = isinstance(error, FileNotFoundError) and not path.parent.exists()
            reason = f"there is no folder {path.parent}" if missing else error.strerror
            raise OSError(f"{path} cannot be written: {reason}") from error


def _write_json(path: Path | None, results: dict[str, Any]) -> None:
    """Write results, with null for the NaN of a training that diverged: JSON has no NaN."""
    if path is not None:
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in results.items()
        }
        path.write_text(json.dumps(finite, indent=2) + "\n")


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _silence(text: str) -> None:
    pass


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number of at least 1")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(
            f"got {text!r}, expected a whole number from 0 to 2**31 - 1"
        )
    return int(text)


def _rate(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number above 0")
    return number


if __name__ == "__main__":
    sys.exit(main())
