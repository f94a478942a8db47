"""Pictures of a training, with matplotlib and without a display.

Each function returns a figure. `write` draws it to a file, in one style and in colours that
colour-blind readers can tell apart (Okabe and Ito, 2008); equal figures give equal bytes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .calibration import Calibration
from .files import write_whole

try:
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
except ImportError as error:
    raise ImportError("pictures need matplotlib: pip install 'cnn-kernels[plot]'") from error

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#767676"

_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",  # matplotlib's own, so that every machine has it
    "font.size": 10,
    "grid.color": "#E5E5E5",
    "legend.frameon": False,
    "savefig.dpi": 150,
    "svg.fonttype": "path",
    "svg.hashsalt": "cnn",  # makes names inside the file repeatable
}
_METADATA: dict[str, dict[str, None]] = {"png": {"Software": None}, "svg": {"Date": None}}

_STEPS = (1, 2, 5, 10)  # of the axes' ticks
_MARKS: dict[str, Any] = {"fmt": "o", "color": BLUE, "markersize": 5, "capsize": 3}

Array = np.ndarray[Any, Any]


def write(path: Path, draw: Callable[..., Figure], *arguments: Any) -> None:
    """Write what `draw` returns for the arguments, as PNG or SVG by the name of the file.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    kind = path.suffix.removeprefix(".")
    with matplotlib.rc_context(_STYLE), io.BytesIO() as content:
        draw(*arguments).savefig(content, format=kind, metadata=_METADATA[kind])
        write_whole(path, content.getvalue())


def curves(history: Sequence[dict[str, Any]], images_per_epoch: int) -> Figure:
    """Return loss, accuracy where it was measured, and learning rate over the epochs.

    Parameters
    ----------
    history : sequence of dict
        The "steps" and "epoch" lines of a run's history.jsonl. Its validation data are the test
        images: `cnn train` chooses nothing by them.
    images_per_epoch : int
        Number of training images.
    """
    steps = [line for line in history if line["event"] == "steps"]
    measured = [line for line in history if line.get("validation_accuracy") is not None]
    times = [line["images"] / images_per_epoch for line in steps]
    ends = [line["epoch"] for line in measured]
    heights = [3, 2, 1] if len(measured) > 1 else [3, 1]
    figure = Figure(figsize=(7, 1 + 0.75 * sum(heights)))
    loss, *between, rate = figure.subplots(len(heights), sharex=True, height_ratios=heights)

    losses, dots = _column(steps, "loss"), {"color": ORANGE, "marker": "o", "markersize": 4}
    loss.plot(times, losses, color=BLUE, label="training")
    if measured:
        loss.plot(ends, _column(measured, "validation_loss"), **dots, label="test")
        last = measured[-1]["validation_accuracy"]
        loss.set_title(f"test accuracy {last:.2%}", fontsize="medium", loc="right")
        loss.legend()
    # `initial` serves a run without any finite loss.
    if np.nanmax(losses, initial=1) > 10 * np.nanmin(losses, initial=1):
        loss.set_yscale("log")
        loss.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        loss.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        loss.yaxis.set_minor_locator(NullLocator())
    else:
        loss.yaxis.set_major_locator(MaxNLocator(5, steps=_STEPS))
    loss.set_ylabel("loss")
    for accuracy in between:
        accuracy.plot(ends, 100 * _column(measured, "validation_accuracy"), **dots)
        accuracy.set_ylabel("test\naccuracy (%)")
    rate.plot(times, _column(steps, "learning_rate"), color=GREY)
    rate.set_ylim(bottom=0)
    rate.yaxis.set_major_locator(MaxNLocator(2, steps=_STEPS))
    rate.set_ylabel("learning\nrate")
    rate.set_xlabel("epoch")
    last_time = max([*times, *ends], default=1.0)
    rate.set_xlim(0, 1.01 * last_time)
    rate.xaxis.set_major_locator(MaxNLocator(10, steps=_STEPS, integer=last_time > 1))
    for panel in (loss, *between, rate):
        panel.grid(True, axis="y")
    figure.align_ylabels()
    return figure


def confusion(counts: Array) -> Figure:
    """Return the confusion matrix, drawn as a table of counts.

    Parameters
    ----------
    counts : array (classes, classes)
        Whole numbers; rows are the true classes, columns the predicted ones.
    """
    classes = np.arange(len(counts))
    wrong = np.where(np.eye(len(counts), dtype=bool), 0, counts)
    most = max(1, int(wrong.max()))
    figure = Figure(figsize=(5.6, 5.6))
    axes = figure.subplots()
    # Only mistakes are coloured: on a scale that includes the hits, they would all look like 0.
    axes.imshow(wrong, cmap="Oranges", vmin=0, vmax=most)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            hit, dark = row == column, wrong[row, column] > 0.6 * most
            axes.text(
                column,
                row,
                f"{count:,}",
                ha="center",
                va="center",
                fontsize="small",
                color="white" if dark else "black",
                fontweight="bold" if hit else "normal",
            )
    axes.set(xticks=classes, yticks=classes, xlabel="predicted class", ylabel="true class")
    axes.tick_params(length=0)
    axes.set_xticks(classes[1:] - 0.5, minor=True)
    axes.set_yticks(classes[1:] - 0.5, minor=True)
    axes.tick_params(which="minor", length=0)
    axes.grid(True, which="minor")
    axes.set_title(f"{wrong.sum():,} of {counts.sum():,} images misclassified", fontsize="medium")
    return figure


def per_class(counts: Array) -> Figure:
    """Return the accuracy of every class, with 95% confidence intervals.

    Parameters
    ----------
    counts : array (classes, classes)
        As `confusion` takes them; a class without images has no mark.
    """
    classes, hits, images = np.arange(len(counts)), counts.diagonal(), counts.sum(axis=1)
    seen = images > 0
    accuracy = 100 * hits[seen] / images[seen]
    figure = Figure(figsize=(5.6, 0.3 * len(counts) + 1.3))
    axes = figure.subplots()
    axes.axvline(100 * hits.sum() / images.sum(), color=GREY, linewidth=1, label="all classes")
    reach = np.abs(100 * _wilson(hits[seen], images[seen]) - accuracy)
    axes.errorbar(accuracy, classes[seen], xerr=reach, **_MARKS, label="class, 95% interval")
    for row, (share, hit, count) in enumerate(zip(accuracy, hits[seen], images[seen], strict=True)):
        axes.annotate(
            f"{share:\u2007>6.2f}%   {count - hit:,} of {count:,} wrong",  # figure spaces
            (1.02, classes[seen][row]),
            xycoords=("axes fraction", "data"),
            fontsize="small",
            va="center",
        )
    axes.set(yticks=classes, ylabel="true class", xlabel="accuracy (%)")
    axes.set_ylim(len(counts) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=_STEPS))
    axes.grid(True)
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def reliability(found: Calibration) -> Figure:
    """Return a reliability diagram: accuracy over confidence, and how many images have which.

    A calibrated model's marks lie on the diagonal, within their 95% confidence intervals.
    """
    bins = len(found.images)
    seen = found.images > 0
    images, confidence, accuracy = (
        values[seen] for values in (found.images, found.confidence, found.accuracy)
    )
    figure = Figure(figsize=(5.6, 6.4))
    diagram, histogram = figure.subplots(2, sharex=True, height_ratios=[3, 1])
    diagram.plot([0, 1], [0, 1], color=GREY, linewidth=1, label="calibrated")
    reach = np.abs(_wilson(accuracy * images, images) - accuracy)
    diagram.errorbar(
        confidence, accuracy, yerr=reach, **_MARKS, label=f"bin of 1/{bins}, 95% interval"
    )
    diagram.set(ylim=(-0.02, 1.02), ylabel="accuracy")
    diagram.set_title(f"expected calibration error {found.error:.2%}", fontsize="medium")
    diagram.legend(loc="lower right")
    left = np.arange(bins) / bins
    histogram.bar(left, found.images, 1 / bins, align="edge", color=BLUE, edgecolor="white")
    histogram.set_yscale("log")  # most images are in the last bin
    histogram.set_ylim(bottom=0.7)
    histogram.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    histogram.yaxis.set_minor_locator(NullLocator())
    histogram.set(xlim=(-0.02, 1.02), xlabel="confidence", ylabel="images")
    for panel in (diagram, histogram):
        panel.grid(True)
    figure.align_ylabels()
    return figure


def mistakes(images: Array, labels: Array, probabilities: Array) -> Figure:
    """Return images, each with a bar of the probability of every class beside it.

    Parameters
    ----------
    images : array (N, H, W)
        Grey, at least one.
    labels : array (N,)
        The true classes.
    probabilities : array (N, classes)
    """
    across, classes = 4, np.arange(probabilities.shape[1])
    down = -(-len(images) // across)
    figure = Figure(figsize=(8.4, 1.5 * down + 0.4))
    cells = figure.subplots(down, 2 * across, squeeze=False, width_ratios=[1.2, 1] * across)
    pairs = cells.reshape(-1, 2)
    for picture, bars in pairs[len(images) :]:
        picture.set_axis_off()
        bars.set_axis_off()
    for (picture, bars), image, label, shares in zip(
        pairs, images, labels, probabilities, strict=False
    ):
        _show(picture, image)
        guess = shares.argmax()
        colours = [ORANGE if k == guess else BLUE if k == label else GREY for k in classes]
        bars.barh(classes, shares, color=colours)
        for k in (guess, label):
            inside = shares[k] > 0.5
            bars.annotate(
                f"{shares[k]:.0%}",
                (shares[k], k),
                xytext=(-2 if inside else 2, -0.5),
                textcoords="offset points",
                color="white" if inside else "black",
                fontsize="x-small",
                ha="right" if inside else "left",
                va="center",
            )
        bars.set(xlim=(0, 1), yticks=classes, xticks=[])
        bars.tick_params(length=0, labelsize="xx-small")
        bars.invert_yaxis()
        bars.spines[:].set_visible(False)
    keys = [Patch(color=ORANGE, label="predicted class"), Patch(color=BLUE, label="true class")]
    figure.legend(handles=keys, loc="outside upper center", ncols=2)
    return figure


def filters(weight: Array) -> Figure:
    """Return the filters of a convolution, one tile for each channel of each.

    Parameters
    ----------
    weight : array (F, KH, KW, C)
    """
    planes = weight.transpose(0, 3, 1, 2).reshape(-1, *weight.shape[1:3])
    largest = float(abs(planes).max()) or 1.0
    least = math.ceil(math.sqrt(1.6 * len(planes)))
    across = next((k for k in range(least, 2 * least) if len(planes) % k == 0), least)
    down = -(-len(planes) // across)
    figure = Figure(figsize=(0.8 * across + 1, 0.8 * down + 0.2))
    cells = figure.subplots(down, across, squeeze=False)
    for cell in cells.flat:
        cell.set_axis_off()
    for cell, plane in zip(cells.flat, planes, strict=False):
        image = cell.imshow(plane, cmap="RdBu", vmin=-largest, vmax=largest)
    bar = figure.colorbar(image, ax=cells, label="weight")
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_major_locator(MaxNLocator(5, symmetric=True))
    return figure


def augmented(images: Array, samples: Array) -> Figure:
    """Return images in the first column and augmented copies of them in the others.

    Parameters
    ----------
    images : array (N, H, W)
    samples : array (K, N, H, W)
        K augmented copies of the images.
    """
    figure = Figure(figsize=(0.8 * (1 + len(samples)) + 0.3, 0.8 * len(images) + 0.4))
    widths = [1, 0.3, *[1] * len(samples)]
    columns = figure.subplots(len(images), len(widths), squeeze=False, width_ratios=widths).T
    for cell in columns[1]:
        cell.set_axis_off()
    for cells, shown in zip((columns[0], *columns[2:]), (images, *samples), strict=True):
        for cell, image in zip(cells, shown, strict=True):
            _show(cell, image)
    columns[0][0].set_title("image", fontsize="medium", loc="left")
    columns[2][0].set_title("augmented", fontsize="medium", loc="left")
    return figure


def _wilson(hits: Array, images: Array) -> Array:
    """Return the ends (2, ...) of 95% confidence intervals of fractions hits / images.

    Wilson, "Probable inference, the law of succession, and statistical inference" (1927): unlike
    fraction +- 2 deviations, they have a width, and stay in [0, 1], for fractions near 1.
    """
    z, share = 1.96, hits / images
    centre = share + z**2 / (2 * images)
    reach = z * np.sqrt(share * (1 - share) / images + (z / (2 * images)) ** 2)
    return np.stack([centre - reach, centre + reach]) / (1 + z**2 / images)


def _column(lines: Sequence[dict[str, Any]], name: str) -> Array:
    """Return one value of each line, with NaN for none or null, such as a loss that diverged."""
    return np.array([line.get(name) for line in lines], dtype=np.float64)


def _show(axes: Any, image: Array) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=255)
    axes.set_axis_off()
