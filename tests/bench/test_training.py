"""bench/networks/training.py: runs that are kept are not repeated, and all seeds count as one."""

import json
import sys

import pytest

from bench.networks import training
from bench.report import of_networks
from tests.lib.quick_model import MNIST


@pytest.mark.slow
@pytest.mark.skipif(not MNIST.is_dir(), reason=f"MNIST is not in {MNIST}")
def test_runs_are_kept_and_measured_as_one(tmp_path, monkeypatch, capfd):
    results, runs = tmp_path / "results", tmp_path / "runs"
    monkeypatch.setattr(training, "RESULTS", results)
    monkeypatch.setenv("MNIST_DIR", str(MNIST))
    words = f"training --recipe speedrun --runs {runs} --seeds"
    for seeds in (["0"], ["0", "1"]):
        monkeypatch.setattr(sys, "argv", [*words.split(), *seeds])
        training.main()
    printed = capfd.readouterr().out
    assert printed.count("trained") == 2  # the second time, only what was missing
    assert "mean of 2 models" in printed
    recipe = json.loads((results / "training-cpu.json").read_text())["recipes"]["speedrun"]
    assert [run["seed"] for run in recipe["runs"]] == [0, 1]
    together = recipe["summary"]["ensemble_test_accuracy"]
    assert together > 0.985
    assert f"2 seeds | {together:.2%} |" in of_networks.recipes(results)


@pytest.mark.parametrize(
    ("recipe", "status", "said"),
    [("fastest", "2", "invalid choice: 'fastest'"), ("speedrun", "1", "MNIST is incomplete")],
)
def test_what_a_training_lacks_is_said_without_a_traceback(
    recipe, status, said, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(training, "RESULTS", tmp_path)
    monkeypatch.setenv("MNIST_DIR", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["training", "--recipe", recipe, "--seeds", "0"])
    with pytest.raises(SystemExit, match=status):
        training.main()
    assert said in capfd.readouterr().err.splitlines()[-1]
