"""What ``cnn train``, ``evaluate`` and ``info`` print, write and return."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

import cnn.data
from cnn import Dataset, Dense, Flatten, Sequential
from cnn.__main__ import main
from cnn.commands import options
from cnn.recipes import RECIPES
from kernels.runtime import cache
from tests.lib.command_line import FIELDS, failure, load_few, run
from tests.lib.fresh_python import REPOSITORY
from tests.lib.quick_model import MNIST

pytestmark = pytest.mark.usefixtures("folder_of_runs")


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
    assert shown.index("the first time, its kernels are compiled") < shown.index("epoch 1/2")


@pytest.mark.parametrize("recipe", RECIPES)
def test_fresh_statistics_are_taken_where_the_recipe_says_so(
    few_images, recipe, monkeypatch, tmp_path
):
    taken = []
    monkeypatch.setattr("cnn.trainer.update_batch_norm", lambda *_: taken.append(recipe))
    options = f"--recipe {recipe} --epochs 2 --quiet --device cpu"
    assert main(["train", *options.split(), "--save", str(tmp_path / "model.safetensors")]) == 0
    assert len(taken) == RECIPES[recipe].fresh_statistics


def test_the_seed_decides_the_result(few_images, tmp_path):
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


def test_one_class_of_test_images_says_nothing_about_learning(few_images, capsys, monkeypatch):
    train, _ = load_few()
    test = Dataset(train.images[:1], train.labels[:1], "few")
    monkeypatch.setattr(cnn.data, "load", lambda *_, **__: (train, test))
    for lr in ("0.15", "2"):
        assert main(["train", "--quiet", "--lr", lr, "--device", "cpu"]) == 0
        assert capsys.readouterr().err == ""


def test_images_that_are_too_small_for_a_recipe(capsys, monkeypatch):
    train, _ = load_few()
    small = Dataset(train.images[:20, :9, :12], train.labels[:20], "small")
    monkeypatch.setattr(cnn.data, "load", lambda *_, **__: (small, small))
    assert failure(capsys, "train", "--quiet", "--device", "cpu") == (
        "data: got images of 9 x 12 pixels, too small for the recipe speedrun: kernel: extends "
        "over 3, larger than the padded input of height 2"
    )


def test_a_model_whose_loss_is_no_number_is_valid_json(few_images, tmp_path):
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


@pytest.mark.parametrize(
    ("package", "words"),
    [("onnx", ("export", "model", "graph")), ("matplotlib", ("plot", "run"))],
)
def test_ctrl_c_waits_until_extension_modules_are_loaded(package, words, tmp_path):
    """Those of these packages crash the process if an exception comes while they are loaded."""
    (tmp_path / f"{package}.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nprint('loaded')\n"
    )
    done = run(*words, PYTHONPATH=f"{tmp_path}:{REPOSITORY}")
    assert (done.returncode, done.stdout, done.stderr) == (130, "loaded\n", "cnn: interrupted\n")
