"""``cnn train``: train a recipe, in a run folder of its own."""

from __future__ import annotations

import argparse
import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import run_folder, settings
from .options import (
    PREPARING,
    RECIPES,
    UsageError,
    add_data,
    add_device,
    add_json,
    check_data,
    check_outputs,
    device,
    path,
    positive,
    rate,
    report,
    say,
    seed,
    silence,
    write_json,
)

if TYPE_CHECKING:
    from ..data import Dataset
    from ..model import Sequential
    from ..recipes import Recipe
    from ..trainer import Trainer

HELP = "train a network"
DESCRIPTION = """\
Train a network on MNIST or on synthetic digits. Settings, loss curve,
checkpoints and the model go to a folder of their own below runs/."""
EXAMPLES = """\
  cnn train --recipe speedrun --seed 1
  cnn train --recipe default --epochs 5 --run mine
  cnn train --resume runs/mine           go on where it was interrupted
  cnn train --config runs/mine/settings.toml --seed 2
  cnn train --dataset synthetic          no data needed
  cnn train --data ~/mnist --device cpu  the four IDX files in a folder
  mpiexec -n 2 cnn train                 in two processes"""

#: The results that `_summary` has.
_PRINTED = "test_accuracy", "test_loss", "train_seconds", "images_per_second", "setup_seconds"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the recipe, what differs from it, and what is written."""
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        default="speedrun",
        help="speedrun: one epoch of a small network; default: 10 epochs with batch-norm and "
        "augmentation; accurate: 20 of a deeper one (default: %(default)s)",
    )
    add_data(parser)
    add_device(parser)
    for name, kind, letter, text in (
        ("--epochs", positive, "N", "passes over the data"),
        ("--batch-size", positive, "N", "images per step; a larger one may need a lower --lr"),
        ("--lr", rate, "X", "learning rate at its peak"),
    ):
        help_text = f"{text} (default: the recipe's)"
        parser.add_argument(name, type=kind, metavar=letter, help=help_text)
    parser.add_argument(
        "--seed",
        type=seed,
        default=0,
        metavar="N",
        help="seeds weights, order and augmentation (default: %(default)s)",
    )
    parser.add_argument(
        "--shards",
        type=positive,
        metavar="N",
        help="parts of each batch, divided among the processes of mpiexec (default: one each)",
    )
    earlier = parser.add_mutually_exclusive_group()
    earlier.add_argument(
        "--config",
        type=path,
        metavar="FILE",
        help="TOML file of settings, keys named like these flags; flags win",
    )
    earlier.add_argument(
        "--resume",
        type=path,
        metavar="RUN",
        help="go on with an interrupted run: its folder, or one of its checkpoints",
    )
    parser.add_argument(
        "--run", metavar="NAME", help="name of the run's folder (default: recipe and time)"
    )
    parser.add_argument(
        "--runs",
        type=path,
        metavar="DIR",
        help="folder that holds the runs (default: runs)",
    )
    parser.add_argument(
        "--keep",
        type=positive,
        default=3,
        metavar="N",
        help="keep the last N checkpoints; there is one per epoch (default: %(default)s)",
    )
    parser.add_argument(
        "--save", type=path, metavar="FILE", help="write the trained model to this file, too"
    )
    add_json(parser)
    parser.add_argument(
        "--quiet",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="print no progress and no summary",
    )


def run(options: argparse.Namespace) -> int:
    """Train, then print the accuracy and the time that it took."""
    from .. import data, recipes
    from ..evaluation import evaluate
    from ..parallel import join

    start = time.perf_counter()
    world = join()
    check_data(options)  # the words' own: --dataset overrules a folder in --config
    writes = world.rank == 0  # and prints
    options, checkpoint = _with_earlier_settings(options)
    tell = say if writes and not options.quiet else silence
    if writes:
        _check_outputs(options, checkpoint)
    recipe = recipes.RECIPES[options.recipe]
    options.epochs = options.epochs or recipe.epochs
    options.batch_size = options.batch_size or recipe.batch_size
    options.lr = options.lr or recipe.lr
    options.shards = options.shards or world.size
    _check_settings(options, checkpoint, world.size)
    options.device = device(options.device, tell)
    if options.device == "cuda":
        world.use_gpu()
    train, test = data.load(options.dataset, options.data, say=say if writes else silence)
    if train.name in data.loading.NAMES:  # else "auto" finds it again
        options.dataset = train.name
    model = _model(recipe, train, options)
    trainer = recipe.trainer(
        model, options.lr, seed=options.seed, shards=options.shards, world=world
    )
    if checkpoint is not None:
        trainer.restore(checkpoint)
    finished = _has_finished(trainer, train, options)
    world.agree(finished=finished)
    trained_before = trainer.train_seconds
    if not writes:
        if not finished:
            _fit(trainer, train, test, options)
        return 0
    with run_folder.opened(options, checkpoint) as folder:
        trainer.run = folder
        processes = f", {world.size} processes" if world.size > 1 else ""
        tell(
            f"{folder.folder} has finished already, with epoch {len(trainer.history)}"
            if finished
            else f"{model.summary(options.batch_size)}\n"
            f"training on {train.name}, {len(train):,} images, on {options.device}{processes}; "
            f"see {folder.folder}\n{PREPARING}"
        )
        interrupted = not finished and _fit(trainer, train, test, options)
    results = (
        run_folder.written_results(folder, len(trainer.history), _PRINTED) if finished else None
    )
    if results is None:
        found = evaluate(model, test)  # with the default loss, so that recipes can be compared
        trained_here = trainer.train_seconds - trained_before
        setup_seconds = time.perf_counter() - start - trained_here
        results = _results(trainer, train, options, setup_seconds, found)
        model.save(folder.folder / "model.safetensors")
        folder.write_json("results.json", results)
    if options.save is not None:
        model.save(options.save)
    write_json(options.json, results)
    if not interrupted:
        _warn_of_chance(results["test_accuracy"], test, options.lr)
    report(_summary(train, results), options.json, options.save)
    return 130 if interrupted else 0


def _model(recipe: Recipe, train: Dataset, options: argparse.Namespace) -> Sequential:
    """Return the recipe's network for images of this size, or raise ValueError."""
    from ..model import Sequential

    H, W = train.images.shape[1:3]
    try:
        return Sequential(recipe.layers(), (H, W, 1), device=options.device, seed=options.seed)
    except ValueError as error:
        raise ValueError(
            f"data: got images of {H} x {W} pixels, too small for the recipe {options.recipe}: "
            f"{error}"
        ) from error


def _summary(train: Dataset, results: dict[str, Any]) -> str:
    return (
        f"{train.name} test accuracy {results['test_accuracy']:.2%}, "
        f"loss {results['test_loss']:.4f}; trained {results['train_seconds']:.2f} s at "
        f"{results['images_per_second']:,.0f} images/s, set up in {results['setup_seconds']:.2f} s"
    )


def _results(
    trainer: Trainer,
    train: Dataset,
    options: argparse.Namespace,
    setup_seconds: float,
    found: dict[str, float],
) -> dict[str, Any]:
    """Return what results.json holds; `found` is what `evaluate` returned for the test images."""
    return {
        "dataset": train.name,
        "device": options.device,
        "recipe": options.recipe,
        "epochs": len(trainer.history),
        "batch_size": options.batch_size,
        "seed": options.seed,
        "shards": options.shards,
        "processes": trainer.world.size,
        "parameters": trainer.model.parameter_count,
        "setup_seconds": setup_seconds,
        "train_seconds": trainer.train_seconds,
        "images_per_second": trainer.images_seen / max(trainer.train_seconds, 1e-9),
        "train_loss": trainer.running_loss if trainer.images_seen else None,
        "test_loss": found["loss"],
        "test_accuracy": found["accuracy"],
    }


def _warn_of_chance(accuracy: float, test: Dataset, lr: float) -> None:
    """Say so if a model is no better than always answering the most common class."""
    import numpy as np

    chance = np.bincount(test.labels).max() / len(test)
    if accuracy <= chance < 1:
        say(
            "cnn: warning: the network learned nothing: always answering one class is right for "
            f"{chance:.2%} of the test images; try another --lr than {lr:g}, or another --seed"
        )


def _with_earlier_settings(
    options: argparse.Namespace,
) -> tuple[argparse.Namespace, Path | None]:
    """Return the settings of --config or --resume, overruled by flags, and the checkpoint."""
    checkpoint, file = None, options.config
    if options.resume is not None:
        if options.run is not None or options.runs is not None:
            raise UsageError("--resume goes on in the run's own folder: leave --run and --runs out")
        checkpoint = run_folder.checkpoint(options.resume)
        file = checkpoint.parent.parent / "settings.toml"
    if file is not None:
        parser = argparse.ArgumentParser(prog="cnn train")
        add_arguments(parser)
        # The later of two flags wins.
        options = parser.parse_args([*settings.read(file, add_arguments), *options.words])
    return options, checkpoint


def _check_outputs(options: argparse.Namespace, checkpoint: Path | None) -> None:
    """Raise OSError unless all outputs can be written, none over another run or a file of this."""
    from ..runs import Run

    outputs = [options.save, options.json]
    inputs = [] if options.config is None else [options.config]
    if checkpoint is None:
        run_folder.check_name(options)
    else:
        run = Run(checkpoint.parent.parent)
        names = "history.jsonl", "model.safetensors", "results.json"
        outputs += [run.folder / name for name in names]
        inputs += [run.folder / "settings.toml", checkpoint, *run.checkpoints]
    check_outputs(options, outputs, inputs)


def _check_settings(options: argparse.Namespace, checkpoint: Path | None, processes: int) -> None:
    """Raise ValueError for settings that no data fit, since loading these may take long."""
    from .. import checks, training_state

    checks.multiple("shards", options.shards, processes, "processes")
    checks.multiple("batch_size", options.batch_size, options.shards, "shards")
    course = None if checkpoint is None else training_state.course_of(checkpoint)
    if course is not None:
        names = "epochs", "batch_size", "shards"
        replace(course, **{name: getattr(options, name) for name in names}).check_continues(course)


def _has_finished(trainer: Trainer, train: Dataset, options: argparse.Namespace) -> bool:
    """Whether the restored training is finished; ValueError if its settings were others."""
    from ..course import Course

    if trainer.course is None or not trainer.course.finished:
        return False
    asked = Course.of(train, options.epochs, options.batch_size, options.shards)
    asked.check_continues(trainer.course)
    return True


def _fit(trainer: Trainer, train: Dataset, test: Dataset, options: argparse.Namespace) -> bool:
    """Train the epochs that are left; return whether the user interrupted it."""
    progress = trainer.run is not None and not options.quiet
    try:
        trainer.fit(train, options.epochs, options.batch_size, test, progress)
    except KeyboardInterrupt:
        if trainer.run is None or trainer.run.latest is None:
            raise
        say(
            f"interrupted after {trainer.images_seen:,} images; go on with\n"
            f"  cnn train --resume {shlex.quote(str(trainer.run.folder))}"
        )
        if trainer.world.size > 1:
            raise  # the processes were interrupted in different steps
        say("what was reached:")
        return True
    return False
