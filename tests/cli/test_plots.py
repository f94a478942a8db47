"""Pictures: what is drawn, and the same bytes every time."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from cnn import plots
from cnn.calibration import Calibration, calibration
from tests.lib import fresh_python

STEPS = [
    {"event": "steps", "step": k, "images": 100 * k, "loss": 2 / k, "learning_rate": 0.1 * k}
    for k in range(1, 9)
]
EPOCHS = [
    {"event": "epoch", "epoch": k, "validation_loss": 1 / k, "validation_accuracy": 1 - 0.1 / k}
    for k in (1, 2)
]


def texts(axes):
    return [text.get_text() for text in axes.texts]


# Curves


def test_curves():
    figure = plots.curves(STEPS[:4] + EPOCHS[:1] + STEPS[4:] + EPOCHS[1:], 400)
    loss, accuracy, rate = figure.axes
    training, validation = loss.lines
    assert training.get_xdata().tolist() == [0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2]
    assert training.get_ydata().tolist() == [2 / k for k in range(1, 9)]
    assert list(validation.get_xdata()) == [1, 2] and list(validation.get_ydata()) == [1, 0.5]
    assert accuracy.lines[0].get_ydata().tolist() == pytest.approx([90, 95])
    assert rate.lines[0].get_ydata().tolist() == pytest.approx([0.1 * k for k in range(1, 9)])
    assert loss.get_title("right") == "test accuracy 95.00%"
    assert loss.get_yscale() == "linear"
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "loss",
        "test\naccuracy (%)",
        "learning\nrate",
    ]
    assert rate.get_xlabel() == "epoch"


def test_curves_of_one_epoch_have_no_panel_for_one_accuracy():
    loss, rate = plots.curves(STEPS[:4] + EPOCHS[:1], 400).axes
    assert loss.get_title("right") == "test accuracy 90.00%"
    assert [label.get_text() for label in loss.get_legend().texts] == ["training", "test"]


def test_curves_without_validation():
    epoch = {"event": "epoch", "epoch": 1, "train_loss": 0.5}
    loss, rate = plots.curves([*STEPS, epoch], 800).axes
    assert len(loss.lines) == 1 and loss.get_legend() is None


def test_a_loss_that_falls_far_has_a_logarithmic_axis():
    far = [line | {"loss": 2 / line["step"] ** 3} for line in STEPS]
    assert plots.curves(far, 800).axes[0].get_yscale() == "log"


def test_a_loss_that_diverged_ends_the_curve(tmp_path):
    history = [*STEPS[:3], STEPS[3] | {"loss": None}]  # as JSON has it: NaN is null
    training = plots.curves(history, 800).axes[0].lines[0]
    assert np.isnan(training.get_ydata()).tolist() == [False, False, False, True]
    plots.write(tmp_path / "curves.png", plots.curves, history, 800)


@pytest.mark.parametrize("history", [[], [STEPS[0] | {"loss": None}]], ids=["empty", "all NaN"])
def test_a_run_that_has_hardly_begun(history, tmp_path):
    plots.write(tmp_path / "curves.png", plots.curves, history, 800)


# Confusion


def test_confusion():
    counts = np.array([[1200, 3, 0], [0, 7, 0], [5, 0, 9]])
    (axes,) = plots.confusion(counts).axes
    places = {text.get_position(): text.get_text() for text in axes.texts}
    # (column, row); zeros are left out.
    assert places == {(0, 0): "1,200", (1, 0): "3", (1, 1): "7", (0, 2): "5", (2, 2): "9"}
    assert axes.get_title() == "8 of 1,224 images misclassified"
    shown = axes.images[0]
    assert shown.get_array().tolist() == [[0, 3, 0], [0, 0, 0], [5, 0, 0]]  # mistakes alone
    assert shown.get_clim() == (0, 5)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")


def test_confusion_without_mistakes(tmp_path):
    plots.write(tmp_path / "confusion.png", plots.confusion, np.diag([3, 4]))


# Accuracy of each class


def test_the_accuracy_of_every_class():
    (axes,) = plots.per_class(np.array([[80, 20, 0], [0, 0, 0], [0, 0, 9]])).axes
    marks, caps, (bars,) = axes.containers[0]
    assert marks.get_xdata().tolist() == [80, 100] and marks.get_ydata().tolist() == [0, 2]
    assert texts(axes) == ["\u200780.00%   20 of 100 wrong", "100.00%   0 of 9 wrong"]
    ends = [segment[:, 0].tolist() for segment in bars.get_segments()]
    # Of 80 of 100: "Wilson score interval" in any table; of 9 of 9: 9 / (9 + 1.96**2) and 1.
    assert ends[0] == pytest.approx([71.11, 86.66], abs=0.01)
    assert ends[1] == pytest.approx([100 * 9 / (9 + 1.96**2), 100])
    assert axes.lines[0].get_xdata() == pytest.approx([100 * 89 / 109] * 2)
    assert axes.get_ylim() == (2.5, -0.5)  # class 0 on top


# Calibration


def test_the_reliability_diagram():
    found = Calibration(
        np.array([0, 4, 16]), np.array([np.nan, 0.5, 0.9]), np.array([np.nan, 1, 0.75])
    )
    diagram, histogram = plots.reliability(found).axes
    marks, caps, (bars,) = diagram.containers[0]
    assert marks.get_xdata().tolist() == [0.5, 0.9] and marks.get_ydata().tolist() == [1, 0.75]
    (low, high), _ = (segment[:, 1] for segment in bars.get_segments())
    assert (low, high) == pytest.approx((4 / (4 + 1.96**2), 1))
    assert diagram.get_title() == "expected calibration error 22.00%"
    assert found.error == pytest.approx((4 * 0.5 + 16 * 0.15) / 20)
    assert [bar.get_height() for bar in histogram.patches] == [0, 4, 16]
    assert [bar.get_x() for bar in histogram.patches] == pytest.approx([0, 1 / 3, 2 / 3])


def test_certain_guesses_that_are_all_right(tmp_path):
    found = calibration(np.arange(3), np.eye(3))
    assert found.error == 0
    plots.write(tmp_path / "calibration.png", plots.reliability, found)


# Mistakes


def mistakes(count):
    """Images of class 2 taken for class 0, the others' share going to class 1."""
    images = np.random.default_rng(0).integers(256, size=(count, 6, 6), dtype=np.uint8)
    return images, np.full(count, 2), np.tile([0.7, 0.1, 0.2], (count, 1))


def test_mistakes_show_the_probability_of_every_class():
    images, labels, probabilities = mistakes(1)
    figure = plots.mistakes(images, labels, probabilities)
    picture, bars = figure.axes[:2]
    assert np.array_equal(picture.images[0].get_array(), images[0])
    assert picture.images[0].get_clim() == (0, 255)
    assert [bar.get_width() for bar in bars.patches] == [0.7, 0.1, 0.2]
    colours = [to_hex(bar.get_facecolor()).upper() for bar in bars.patches]
    assert colours == [plots.ORANGE, plots.GREY, plots.BLUE]
    assert texts(bars) == ["70%", "20%"]
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.texts] == ["predicted class", "true class"]
    keys = [to_hex(key.get_facecolor()).upper() for key in legend.legend_handles]
    assert keys == [plots.ORANGE, plots.BLUE]


def test_cells_without_a_mistake_are_empty():
    figure = plots.mistakes(*mistakes(5))  # four in a row: three cells are left
    assert sum(bool(axes.images) for axes in figure.axes) == 5
    assert sum(axes.axison for axes in figure.axes) == 5  # the bars of the five


# Filters and augmentation


def test_filters_have_one_scale_with_zero_in_its_middle():
    weight = np.random.default_rng(0).normal(size=(6, 3, 2, 2))
    weight[1, 2, 0, 1] = -7
    figure = plots.filters(weight)
    tiles = [axes.images[0] for axes in figure.axes if axes.images]
    assert len(tiles) == 12
    assert np.array_equal(tiles[3].get_array(), weight[1, :, :, 1])  # filter 1, channel 1
    assert {tile.get_clim() for tile in tiles} == {(-7, 7)}


@pytest.mark.parametrize(("count", "across"), [(24, 8), (32, 8), (64, 16), (1, 2), (7, 7), (37, 8)])
def test_rows_of_filters_are_full_where_that_can_be(count, across):
    figure = plots.filters(np.ones((count, 3, 3, 1)))
    assert figure.axes[0].get_gridspec().ncols == across


def test_filters_of_zeros(tmp_path):
    plots.write(tmp_path / "filters.png", plots.filters, np.zeros((2, 3, 3, 1)))


def test_augmented_samples_stand_beside_their_image():
    images = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4)
    samples = np.arange(3 * 2 * 4 * 4, dtype=np.uint8).reshape(3, 2, 4, 4) + 100
    figure = plots.augmented(images, list(samples))
    rows = np.array(figure.axes).reshape(2, 5)
    for row, cells in enumerate(rows):
        assert np.array_equal(cells[0].images[0].get_array(), images[row])
        assert not cells[1].images  # a gap
        for draw in range(3):
            assert np.array_equal(cells[2 + draw].images[0].get_array(), samples[draw, row])


# Files


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_file_has_the_same_bytes_every_time(kind, tmp_path):
    for name in ("first", "second"):
        plots.write(tmp_path / f"{name}.{kind}", plots.curves, STEPS + EPOCHS, 400)
    first = (tmp_path / f"first.{kind}").read_bytes()
    assert first == (tmp_path / f"second.{kind}").read_bytes()
    assert first.startswith(b"\x89PNG" if kind == "png" else b"<?xml")
    assert b"dc:date" not in first and b"tEXt" not in first  # nor a time, nor a version in a PNG
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"first.{kind}", f"second.{kind}"]


def test_no_display_is_looked_for(tmp_path):
    script = (
        "import sys, numpy; from pathlib import Path; from cnn import plots; "
        "plots.write(Path(sys.argv[1], 'filters.svg'), plots.filters, numpy.ones((2, 3, 3, 1))); "
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = fresh_python.run("-c", script, str(tmp_path), MPLBACKEND="TkAgg")
    assert (done.stdout, done.returncode) == ("False\n", 0), done.stderr
