"""The command line on a GPU, real or emulated: train, resume, evaluate and predict."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

import cnn.data
from cnn import Dataset, Run
from cnn.__main__ import main
from kernels.runtime.cuda import unavailable

TRAIN = "train --recipe speedrun --device cuda --batch-size 4 --epochs 2 --seed 2".split()
#: Three steps an epoch, the last one of a smaller batch.
IMAGES, TESTED = 9, 5


def few(count, seed):
    random = np.random.default_rng(seed)
    images = random.integers(256, size=(count, 28, 28), dtype=np.uint8)
    return Dataset(images, random.integers(10, size=count), "synthetic")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a run of two epochs is, `runs/whole`, and how it was shown."""
    reason = unavailable()
    if reason is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("cuda")
    with pytest.MonkeyPatch.context() as patch:
        here(patch, folder)
        assert main([*TRAIN, "--quiet", "--run", "whole"]) == 0
    return folder


def here(patch, folder):
    patch.setattr(cnn.data, "load", lambda *_, **__: (few(IMAGES, 0), few(TESTED, 1)))
    patch.chdir(folder)


@pytest.fixture
def run(folder, monkeypatch):
    here(monkeypatch, folder)
    return folder / "runs" / "whole"


def digest(run):
    """The SHA-256 of a model's content; the order of a file's header is no part of it."""
    with safe_open(run / "model.safetensors", framework="numpy") as file:
        return file.metadata()["sha256"]


def results(run):
    return json.loads((run / "results.json").read_text())


def test_an_interrupted_run_goes_on_bit_for_bit(run, monkeypatch, capsys):
    """It is interrupted in its second epoch; resuming shows where it begins."""
    step = Run.step

    def stop(self, trainer, learning_rate):
        step(self, trainer, learning_rate)
        if trainer.steps == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "step", stop)
        assert main([*TRAIN, "--run", "stopped"]) == 130
    shown = capsys.readouterr().err
    assert "epoch 1/2:" in shown and "images/s, loss " in shown and "epoch 2/2:" not in shown
    assert "interrupted after 13 images" in shown
    assert "cnn train --resume runs/stopped" in shown
    stopped = run.parent / "stopped"
    assert results(stopped)["epochs"] == 1
    assert main(["train", "--resume", "runs/stopped"]) == 0
    assert digest(run) == digest(stopped)
    for name in ("device", "epochs", "train_loss", "test_loss", "test_accuracy"):
        assert results(run)[name] == results(stopped)[name]
    assert results(run)["device"] == "cuda" and results(run)["epochs"] == 2


def test_evaluate_finds_what_the_training_found(run):
    words = ["evaluate", str(run / "model.safetensors"), "--device", "cuda", "--json", "found.json"]
    assert main(words) == 0
    with open("found.json") as file:
        found = json.load(file)
    for name in ("test_loss", "test_accuracy"):
        assert found[name] == pytest.approx(results(run)[name], rel=1e-5)


def test_predict_gives_the_chances_of_the_cpu(run):
    Image.fromarray(few(1, 2).images[0]).resize((90, 90)).save("digit.png")
    model = str(run / "model.safetensors")
    found = {}
    for device in ("cuda", "cpu"):
        words = ["predict", model, "digit.png", "--device", device, "--json", f"{device}.json"]
        assert main(words) == 0
        with open(f"{device}.json") as file:
            (found[device],) = json.load(file)["images"]
    chances = [found[device]["probabilities"] for device in ("cuda", "cpu")]
    assert chances[0] == pytest.approx(chances[1], abs=1e-5)
