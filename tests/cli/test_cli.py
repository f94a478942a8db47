"""The command line: what it prints, writes and returns, and what every failure says."""

import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cnn.data
import cnn.data.synthetic
from cnn import Dataset, Dense, Flatten, Sequential, commands
from cnn.__main__ import main
from cnn.commands import options
from cnn.recipes import RECIPES
from kernels.runtime import cache, cuda
from tests.lib import tiny_mnist

REPOSITORY = Path(__file__).resolve().parents[2]
MNIST = Path(os.environ.get("MNIST_DIR") or REPOSITORY.parent / "shared" / "data" / "mnist")
FIELDS = (
    "dataset device recipe epochs batch_size seed shards processes parameters setup_seconds "
    "train_seconds images_per_second train_loss test_loss test_accuracy"
).split()
NOTES = ("using the CPU: ",)


def few(count, seed):
    """Images whose brightness tells the class: learned in a few steps."""
    labels = np.random.default_rng(seed).integers(10, size=count)
    images = np.random.default_rng(seed + 1).integers(20, size=(count, 28, 28), dtype=np.uint8)
    return Dataset(images + (20 * labels[:, None, None]).astype(np.uint8), labels, "few")


def load_few(name="auto", directory=None, say=print):
    return few(512, 0), few(256, 1)


@pytest.fixture(autouse=True)
def folder_of_runs(tmp_path_factory, monkeypatch):
    """Trainings write below the current folder."""
    monkeypatch.chdir(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def few_images(monkeypatch):
    monkeypatch.setattr(cnn.data, "load", load_few)


def failure(capsys, *arguments):
    """Run a command that must fail and return its one sentence."""
    assert main(arguments) == 1
    shown = capsys.readouterr()
    return one_sentence(shown.err, shown.out)


def one_sentence(err, out=""):
    assert out == ""
    lines = [line for line in err.splitlines() if not line.startswith(NOTES)]
    assert len(lines) == 1 and lines[0].startswith("cnn: error: "), err
    return lines[0].removeprefix("cnn: error: ")


def run(*arguments, **environment):
    """Run the command line in a process of its own, on few images."""
    return subprocess.run(command(arguments), capture_output=True, text=True, **in_(environment))


def command(arguments):
    # A shell starts jobs in the background with SIGINT ignored, which Python then inherits.
    script = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from tests.cli import test_cli; test_cli.cnn.data.load = test_cli.load_few; "
        "sys.exit(test_cli.main(sys.argv[1:]))"
    )
    return [sys.executable, "-c", script, *map(str, arguments)]


def in_(environment):
    return {"env": os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment}


# One real training


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A speedrun of one epoch on all images: the finished process and the folder of its files."""
    folder = tmp_path_factory.mktemp("speedrun")
    data = ["--data", MNIST] if MNIST.is_dir() else ["--dataset", "synthetic"]
    files = ["--json", folder / "run.json", "--save", folder / "model.safetensors"]
    files += ["--runs", folder / "runs"]
    done = subprocess.run(
        list(map(str, [sys.executable, "-m", "cnn", "train", *data, *files])),
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stderr
    return done, folder


def test_a_speedrun_learns_and_says_so(real):
    done, folder = real
    results = json.loads((folder / "run.json").read_text())
    assert list(results) == FIELDS
    assert results["dataset"] == ("mnist" if MNIST.is_dir() else "synthetic")
    assert results["device"] in ("cpu", "cuda")
    assert (results["recipe"], results["epochs"], results["seed"]) == ("speedrun", 1, 0)
    assert results["test_accuracy"] > 0.98
    assert 0 < results["test_loss"] < 0.3 and 0 < results["train_loss"] < 1
    assert math.isclose(results["images_per_second"] * results["train_seconds"], 60_000)
    assert results["setup_seconds"] > 0
    assert done.stdout.startswith(
        f"{results['dataset']} test accuracy {results['test_accuracy']:.2%}, "
    )
    assert len(done.stdout.splitlines()) == 1
    assert "Conv2D" in done.stderr and f"{results['parameters']:,}" in done.stderr
    assert "epoch 1/1" in done.stderr and "images/s, loss " in done.stderr


def test_evaluating_the_saved_model_gives_the_same(real, tmp_path, capsys):
    _, folder = real
    data = ["--data", str(MNIST)] if MNIST.is_dir() else ["--dataset", "synthetic"]
    evaluated = tmp_path / "evaluated.json"
    model = folder / "model.safetensors"
    assert main(["evaluate", str(model), *data, "--json", str(evaluated)]) == 0
    trained = json.loads((folder / "run.json").read_text())
    results = json.loads(evaluated.read_text())
    for name in ("dataset", "device", "parameters", "test_loss", "test_accuracy"):
        assert results[name] == trained[name]
    shown = capsys.readouterr().out
    assert shown.startswith(f"{results['dataset']} test accuracy {results['test_accuracy']:.2%}")


# Trainings on few images


def test_every_recipe_can_be_chosen():
    assert set(options.RECIPES) == set(RECIPES)


@pytest.mark.parametrize("recipe", ["speedrun", "default"])
def test_options_reach_the_training(few_images, recipe, tmp_path, capsys):
    written = tmp_path / "run.json"
    options = f"--recipe {recipe} --epochs 2 --batch-size 100 --lr 0.001 --seed 7 --device cpu"
    assert main(["train", *options.split(), "--json", str(written)]) == 0
    results = json.loads(written.read_text())
    assert list(results) == FIELDS
    expected = {"dataset": "few", "device": "cpu", "recipe": recipe}
    expected |= {"epochs": 2, "batch_size": 100, "seed": 7}
    assert {name: results[name] for name in expected} == expected
    assert 0 <= results["test_accuracy"] <= 1
    shown = capsys.readouterr().err
    assert "training in batches of 100: " in shown
    assert "training on few, 512 images, on cpu" in shown and "epoch 2/2" in shown


@pytest.mark.parametrize("recipe", RECIPES)
def test_fresh_statistics_are_taken_where_the_recipe_says_so(
    few_images, recipe, monkeypatch, tmp_path
):
    taken = []
    monkeypatch.setattr("cnn.trainer.update_batch_norm", lambda *_: taken.append(recipe))
    options = f"--recipe {recipe} --epochs 2 --quiet --device cpu"
    assert main(["train", *options.split(), "--save", str(tmp_path / "model.safetensors")]) == 0
    assert len(taken) == RECIPES[recipe].fresh_statistics


def test_the_seed_decides_the_result(few_images, tmp_path, capsys):
    models = []
    for seed in (3, 3, 4):
        path = tmp_path / "model.safetensors"
        assert main(["train", "--quiet", "--seed", str(seed), "--save", str(path)]) == 0
        models.append(Sequential.load(path).parameter_buffer.tobytes())
    assert models[0] == models[1] != models[2]


def test_quiet_prints_the_result_alone(few_images, capsys):
    assert main(["train", "--quiet"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert len(shown.out.splitlines()) == 1 and shown.out.startswith("few test accuracy ")


def test_a_training_that_diverges_fails(few_images, tmp_path, capsys):
    files = ["--json", str(tmp_path / "run.json"), "--save", str(tmp_path / "model")]
    sentence = failure(capsys, "train", "--quiet", "--lr", "1e30", "--run", "a", *files)
    assert sentence == (
        "the loss is nan at step 2, first in the output of layer 3 (Conv2D); "
        "last checkpoint: runs/a/checkpoints/epoch-0000.safetensors"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_learns_nothing_says_so(few_images, capsys):
    assert main(["train", "--quiet", "--lr", "2", "--device", "cpu"]) == 0
    shown = capsys.readouterr()
    _, test = load_few()
    chance = np.bincount(test.labels).max() / len(test)
    assert shown.out.startswith(f"few test accuracy {chance:.2%}, ")
    assert shown.err == (
        "cnn: warning: the network learned nothing: always answering one class is right for "
        f"{chance:.2%} of the test images; try another --lr than 2, or another --seed\n"
    )


def test_a_model_whose_loss_is_no_number_is_valid_json(few_images, tmp_path, capsys):
    model, written = Sequential([Flatten(), Dense(10)], (28, 28, 1)), tmp_path / "results.json"
    model.parameter_buffer[...] = np.inf
    model.save(tmp_path / "model")
    assert main(["evaluate", str(tmp_path / "model"), "--json", str(written)]) == 0
    results = json.loads(written.read_text(), parse_constant=pytest.fail)
    assert results["test_loss"] is None and 0 <= results["test_accuracy"] <= 1
    assert main(["evaluate", *[str(tmp_path / "model")] * 2, "--json", str(written)]) == 0
    results = json.loads(written.read_text(), parse_constant=pytest.fail)
    assert [one["test_loss"] for one in (results, *results["models"])] == [None] * 3


def test_several_models_are_measured_one_by_one_and_together(few_images, tmp_path, capsys):
    paths = []
    for seed in range(2):
        paths.append(str(tmp_path / f"{seed}.safetensors"))
        Sequential([Flatten(), Dense(10)], (28, 28, 1), seed=seed).save(paths[-1])
    written = tmp_path / "results.json"
    assert main(["evaluate", *paths, "--json", str(written)]) == 0
    results, shown = json.loads(written.read_text()), capsys.readouterr().out.splitlines()
    each = results["models"]
    assert [one["model"] for one in each] == paths and results["parameters"] == 2 * 7850
    assert results["test_loss"] < max(one["test_loss"] for one in each)
    assert [line.partition(":")[0] for line in shown[:2]] == paths
    assert shown[2].endswith(f"loss {results['test_loss']:.4f}, mean of 2 models")


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert re.fullmatch(r"cnn-kernels \S+\n", capsys.readouterr().out)


def test_info_names_what_this_machine_has(capsys):
    assert main(["info"]) == 0
    shown = capsys.readouterr().out
    for name in ("cnn-kernels", "targets", "compiler", "GPU", str(cache.folder())):
        assert name in shown


def test_info_of_a_model_is_its_summary(tmp_path, capsys):
    model = Sequential([Flatten(), Dense(10)], (28, 28, 1), "cpu")
    model.save(tmp_path / "model")
    assert main(["info", str(tmp_path / "model")]) == 0
    assert capsys.readouterr().out == f"{model.summary()}\n"
    missing = tmp_path / "missing"
    assert failure(capsys, "info", str(missing)) == f"{missing}: No such file or directory"


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


# Help and usage


@pytest.mark.parametrize("command", [[], *([name] for name in commands.NAMES)])
def test_help_shows_examples(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert f"examples:\n  cnn {' '.join(command)}" in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("", "required: COMMAND"),
        ("trian", "invalid choice: 'trian'"),
        ("evaluate", "required: MODEL"),
        ("train --recipe slow", "--recipe: invalid choice: 'slow'"),
        ("train --dataset cifar", "--dataset: invalid choice: 'cifar'"),
        ("train --device gpu", "--device: invalid choice: 'gpu'"),
        ("train --epochs 0", "--epochs: got '0', expected a whole number from 1 to 2147483647"),
        ("train --epochs 1.5", "--epochs: got '1.5', expected a whole number from 1 to 2147483647"),
        ("train --batch-size -1", "--batch-size: got '-1', expected a whole number from 1 to"),
        ("train --shards 2147483648", "--shards: got '2147483648', expected a whole number from 1"),
        (f"train --keep {'9' * 5000}", f"--keep: got '{'9' * 99}', expected a whole number from 1"),
        ("train --lr 0", "--lr: got '0', expected a number above 0"),
        ("train --lr nan", "--lr: got 'nan', expected a number above 0"),
        ("train --lr high", "--lr: got 'high', expected a number above 0"),
        ("train --seed -1", "--seed: got '-1', expected a whole number from 0 to 2147483647"),
        ("train --seed 2147483648", "--seed: got '2147483648', expected a whole number from 0"),
        ("train --runs=", "--runs: got '', expected a path"),
        ("train --fast", "unrecognized arguments: --fast"),
    ],
)
def test_wrong_usage(line, complaint, capsys):
    with pytest.raises(SystemExit) as ended:
        main(line.split())
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == "" and complaint in shown.err and shown.err.startswith("usage: cnn")
    assert "_" not in shown.err.splitlines()[-1]  # no name of a function


# Failures: exit status 1 and one sentence


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
    assert sentence == "data: images: got shape (1, 28, 28, 1), expected (N, 32, 32, 1)"


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


# Closed streams


def run_closed(closed, *arguments):
    """Run the command line with streams closed, as by a shell's ``2>&-``."""
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *command(arguments)]
    return subprocess.run(shell, capture_output=True, text=True, **in_({}))


@pytest.mark.parametrize("closed", ["2>&-", ">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_training_goes_on_without_the_streams_that_are_closed(closed, tmp_path):
    done = run_closed(closed, "train", "--device", "cpu", "--json", tmp_path / "run.json")
    assert done.returncode == 0, done.stderr
    assert list(json.loads((tmp_path / "run.json").read_text())) == FIELDS
    lines = done.stdout.splitlines()
    assert len(lines) == (closed == "2>&-")
    assert all(line.startswith("few test accuracy ") for line in lines)
    assert ("epoch 1/1" in done.stderr) == (closed == ">&-")


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["evaluate", "missing", "--device", "cpu"], 1),
        (["train", "--run", ".."], 2),
        (["trian"], 2),
    ],
)
def test_no_complaint_comes_on_standard_output(words, status):
    done = run_closed("2>&-", *words)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")


@pytest.mark.parametrize(
    ("words", "unbuffered"),
    [(["info"], ""), (["info"], "1"), (["--help"], ""), (["train", "--quiet"], "1")],
)
def test_a_reader_of_the_output_that_goes_ends_it_quietly(words, unbuffered):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = in_({"PYTHONUNBUFFERED": unbuffered})
    with subprocess.Popen(command(words), **pipes, **environment) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_output_that_cannot_be_written_is_one_sentence():
    done = run_closed(">/dev/full", "info")
    sentence = "cnn: error: No space left on device\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", sentence)


# Ctrl-C


def test_ctrl_c_ends_the_training_with_what_was_reached(tmp_path):
    files = ["--json", tmp_path / "run.json", "--save", tmp_path / "model.safetensors"]
    arguments = ["train", "--epochs", 100_000, "--device", "cpu", *files]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command(arguments), **pipes, **in_({})) as process:
        shown = b""
        while not re.search(rb"epoch (?!1/)", shown):  # until the first has come to its end
            part = os.read(process.stderr.fileno(), 65536)
            assert part, shown.decode()
            shown += part
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err.decode()
    assert b"interrupted after " in err and b"Traceback" not in err
    assert out.startswith(b"few test accuracy ")
    results = json.loads((tmp_path / "run.json").read_text())
    assert list(results) == FIELDS and 1 <= results["epochs"] < 100_000
    assert results["train_loss"] > 0
    assert Sequential.load(tmp_path / "model.safetensors").parameter_count == results["parameters"]


def test_ctrl_c_before_the_training(capsys, monkeypatch):
    def load(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cnn.data, "load", load)
    assert main(["train", "--quiet"]) == 130
    assert capsys.readouterr() == ("", "cnn: interrupted\n")
    monkeypatch.setattr("importlib.import_module", load)  # while commands are imported
    assert main(["train", "--quiet"]) == 130
    assert capsys.readouterr() == ("", "cnn: interrupted\n")
