"""Data sets of four IDX files: recognised by their hashes, or said to be unknown.

The files are made up; known hashes are replaced by theirs.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from cnn import Sequential, data
from cnn.__main__ import main
from cnn.data import DataError, known
from cnn.data.idx import FILES, candidates
from tests.lib.tiny_mnist import CONTENTS, SOUND, fill, idx, install

OTHERS = ("fashion-mnist", "kmnist", "emnist-digits")


def made_up(seed: int = 0, train: int = 5, test: int = 3, classes: int = 10) -> dict[str, bytes]:
    random = np.random.default_rng((9, seed))
    arrays = [
        array
        for count in (train, test)
        for array in (
            random.integers(256, size=(count, 28, 28)),
            random.integers(classes, size=count),
        )
    ]
    return {file: idx(array) for file, array in zip(FILES, arrays, strict=True)}


def zipped(contents: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{file}.gz": gzip.compress(content, mtime=0) for file, content in contents.items()}


def publish(monkeypatch: pytest.MonkeyPatch, name: str, files: dict[str, bytes]) -> None:
    digests = tuple(hashlib.md5(content).hexdigest() for content in files.values())
    monkeypatch.setitem(known.PUBLISHED_MD5, name, digests)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path / "cache")


def test_the_table_has_four_hashes_a_set() -> None:
    assert tuple(known.PUBLISHED_MD5) == OTHERS
    digests = [digest for of_set in known.PUBLISHED_MD5.values() for digest in of_set]
    assert len({*digests}) == 12
    assert all(re.fullmatch("[0-9a-f]{32}", digest) for digest in digests)


@pytest.mark.parametrize("name", OTHERS)
def test_a_published_set_is_recognised(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = made_up()
    publish(monkeypatch, name, zipped(contents))
    folder = fill(tmp_path / "named", zipped(contents))
    for asked in ("auto", name):
        train, test = data.load(asked, folder, say=pytest.fail)
        assert (train.name, test.name, len(train), len(test)) == (name, name, 5, 3)
        images = np.frombuffer(contents[FILES[0]], np.uint8, offset=16).reshape(5, 28, 28)
        # EMNIST's files have columns for rows.
        expected = images.transpose(0, 2, 1) if name == "emnist-digits" else images
        np.testing.assert_array_equal(train.images, expected)
        assert train.images.flags.c_contiguous and train.labels.tobytes() == contents[FILES[1]][8:]


def test_the_names_of_emnists_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = zipped(made_up())
    publish(monkeypatch, "emnist-digits", files)
    renamed = {
        f"emnist-digits-{name.replace('t10k', 'test')}": body for name, body in files.items()
    }
    assert "emnist-digits-test-labels-idx1-ubyte.gz" in renamed
    folder = fill(tmp_path / "named", renamed)
    assert data.load("auto", folder)[0].name == "emnist-digits"
    assert all(any(path.exists() for path in candidates(folder, file)) for file in FILES)


def test_any_other_folder_is_an_unknown_data_set(tmp_path: Path) -> None:
    names = [
        data.load("auto", fill(tmp_path / folder, files), say=pytest.fail)[0].name
        for folder, files in (
            ("plain", made_up()),
            ("gzip", zipped(made_up())),
            ("other", made_up(seed=1)),
        )
    ]
    assert re.fullmatch("unknown data set [0-9a-f]{8}", names[0])
    assert names[0] == names[1] != names[2]


def test_mnist_is_still_mnist(tmp_path: Path) -> None:
    assert data.load("auto", fill(tmp_path / "named", SOUND))[1].name == "mnist"


def refused(name: str, folder: Path | None) -> str:
    with pytest.raises(DataError) as caught:
        data.load(name, folder, say=pytest.fail)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_set_that_is_not_the_one_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = made_up()
    publish(monkeypatch, "kmnist", zipped(contents))
    folder = fill(tmp_path / "kmnist", zipped(contents))
    assert refused("fashion-mnist", folder) == (
        f"{folder} has kmnist, expected fashion-mnist in .gz files as published"
    )
    mnist = fill(tmp_path / "mnist", CONTENTS)
    assert refused("kmnist", mnist) == f"{mnist} has files of MNIST, expected kmnist"
    unpacked = fill(tmp_path / "unpacked", contents)
    assert re.fullmatch(
        f"{unpacked} has unknown data set [0-9a-f]{{8}}, expected kmnist in .gz files as published",
        refused("kmnist", unpacked),
    )
    assert refused("mnist", folder).startswith(f"{folder}/train-images-idx3-ubyte.gz is not MNIST")


def test_one_file_of_another_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, "kmnist", zipped(made_up()))
    mixed = zipped(made_up()) | {f"{FILES[3]}.gz": zipped(made_up(1))[f"{FILES[3]}.gz"]}
    folder = fill(tmp_path / "named", mixed)
    sentence = refused("auto", folder)
    assert sentence.startswith(
        f"{folder / FILES[3]}.gz is not that of kmnist, as other files there"
    )


@pytest.mark.parametrize("name", OTHERS)
def test_only_mnist_is_found_without_a_folder(name: str) -> None:
    assert refused(name, None) == (
        f"{name} is not downloaded: name the folder of its four files with --data"
    )


def test_files_that_are_damaged_or_missing(tmp_path: Path) -> None:
    files = zipped(made_up())
    short = fill(tmp_path / "short", files | {f"{FILES[1]}.gz": files[f"{FILES[1]}.gz"][:-9]})
    assert refused("auto", short).startswith(
        f"{short / FILES[1]}.gz cannot be decompressed, damaged gzip: "
    )
    text = fill(tmp_path / "text", made_up() | {FILES[2]: b"text"})
    assert refused("auto", text).startswith(f"{text / FILES[2]} is not an IDX file")
    lacking = fill(tmp_path / "lacking", made_up())
    (lacking / FILES[2]).unlink()
    assert refused("auto", lacking) == (
        f"the data set is incomplete: looked in the given folder {lacking}, and did not find "
        f"{FILES[2]} (plain or .gz)"
    )
    uneven = fill(tmp_path / "uneven", made_up() | {FILES[1]: made_up(train=4)[FILES[1]]})
    assert refused("auto", uneven).startswith(f"{uneven} has no images with a label each: ")


def test_a_file_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "LARGEST_CONTENT_BYTES", 1000)
    folder = fill(tmp_path / "named", zipped(made_up()))
    assert refused("auto", folder) == (
        f"{folder / FILES[0]}.gz cannot be decompressed, more than 1000 bytes"
    )
    plain = fill(tmp_path / "plain", made_up())  # of any length
    assert len(data.load("auto", plain)[0]) == 5


def train(*words: object) -> int:
    return main(["train", "--device", "cpu", "--quiet", *map(str, words)])


def test_the_command_line_says_which_set_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    contents = made_up(train=300, test=100)
    folder = fill(tmp_path / "named", zipped(contents))
    assert train("--data", folder, "--run", "first") == 0
    name = data.load("auto", folder)[0].name
    assert capsys.readouterr().out.startswith(f"{name} test accuracy ")
    results = json.loads((tmp_path / "runs" / "first" / "results.json").read_text())
    assert results["dataset"] == name
    # It is found again, and no other folder's images take its place.
    assert train("--resume", "runs/first") == 0
    other = fill(tmp_path / "other", made_up(1, train=300, test=100))
    assert train("--resume", "runs/first", "--data", other) == 1
    assert f"expected {name!r} as in the training restored" in capsys.readouterr().err
    publish(monkeypatch, "kmnist", zipped(contents))
    model = tmp_path / "runs" / "first" / "model.safetensors"
    assert Sequential.load(model, "cpu").output_shape == (10,)
    assert main(["evaluate", "--device", "cpu", str(model), "--data", str(folder)]) == 0
    assert capsys.readouterr().out.startswith("kmnist test accuracy ")


def test_labels_beyond_the_networks_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = fill(tmp_path / "named", made_up(train=300, test=100, classes=26))
    assert train("--data", folder) == 1
    assert capsys.readouterr().err == (
        "cnn: error: data: labels: got 0 to 25, expected 0 to 9 for 10 classes\n"
    )
