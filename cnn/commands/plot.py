"""``cnn plot``: pictures of a run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import settings, train
from .options import check_outputs, path, report, say, uninterrupted

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..data import Dataset
    from ..model import Sequential

HELP = "draw pictures of a run"
DESCRIPTION = """\
Draw pictures of a run: its curves, confusion matrix, accuracy of each class,
calibration and worst mistakes, the filters of its first convolution, and
augmented images."""
EXAMPLES = """\
  cnn plot runs/mine                     writes runs/mine/plots/*.png
  cnn plot runs/mine --format svg --output pictures"""

_PICTURES = (
    "curves",
    "confusion",
    "classes",
    "calibration",
    "mistakes",
    "filters",
    "augmented",
)
_WORST = 12  # mistakes shown
_AUGMENTED, _DRAWS = 5, 8  # images shown, and augmented copies of each


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the run and where its pictures go."""
    parser.add_argument("folder", type=path, metavar="RUN", help="folder of a run of cnn train")
    parser.add_argument(
        "--output", type=path, metavar="DIR", help="folder to write to (default: RUN/plots)"
    )
    parser.add_argument(
        "--format",
        choices=("png", "svg"),
        default="png",
        help="type of the pictures (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    """Draw the pictures and print the names of their files."""
    from .. import data, history
    from ..calibration import calibration
    from ..evaluation import checked
    from ..model import Sequential
    from ..picture import probabilities as of_model

    with uninterrupted():
        from .. import plots
    folder: Path = options.folder
    if not (folder / "settings.toml").exists():
        raise FileNotFoundError(f"{folder} is not the folder of a run: it has no settings.toml")
    trained = _settings(folder / "settings.toml")
    curve = history.read(folder / "history.jsonl")
    model_file = _model_file(folder)
    model = Sequential.load(model_file)
    output: Path = options.output or folder / "plots"
    pictures = {name: output / f"{name}.{options.format}" for name in _PICTURES}
    inputs = [folder / "settings.toml", folder / "history.jsonl", model_file]
    if output.exists():  # else no file can be harmed, and the folder is made after the checks
        check_outputs(trained, pictures.values(), inputs)
    training, test = (
        checked(model, "data", part) for part in data.load(trained.dataset, trained.data, say=say)
    )
    _check_data(folder, training)
    output.mkdir(parents=True, exist_ok=True)

    def write(name: str, draw: Callable[..., Any], *arguments: Any) -> None:
        plots.write(pictures[name], draw, *arguments)
        report(str(pictures[name]), *pictures.values())

    def leave_out(name: str, why: str) -> None:
        # An older one would be of another model, or of other data.
        if pictures[name].is_file():
            pictures[name].unlink()
        say(why)

    write("curves", plots.curves, curve, len(training))
    images, labels = test.images, test.labels.astype(int)
    probabilities = of_model(model, images)
    counts = _confusion(labels, probabilities)
    write("confusion", plots.confusion, counts)
    write("classes", plots.per_class, counts)
    write("calibration", plots.reliability, calibration(labels, probabilities))
    worst = _worst(labels, probabilities)
    if len(worst):
        write("mistakes", plots.mistakes, images[worst], labels[worst], probabilities[worst])
    else:
        leave_out("mistakes", "no mistakes: every test image is classified right")
    filters = _first_filters(model)
    if filters is not None:
        write("filters", plots.filters, filters)
    else:
        leave_out("filters", "no filters: the model has no convolution")
    samples = _augmented(model, trained.recipe, training.images[:_AUGMENTED])
    if samples:
        write("augmented", plots.augmented, training.images[:_AUGMENTED], samples)
    else:
        why = f"no augmented images: the recipe {trained.recipe} does not augment"
        leave_out("augmented", why)
    return 0


def _settings(path: Path) -> argparse.Namespace:
    """Return the options of the training."""
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    return parser.parse_args(settings.read(path, train.add_arguments))


def _model_file(folder: Path) -> Path:
    """Return the trained model or, if that is later or there is none, the last checkpoint.

    A training that was interrupted leaves both; if it was resumed and killed, the model is older.
    """
    from ..runs import Run

    trained, latest = folder / "model.safetensors", Run(folder).latest
    there = [path for path in (latest, trained) if path is not None and path.exists()]
    return max(there, key=lambda path: path.stat().st_mtime_ns, default=trained)


def _check_data(folder: Path, training: Dataset) -> None:
    """Raise ValueError unless the data are those of the training, by its last checkpoint."""
    from .. import training_state
    from ..runs import Run

    latest = Run(folder).latest
    if latest is None:
        say(f"{folder} has no checkpoint: the data may be others than those of its training")
        return
    course = training_state.course_of(latest)
    if course is not None and (course.data, course.images) != (training.name, len(training)):
        raise ValueError(
            f"data: got {len(training)} images of {training.name!r}, expected {course.images} of "
            f"{course.data!r}, which the run was trained on"
        )


def _confusion(labels: Any, probabilities: Any) -> Any:
    import numpy as np

    classes = probabilities.shape[1]
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, probabilities.argmax(axis=1)), 1)
    return counts


def _worst(labels: Any, probabilities: Any) -> Any:
    """Return the indices of the mistakes in which the model is most confident."""
    import numpy as np

    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    certainty = probabilities[wrong].max(axis=1)
    return wrong[np.argsort(-certainty, kind="stable")][:_WORST]


def _first_filters(model: Sequential) -> Any:
    """Return the weights of the first convolution, None if there is none."""
    from ..host import to_host
    from ..layers import Conv2D

    first = next((layer for layer in model.layers if isinstance(layer, Conv2D)), None)
    return None if first is None else to_host(first.parameters["weight"])


def _augmented(model: Sequential, recipe: str, images: Any) -> list[Any]:
    """Return several draws of the recipe's augmentation, none if it has none."""
    from ..host import to_host
    from ..recipes import RECIPES

    augment = RECIPES[recipe].augment
    if augment is None:
        return []
    images = model.target.array(images)
    return [to_host(augment(images, seed=0, offset=draw)) for draw in range(_DRAWS)]
