"""The command line on a GPU, real or emulated: train, resume, evaluate and predict."""

import json

import pytest
from PIL import Image

import cnn.data
from cnn.__main__ import main
from kernels.runtime.cuda import unavailable
from tests.lib.small_runs import digest, few, interrupt_at

TRAIN = "train --recipe speedrun --device cuda --batch-size 4 --epochs 2 --seed 2".split()
#: Three steps an epoch, the last one of a smaller batch.
IMAGES, TESTED = 9, 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder above a run of two epochs, `runs/whole`."""
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


def results(run):
    return json.loads((run / "results.json").read_text())


def test_an_interrupted_run_goes_on_bit_for_bit(run, monkeypatch, capsys):
    """It is interrupted in its second epoch; resuming shows where it begins."""
    with monkeypatch.context() as patch:
        interrupt_at(patch, 4)
        assert main([*TRAIN, "--run", "stopped"]) == 130
    shown = capsys.readouterr().err
    assert "epoch 1/2:" in shown and "images/s, loss " in shown and "epoch 2/2:" not in shown
    assert "interrupted after 13 images" in shown
    assert "cnn train --resume runs/stopped" in shown
    stopped = run.parent / "stopped"
    assert results(stopped)["epochs"] == 1
    assert main(["train", "--resume", "runs/stopped"]) == 0
    assert digest(run / "model.safetensors") == digest(stopped / "model.safetensors")
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
