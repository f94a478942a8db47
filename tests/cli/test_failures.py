"""What the command line says if it fails: exit status 1 and one sentence."""

import json

import pytest

import cnn.data
import cnn.data.synthetic
from cnn import Dense, Flatten, Sequential
from cnn.__main__ import main
from kernels.runtime import cuda
from tests.lib import tiny_mnist
from tests.lib.command_line import failure, one_sentence, run

pytestmark = pytest.mark.usefixtures("folder_of_runs")

# Without MNIST


def test_offline_it_trains_on_synthetic_digits_and_says_so(monkeypatch, tmp_path, capsys):
    digits = cnn.data.synthetic.synthetic_digits
    monkeypatch.setattr(cnn.data.synthetic, "synthetic_digits", lambda: digits(256, 64))
    tiny_mnist.install(monkeypatch, tmp_path / "cache")
    written = tmp_path / "run.json"
    assert main(["train", "--quiet", "--json", str(written)]) == 0
    shown = capsys.readouterr()
    assert shown.err.startswith("MNIST is not here and could not be downloaded")
    assert shown.err.endswith("taking synthetic digits instead\n")
    assert shown.out.startswith("synthetic test accuracy ")
    assert json.loads(written.read_text())["dataset"] == "synthetic"


def test_offline_mnist_is_an_error_that_names_files_and_places(monkeypatch, tmp_path, capsys):
    tiny_mnist.install(monkeypatch, tmp_path / "cache")
    sentence = failure(capsys, "train", "--dataset", "mnist")
    for file in tiny_mnist.CONTENTS:
        assert file in sentence
    assert str(tmp_path / "cache") in sentence and "--data" in sentence


def test_a_data_folder_that_lacks_files(monkeypatch, tmp_path, capsys):
    tiny_mnist.install(monkeypatch, tmp_path / "cache")
    for folder in (tmp_path, tmp_path / "nowhere"):
        sentence = failure(capsys, "train", "--data", str(folder))
        assert sentence.startswith(
            f"the data set is incomplete: looked in the given folder {folder}"
        )


def test_a_corrupt_data_file_is_named(monkeypatch, tmp_path, capsys):
    tiny_mnist.install(monkeypatch, tmp_path / "cache")
    tiny_mnist.fill(tmp_path, tiny_mnist.SOUND)
    damaged = tmp_path / f"{tiny_mnist.TEST_LABELS}.gz"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    sentence = failure(capsys, "train", "--data", str(tmp_path))
    assert sentence.startswith(f"{damaged} is not MNIST's") and "SHA-256" in sentence


# Files, models and machines


@pytest.mark.parametrize("option", ["--save", "--json"])
def test_a_file_that_cannot_be_written_is_noticed_before_the_training(
    option, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(cnn.data, "load", lambda *_, **__: pytest.fail("it trains"))
    (tmp_path / "file").touch()
    for path, reason in (
        (tmp_path, "it is a folder"),
        (tmp_path / "nowhere" / "run", f"there is no folder {tmp_path / 'nowhere'}"),
        (tmp_path / "file" / "run", "Not a directory"),
    ):
        sentence = failure(capsys, "train", option, str(path))
        assert sentence == f"{path} cannot be written: {reason}"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_model_that_cannot_be_read(tmp_path, capsys):
    missing, text = tmp_path / "missing", tmp_path / "text"
    text.write_text("no model")
    assert failure(capsys, "evaluate", str(missing)) == f"{missing}: No such file or directory"
    assert failure(capsys, "evaluate", str(tmp_path)) == f"{tmp_path}: Is a directory"
    assert failure(capsys, "evaluate", str(text)).startswith(f"{text} is damaged or no safet")


def test_a_model_of_other_images(few_images, tmp_path, capsys):
    path = tmp_path / "model.safetensors"
    Sequential([Flatten(), Dense(10)], (32, 32, 1)).save(path)
    sentence = failure(capsys, "evaluate", str(path))
    assert sentence == "data: images: got shape (256, 28, 28, 1), expected (N, 32, 32, 1)"


def test_cuda_without_a_gpu(few_images, capsys, monkeypatch):
    monkeypatch.setattr(cuda, "unavailable", lambda: "CuPy finds no GPU")
    sentence = failure(capsys, "train", "--device", "cuda")
    assert sentence == "device 'cuda' is not available: CuPy finds no GPU"
    assert main(["train"]) == 0
    assert capsys.readouterr().err.startswith("using the CPU: CuPy finds no GPU\n")


@pytest.mark.parametrize("error", [MemoryError("Unable to allocate 9 TiB"), MemoryError()])
def test_too_little_memory(error, capsys, monkeypatch):
    def load(*_, **__):
        raise error

    monkeypatch.setattr(cnn.data, "load", load)
    assert failure(capsys, "train", "--quiet") in ("Unable to allocate 9 TiB", "MemoryError")


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"CXX": "/nonexistent"}, "the cpu target needs a C++17 compiler and none was found (lo"),
        ({"CXX": "/bin/false"}, "the compiler /bin/false failed on"),
        ({"KERNELS_CACHE_DIR": "{file}/below"}, "cannot write compiled kernels to the cache fol"),
        ({"KERNELS_THREADS": "abc"}, "KERNELS_THREADS: got 'abc', expected a whole number"),
        ({"KERNELS_THREADS": "0"}, "KERNELS_THREADS: got '0', expected a whole number"),
    ],
    ids=str,
)
def test_a_machine_that_cannot_compile(environment, sentence, tmp_path):
    (tmp_path / "file").touch()
    filled = {name: value.format(file=tmp_path / "file") for name, value in environment.items()}
    cache_folder = {"KERNELS_CACHE_DIR": str(tmp_path)}
    done = run("train", "--quiet", "--device", "cpu", **(cache_folder | filled))
    assert done.returncode == 1
    assert one_sentence(done.stderr, done.stdout).startswith(sentence)
