"""Pictures: what is drawn, the same bytes every time, and the command on a small run."""

import json
import os
import shutil
import sys

import numpy as np
import pytest
from matplotlib.colors import to_hex

import cnn.data
from cnn import Dataset, Dense, Flatten, Sequential, plots
from cnn.__main__ import main
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
    assert texts(axes) == ["80.00%   20 of 100 wrong", "100.00%   0 of 9 wrong"]
    ends = [segment[:, 0].tolist() for segment in bars.get_segments()]
    # Of 80 of 100: "Wilson score interval" in any table; of 9 of 9: 9 / (9 + 1.96**2) and 1.
    assert ends[0] == pytest.approx([71.11, 86.66], abs=0.01)
    assert ends[1] == pytest.approx([100 * 9 / (9 + 1.96**2), 100])
    assert axes.lines[0].get_xdata() == pytest.approx([100 * 89 / 109] * 2)
    assert axes.get_ylim() == (2.5, -0.5)  # class 0 on top


# Calibration


def test_calibration_compares_confidence_and_accuracy():
    right, wrong = [0.9, 0.1], [0.3, 0.7]
    probabilities = np.array([right, right, right, wrong, wrong, [0.75, 0.25]])
    found = calibration(np.zeros(6, int), probabilities, bins=4)
    assert found.images.tolist() == [0, 0, 3, 3]  # 0.75 belongs to the bin that it ends
    assert found.confidence[2:] == pytest.approx([(0.7 + 0.7 + 0.75) / 3, 0.9])
    assert found.accuracy[2:] == pytest.approx([1 / 3, 1])
    assert np.isnan([found.confidence[:2], found.accuracy[:2]]).all()
    assert found.error == pytest.approx((3 * abs(1 / 3 - 2.15 / 3) + 3 * 0.1) / 6)


@pytest.mark.parametrize("bins", [1, 15, 25])  # 7 / 25 * 25 is more than 7
def test_a_bin_holds_its_upper_end(bins):
    ends = np.arange(1, bins + 1) / bins
    assert (calibration(np.zeros(bins, int), ends[:, None], bins).images == 1).all()


def test_the_error_of_calibrated_guesses_is_small_and_of_sure_ones_what_they_get_wrong():
    random = np.random.default_rng(0)
    shares = random.dirichlet(np.ones(10), size=20_000)
    labels = (random.random((20_000, 1)) > shares.cumsum(axis=1)).sum(axis=1)
    assert calibration(labels, shares).error < 0.02
    sure = np.eye(10)[shares.argmax(axis=1)]
    error = calibration(labels, sure).error
    assert error == pytest.approx((shares.argmax(axis=1) != labels).mean()) and error > 0.5


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


# The command


def few_digits(name="auto", directory=None, say=print):
    """Images whose brightness tells the class, but for some."""
    random = np.random.default_rng(0)
    sets = []
    for count in (256, 128):
        labels = random.integers(10, size=count)
        images = random.integers(60, size=(count, 28, 28)) + 20 * labels[:, None, None]
        sets.append(Dataset(images.clip(0, 255).astype(np.uint8), labels, "synthetic"))
    return tuple(sets)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two epochs on few images."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cnn.data, "load", few_digits)
        arguments = ["--recipe", "default", "--epochs", "2", "--batch-size", "32", "--quiet"]
        assert main(["train", *arguments, "--runs", str(folder), "--run", "few"]) == 0
    return folder / "few"


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(cnn.data, "load", few_digits)
    return shutil.copytree(trained, tmp_path / "run")


NAMES = ["curves", "confusion", "classes", "calibration", "mistakes", "filters", "augmented"]


@pytest.fixture
def drawn(monkeypatch):
    """What the command draws, by the function that would draw it: path and arguments."""
    found = {}

    def write(path, draw, *arguments):
        found[draw] = path, *arguments

    monkeypatch.setattr(plots, "write", write)
    return found


def test_the_command_draws_a_run(run, capsys):
    assert main(["plot", str(run), "--format", "svg"]) == 0
    paths = [run / "plots" / f"{name}.svg" for name in NAMES]
    assert capsys.readouterr().out.splitlines() == [str(path) for path in paths]
    assert sorted((run / "plots").iterdir()) == sorted(paths)
    for path in paths:
        assert path.read_text().rstrip().endswith("</svg>")


def test_the_command_draws_what_the_model_says(run, drawn):
    assert main(["plot", str(run)]) == 0
    assert [path for path, *_ in drawn.values()] == [run / "plots" / f"{n}.png" for n in NAMES]
    model, (_, test) = Sequential.load(run / "model.safetensors", "cpu"), few_digits()
    outputs = model.predict(test.images).astype(np.float64)
    guesses = outputs.argmax(axis=1)
    _, history, images_per_epoch = drawn[plots.curves]
    assert [line["event"] for line in history].count("epoch") == 2 and images_per_epoch == 256
    _, counts = drawn[plots.confusion]
    pairs = list(zip(test.labels.tolist(), guesses.tolist(), strict=True))
    assert counts.tolist() == [[pairs.count((i, j)) for j in range(10)] for i in range(10)]
    assert (counts != counts.T).any()
    assert np.array_equal(drawn[plots.per_class][1], counts)
    _, found = drawn[plots.reliability]
    assert found.images.sum() == 128
    right = np.nansum(found.images * found.accuracy) / 128
    assert right == pytest.approx((guesses == test.labels).mean())
    _, images, labels, probabilities = drawn[plots.mistakes]
    assert 0 < len(images) <= 12 and (probabilities.argmax(axis=1) != labels).all()
    certainty = probabilities.max(axis=1)
    assert (np.diff(certainty) <= 0).all()
    shares = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    assert certainty[0] == pytest.approx(shares.max(axis=1)[guesses != test.labels].max(), rel=1e-4)
    assert np.array_equal(drawn[plots.filters][1], model.layers[0].parameters["weight"])
    _, originals, samples = drawn[plots.augmented]
    assert len(samples) == 8 and all(sample.shape == originals.shape for sample in samples)
    assert not np.array_equal(samples[0], samples[1])


def test_an_unfinished_run_is_drawn_from_its_last_checkpoint(run, drawn, tmp_path):
    (run / "results.json").unlink()
    weight = Sequential.load(run / "model.safetensors", "cpu").layers[0].parameters["weight"]
    (run / "model.safetensors").unlink()
    output = tmp_path / "new" / "folder"
    assert main(["plot", str(run), "--output", str(output)]) == 0
    assert output.is_dir() and not (run / "plots").exists()
    path, filters = drawn[plots.filters]
    assert path == output / "filters.png" and np.array_equal(filters, weight)


def test_a_run_that_went_on_is_drawn_from_its_last_checkpoint(run, drawn):
    """Interrupted, which wrote the model, then resumed and killed."""
    model = Sequential.load(run / "model.safetensors", "cpu")
    model.parameter_buffer[...] = 0.5
    model.save(run / "model.safetensors")
    os.utime(run / "model.safetensors", (0, 0))
    assert main(["plot", str(run)]) == 0
    assert (drawn[plots.filters][1] != 0.5).all()


def test_a_recipe_that_does_not_augment_has_no_such_picture(run, drawn, capsys):
    settings = run / "settings.toml"
    settings.write_text(settings.read_text().replace('"default"', '"speedrun"'))
    assert main(["plot", str(run)]) == 0
    assert plots.augmented not in drawn and len(drawn) == len(NAMES) - 1
    expected = "no augmented images: the recipe speedrun does not augment\n"
    assert capsys.readouterr().err.endswith(expected)


def test_a_model_without_mistakes_has_no_such_picture(run, drawn, monkeypatch, capsys):
    model = Sequential.load(run / "model.safetensors", "cpu")
    training, test = few_digits()
    right = Dataset(test.images, model.predict(test.images).argmax(axis=1), "synthetic")
    monkeypatch.setattr(cnn.data, "load", lambda *_, **__: (training, right))
    assert main(["plot", str(run)]) == 0
    assert plots.mistakes not in drawn and len(drawn) == len(NAMES) - 1
    assert "no mistakes: every test image is classified right\n" in capsys.readouterr().err


def test_a_model_without_a_convolution_has_no_such_picture(run, drawn, capsys):
    Sequential([Flatten(), Dense(10)], (28, 28, 1), "cpu").save(run / "model.safetensors")
    assert main(["plot", str(run)]) == 0
    assert plots.filters not in drawn and len(drawn) == len(NAMES) - 1
    assert "no filters: the model has no convolution\n" in capsys.readouterr().err


def test_a_picture_that_is_left_out_leaves_no_older_one(run, drawn, monkeypatch):
    folder = run / "plots"
    folder.mkdir()
    for name in (*NAMES, "mine"):
        (folder / f"{name}.png").touch()
    model = Sequential([Flatten(), Dense(10)], (28, 28, 1), "cpu")
    model.save(run / "model.safetensors")
    settings = run / "settings.toml"
    settings.write_text(settings.read_text().replace('"default"', '"speedrun"'))
    training, test = few_digits()
    right = Dataset(test.images, model.predict(test.images).argmax(axis=1), "synthetic")
    monkeypatch.setattr(cnn.data, "load", lambda *_, **__: (training, right))
    assert main(["plot", str(run)]) == 0
    kept = {"curves", "confusion", "classes", "calibration", "mine"}
    assert {path.stem for path in folder.iterdir()} == kept


def failure(capsys, *arguments):
    status = main(arguments)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return status, lines[0].removeprefix("cnn: error: ")


def test_what_is_no_run_says_so(tmp_path, capsys):
    expected = f"{tmp_path / 'settings.toml'}: No such file or directory"
    assert failure(capsys, "plot", str(tmp_path)) == (1, expected)


STEP = '{"event": "steps", "step": 8, "images": 256, "loss": null, "learning_rate": 0.1}'


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"", "is not JSON: Expecting value"),
        (STEP[:-10].encode(), "is not JSON: Unterminated string starting at"),
        (STEP.replace("steps", "st\xe9ps").encode("latin-1"), "is not UTF-8"),
        (b"5", "got 5, expected a JSON object"),
        (b"[]", "got list, expected a JSON object"),
        (b'{"a": 1}', "event: got None, expected 'steps' or 'epoch'"),
        (b'{"event": []}', "event: got list, expected 'steps' or 'epoch'"),
        (STEP.replace("images", "pictures").encode(), "images: got None, expected a number"),
        (STEP.replace("256", "null").encode(), "images: got None, expected a number"),
        (STEP.replace("256", "NaN").encode(), "images: got nan, expected a number"),
        (STEP.replace("256", "true").encode(), "images: got True, expected a number"),
        (STEP.replace("256", "1" + "0" * 400).encode(), "images: got 1000000"),
        (STEP.replace("256", "1" * 5000).encode(), "is not a line of a loss curve: Exceeds the"),
        (b"[" * 100_000, "is not a line of a loss curve: maximum recursion depth"),
        (STEP.replace("null", '"low"').encode(), "loss: got 'low', expected a number or null"),
        (b'{"event": "epoch"}', "epoch: got None, expected a number"),
        (
            b'{"event": "epoch", "epoch": 3, "validation_accuracy": {}}',
            "validation_accuracy: got dict, expected a number or null",
        ),
    ],
)
def test_a_damaged_history_says_where(line, fault, run, drawn, capsys):
    history = run / "history.jsonl"
    lines = history.read_bytes().splitlines(keepends=True)
    history.write_bytes(b"".join([*lines[:4], line + b"\n", *lines[4:]]))
    colon = "" if fault.startswith("is ") else ":"
    sentence = f"{history}: line 5{colon} {fault}"
    status, found = failure(capsys, "plot", str(run))
    assert status == 1 and found.startswith(sentence) and not drawn


def test_a_history_without_validation_is_drawn(run, drawn):
    lines = [STEP, '{"event": "epoch", "epoch": 1, "train_loss": null}']
    (run / "history.jsonl").write_text("\n".join(lines))
    assert main(["plot", str(run)]) == 0
    assert drawn[plots.curves][1] == [json.loads(line) for line in lines]


def test_a_model_that_diverged_says_so(run, drawn, capsys):
    model = Sequential.load(run / "model.safetensors", "cpu")
    model.parameter_buffer[...] = np.nan
    model.save(run / "model.safetensors")
    expected = "model: gives outputs that are not finite: its training diverged"
    assert failure(capsys, "plot", str(run)) == (1, expected)
    assert list(drawn) == [plots.curves]  # which show when it diverged


@pytest.mark.parametrize(
    ("images", "labels", "sentence"),
    [
        (3, [0, 10, 2], "data: labels: got 0 to 10, expected 0 to 9 for 10 classes"),
        (3, [0, -1, 2], "data: labels: got -1 to 2, expected 0 to 9 for 10 classes"),
        (0, [], "data: got no images, expected at least one"),
    ],
)
@pytest.mark.parametrize("part", [0, 1], ids=["training", "test"])
def test_data_that_do_not_fit_the_model(
    part, images, labels, sentence, run, drawn, monkeypatch, capsys
):
    sets = list(few_digits())
    images = np.zeros((images, 28, 28), np.uint8)
    sets[part] = Dataset(images, np.array(labels, np.int64), "synthetic")
    monkeypatch.setattr(cnn.data, "load", lambda *_, **__: sets)
    assert failure(capsys, "plot", str(run)) == (1, sentence) and not drawn


@pytest.mark.parametrize(
    ("name", "count", "sentence"),
    [
        ("mnist", 256, "data: got 256 images of 'mnist', expected 256 of 'synthetic', "),
        ("synthetic", 255, "data: got 255 images of 'synthetic', expected 256 of 'synthetic', "),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_other_data_than_those_of_the_training(
    name, count, sentence, finished, run, drawn, monkeypatch, capsys
):
    if not finished:
        (run / "model.safetensors").unlink()
    training, test = few_digits()
    other = Dataset(training.images[:count], training.labels[:count], name)
    monkeypatch.setattr(cnn.data, "load", lambda *_, **__: (other, test))
    sentence += "which the run was trained on"
    assert failure(capsys, "plot", str(run)) == (1, sentence)
    assert not drawn and not (run / "plots").exists()


def test_a_run_without_a_checkpoint_is_drawn_from_the_data_there_are(run, drawn, capsys):
    shutil.rmtree(run / "checkpoints")
    assert main(["plot", str(run)]) == 0 and len(drawn) == len(NAMES)
    expected = f"{run} has no checkpoint: the data may be others than those of its training\n"
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--output", "new/folder"]], ids=["plots", "another folder"])
def test_a_failure_before_the_first_picture_leaves_no_folder(
    words, run, drawn, monkeypatch, capsys, tmp_path
):
    monkeypatch.chdir(tmp_path)

    def missing(*_, **__):
        raise cnn.data.DataError("planted")

    monkeypatch.setattr(cnn.data, "load", missing)
    assert failure(capsys, "plot", str(run), *words) == (1, "planted")
    assert not (run / "plots").exists() and not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made_says_so(run, drawn, capsys, tmp_path):
    (tmp_path / "file").touch()
    output = tmp_path / "file" / "plots"
    assert failure(capsys, "plot", str(run), "--output", str(output)) == (
        1,
        f"{output}: Not a directory",
    )
    assert not drawn


def test_without_the_extra_it_says_what_to_install(run, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "cnn.plots")
    monkeypatch.delattr(cnn, "plots")
    expected = "pictures need matplotlib: pip install 'cnn-kernels[plot]'"
    assert failure(capsys, "plot", str(run)) == (1, expected)


def test_the_lines_of_a_run_are_what_curves_take(run):
    lines = (run / "history.jsonl").read_text().splitlines()
    history = [json.loads(line) for line in lines]
    loss, *_ = plots.curves(history, 256).axes
    assert loss.lines[0].get_xdata()[-1] == 2
