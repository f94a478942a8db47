"""``cnn plot``: which pictures it draws of a run, from what, and what its failures say."""

import json
import os
import shutil
import sys

import numpy as np
import pytest

import cnn.data
from cnn import Dataset, Dense, Flatten, Sequential, plots
from cnn.__main__ import main

NAMES = ["curves", "confusion", "classes", "calibration", "mistakes", "filters", "augmented"]


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


@pytest.mark.parametrize("what", [".", "absent", "run/model.safetensors"])
def test_what_is_no_run_says_so(what, run, tmp_path, capsys):
    named = tmp_path / what
    expected = f"{named} is not the folder of a run: it has no settings.toml"
    assert failure(capsys, "plot", str(named)) == (1, expected)


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
