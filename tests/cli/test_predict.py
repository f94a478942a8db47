"""``cnn predict``: what it prints, writes and returns."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from cnn import Dense, Flatten, Sequential
from cnn.__main__ import main
from tests.lib.quick_model import digits, quick_model

COUNT = 150


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model that has seen some digits, the file it is in, and test images with labels."""
    path = tmp_path_factory.mktemp("trained") / "model.safetensors"
    quick_model().save(path)
    test = digits()[1]
    return quick_model(), path, test.images[:COUNT], test.labels[:COUNT]


def disguise(image, seed):
    """The image as a user might have it: enlarged, off centre, in other colours."""
    random = np.random.default_rng(seed)
    side = 28 * int(random.integers(2, 15))
    large = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
    margins = random.integers(side // 2, size=(2, 2))
    ink = np.pad(large, margins)[..., None] / 255
    paper, pen = [(0, 255), (255, 0), ((250, 240, 200), (20, 30, 120))][seed % 3]
    levels = np.add(paper, ink * np.subtract(pen, paper)) * np.ones(3)
    return Image.fromarray(np.rint(levels).astype(np.uint8))


def predict(*arguments):
    return main(["predict", *map(str, arguments), "--device", "cpu"])


def test_pictures_of_digits_get_the_class_that_the_digits_get(trained, tmp_path, capsys):
    model, path, images, labels = trained
    files = []
    for index, image in enumerate(images):
        files.append(tmp_path / f"{index}.{'jpg' if index % 2 else 'png'}")
        disguise(image, index).save(files[-1])
    written = tmp_path / "answers.json"
    assert predict(path, *files, "--json", written) == 0
    answers = json.loads(written.read_text())
    assert answers["model"] == str(path)
    assert [answer["image"] for answer in answers["images"]] == list(map(str, files))
    found = np.array([answer["class"] for answer in answers["images"]])
    own = model.predict(images).argmax(axis=1)
    assert (own == labels).mean() > 0.9
    assert (found == own).mean() > 0.94
    for answer, line in zip(answers["images"], capsys.readouterr().out.splitlines(), strict=True):
        chances = answer["probabilities"]
        assert len(chances) == 10 and sum(chances) == pytest.approx(1)
        assert answer["class"] == np.argmax(chances)
        assert line.startswith(f"{answer['image']}: {answer['class']} ({max(chances):.1%}), ")
        assert line.count("%") == 3


@pytest.mark.parametrize(("top", "shown"), [(1, 1), (10, 10), (99, 10)])
def test_as_many_classes_as_asked_for_most_probable_first(trained, top, shown, tmp_path, capsys):
    _, path, images, _ = trained
    disguise(images[0], 0).save(tmp_path / "digit.png")
    assert predict(path, tmp_path / "digit.png", "--top", top) == 0
    line = capsys.readouterr().out.removeprefix(f"{tmp_path}/digit.png: ")
    chances = [float(part.split("(")[1].split("%")[0]) for part in line.split(", ")]
    assert len(chances) == shown and chances == sorted(chances, reverse=True)


def test_of_equally_probable_classes_the_first_comes_first(tmp_path, capsys):
    model = Sequential([Flatten(), Dense(4)], (28, 28, 1), "cpu")
    model.parameter_buffer[...] = 0
    model.save(tmp_path / "model.safetensors")
    disguise(digits()[1].images[0], 0).save(tmp_path / "digit.png")
    assert predict(tmp_path / "model.safetensors", tmp_path / "digit.png") == 0
    assert capsys.readouterr().out.endswith(": 0 (25.0%), 1 (25.0%), 2 (25.0%)\n")


def test_the_others_are_classified_where_some_cannot_be(trained, tmp_path, capsys):
    _, path, images, _ = trained
    files = [tmp_path / name for name in ("blank.png", "first.png", "no.png", "second.png")]
    Image.new("L", (90, 90), "white").save(files[0])
    disguise(images[0], 0).save(files[1])
    disguise(images[1], 1).save(files[3])
    written = tmp_path / "answers.json"
    assert predict(path, *files, "--json", written) == 1
    shown = capsys.readouterr()
    lines = shown.err.splitlines()[-2:]
    assert lines[0].startswith(f"cnn: error: {files[0]}: the picture is blank: nothing stands out")
    assert lines[1] == f"cnn: error: {files[2]}: No such file or directory"
    assert [line.split(":")[0] for line in shown.out.splitlines()] == [str(files[1]), str(files[3])]
    answers = json.loads(written.read_text())["images"]
    assert [set(answer) - {"image"} for answer in answers] == [
        {"error"},
        {"class", "probabilities"},
        {"error"},
        {"class", "probabilities"},
    ]


def test_no_usable_picture_at_all(trained, tmp_path, capsys):
    assert predict(trained[1], tmp_path / "no.png") == 1
    assert capsys.readouterr().out == ""


def test_models_of_other_images(tmp_path, capsys):
    path, drawing = tmp_path / "model.safetensors", tmp_path / "drawing.png"
    disguise(np.tri(28, dtype=np.uint8) * 255, 0).save(drawing)
    Sequential([Flatten(), Dense(3)], (20, 32, 1), device="cpu").save(path)
    assert predict(path, drawing) == 0
    assert capsys.readouterr().out.count("%") == 3
    Sequential([Flatten(), Dense(10)], (28, 28, 3), device="cpu").save(path)
    assert predict(path, drawing) == 1
    assert capsys.readouterr().err.endswith(
        "cnn: error: model: takes inputs of shape (28, 28, 3), expected (H, W, 1), grey images\n"
    )


def test_without_pillow(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert predict(trained[1], tmp_path / "digit.png") == 1
    assert capsys.readouterr().err.endswith(
        "cnn: error: pictures need Pillow: pip install 'cnn-kernels[image]'\n"
    )


def test_answers_that_cannot_be_written(trained, tmp_path, capsys):
    assert predict(trained[1], tmp_path / "digit.png", "--json", tmp_path) == 1
    assert f"{tmp_path} cannot be written: it is a folder" in capsys.readouterr().err
