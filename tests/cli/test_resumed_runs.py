"""``cnn train --resume``: interrupted, killed and finished runs go on, or say why they cannot."""

import json

import pytest

import cnn.data
from cnn import Dataset, Run
from cnn.__main__ import main
from tests.lib.small_runs import digest, few, history, interrupt_at, refused, settings_of, train

pytestmark = pytest.mark.usefixtures("few_random_images")


class PowerCutError(Exception):
    pass


# In the first epoch of three steps, and in the third.
@pytest.mark.parametrize(("recipe", "at"), [("speedrun", 2), ("speedrun", 8), ("default", 8)])
def test_an_interrupted_run_goes_on_bit_for_bit(recipe, at, tmp_path, capsys):
    words = ["--recipe", recipe, "--epochs", 4, "--seed", 2, "--run"]
    assert train(*words, "whole") == 0
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(patch, at)
        assert train(*words, "stopped") == 130
    assert "go on with\n  cnn train --resume runs/stopped\n" in capsys.readouterr().err
    whole, stopped = tmp_path / "runs" / "whole", tmp_path / "runs" / "stopped"
    assert json.loads((stopped / "results.json").read_text())["epochs"] == at // 3
    assert train("--resume", "runs/stopped") == 0
    assert digest(stopped / "model.safetensors") == digest(whole / "model.safetensors")
    assert settings_of(stopped) == settings_of(whole)
    results = [json.loads((run / "results.json").read_text()) for run in (whole, stopped)]
    for name in ("epochs", "train_loss", "test_loss", "test_accuracy"):
        assert results[0][name] == results[1][name]
    assert history(whole) == history(stopped)


def test_a_run_killed_by_an_error_goes_on_from_any_checkpoint(tmp_path, monkeypatch):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(PowerCutError):
        interrupt_at(patch, 8, PowerCutError)
        train("--epochs", 4, "--run", "stopped")
    stopped = tmp_path / "runs" / "stopped"
    assert not (stopped / "model.safetensors").exists()
    monkeypatch.chdir(tmp_path / "runs")  # from another folder
    assert train("--resume", "stopped/checkpoints/epoch-0001.safetensors") == 0
    assert train("--epochs", 4, "--run", "whole") == 0
    whole = tmp_path / "runs" / "runs" / "whole"
    assert digest(stopped / "model.safetensors") == digest(whole / "model.safetensors")


def contents(folder):
    """Every file of a folder, with its content and when it was written."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path, path.read_bytes(), path.stat().st_mtime_ns) for path in files]


# What is typed where, as --resume, to go on with runs/a.
@pytest.mark.parametrize(
    ("folder", "resumed"),
    [
        ("runs/a", "."),
        ("runs/a/checkpoints", ".."),
        ("runs/a/checkpoints", "../"),
        ("runs", "a/"),
        ("runs/a/checkpoints", "epoch-0001.safetensors"),
        ("runs/a/checkpoints", "./epoch-0001.safetensors"),
        ("runs/a", "checkpoints/epoch-0001.safetensors"),
        ("runs/a/checkpoints", "../checkpoints/epoch-0001.safetensors"),
        (".", "link to the checkpoint"),
        (".", "link to the run"),
        (".", "link to the run/checkpoints/epoch-0001.safetensors"),
        (".", "run of linked checkpoints"),
        (".", "run of linked checkpoints/checkpoints/epoch-0001.safetensors"),
    ],
)
def test_a_run_is_found_from_anywhere(folder, resumed, tmp_path, monkeypatch):
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(patch, 5)
        assert train("--epochs", 3, "--run", "a") == 130
    run = tmp_path / "runs" / "a"
    (tmp_path / "link to the run").symlink_to(run)
    (tmp_path / "link to the checkpoint").symlink_to(run / "checkpoints" / "epoch-0001.safetensors")
    other = tmp_path / "run of linked checkpoints"
    other.mkdir()
    (other / "checkpoints").symlink_to(run / "checkpoints")
    (other / "settings.toml").write_text((run / "settings.toml").read_text())
    reached = other if resumed.startswith(other.name) else run
    for name in ("model.safetensors", "results.json"):
        (run / name).unlink()  # of what was reached
    monkeypatch.chdir(tmp_path / folder)
    assert train("--resume", resumed) == 0
    assert json.loads((reached / "results.json").read_text())["epochs"] == 3
    assert (reached / "model.safetensors").exists()
    assert Run(reached).latest == reached / "checkpoints" / "epoch-0003.safetensors"


def test_a_finished_run_has_nothing_left_to_do(tmp_path, capsys):
    assert train("--run", "a") == 0
    printed = capsys.readouterr().out
    before = contents(tmp_path / "runs" / "a")
    written, saved = tmp_path / "again.json", tmp_path / "again.safetensors"
    assert main(["train", "--resume", "runs/a", "--json", str(written), "--save", str(saved)]) == 0
    shown = capsys.readouterr()
    assert "runs/a has finished already, with epoch 1" in shown.err and shown.out == printed
    assert contents(tmp_path / "runs" / "a") == before
    assert written.read_text() == (tmp_path / "runs" / "a" / "results.json").read_text()
    assert digest(saved) == digest(tmp_path / "runs" / "a" / "model.safetensors")


@pytest.mark.parametrize(
    ("words", "images", "complaint"),
    [
        (["--epochs", 3], 300, "epochs: got 3, expected 2 as in the training restored"),
        (["--batch-size", 64], 300, "batch_size: got 64, expected 128 as in the training restored"),
        ([], 299, "the number of images: got 299, expected 300 as in the training restored"),
        (["--dataset", "other"], 300, "data: got 'other', expected 'synthetic' as in the training"),
        (["--lr", 1], 300, "was saved by a training with optimizer SGD(lr=0.15"),
    ],
)
def test_a_finished_run_is_no_other_one(words, images, complaint, tmp_path, capsys, monkeypatch):
    assert train("--epochs", 2, "--run", "a") == 0
    before = contents(tmp_path / "runs")
    if "other" in words:
        words, data = [], Dataset(few(images, 0).images, few(images, 0).labels, "other")
    else:
        data = few(images, 0)
    monkeypatch.setattr(cnn.data, "load", lambda *_, **__: (data, few(100, 1)))
    capsys.readouterr()
    assert train("--resume", "runs/a", "--json", "again.json", *words) == 1
    shown = capsys.readouterr()
    assert complaint in shown.err and len(shown.err.splitlines()) == 1 and shown.out == ""
    assert contents(tmp_path / "runs") == before and not (tmp_path / "again.json").exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--shards", 1000], "batch_size: got 128, expected a multiple of 1000, the number of sha"),
        (["--resume", "runs/a", "--epochs", 3], "epochs: got 3, expected 2 as in the training re"),
        (["--resume", "runs/a", "--shards", 2], "shards: got 2, expected 1 as in the training re"),
    ],
    ids=["shards", "resumed epochs", "resumed shards"],
)
def test_settings_that_no_data_fit_are_refused_before_these_are_loaded(
    words, complaint, capsys, monkeypatch
):
    assert train("--epochs", 2, "--run", "a") == 0
    monkeypatch.setattr(cnn.data, "load", lambda *_, **__: pytest.fail("it loads data"))
    assert refused(capsys, *words).startswith(complaint)


def test_a_run_that_ended_before_its_results_gets_them(tmp_path):
    assert train("--epochs", 2, "--run", "a") == 0
    run = tmp_path / "runs" / "a"

    def found():
        results = json.loads((run / "results.json").read_text())
        del results["setup_seconds"]
        return results, digest(run / "model.safetensors")

    before = found()
    interrupted = json.loads((run / "results.json").read_text()) | {"epochs": 1}
    words = json.loads((run / "results.json").read_text()) | {"test_accuracy": "high"}
    for spoil in (
        (run / "results.json").unlink,
        (run / "model.safetensors").unlink,
        lambda: (run / "results.json").write_text("{"),
        lambda: (run / "results.json").write_text("[2]"),
        lambda: (run / "results.json").write_text('{"epochs": 2}'),
        lambda: (run / "results.json").write_text(json.dumps(words)),
        lambda: (run / "results.json").write_text(json.dumps(interrupted)),
    ):
        spoil()
        assert train("--resume", "runs/a") == 0
        assert found() == before


def test_what_cannot_be_resumed(tmp_path, capsys):
    assert refused(capsys, "--resume", "nowhere") == (
        "--resume: nowhere is not there, expected the folder of a run"
    )
    (tmp_path / "empty").mkdir()
    assert refused(capsys, "--resume", "empty") == (
        "--resume: empty has no checkpoint, expected the folder of a run"
    )
    assert train("--epochs", 2, "--run", "a") == 0
    for flag in ("--run", "--runs"):
        sentence = refused(capsys, "--resume", "runs/a", flag, "b", status=2)
        assert sentence.startswith("--resume goes on in the run's own folder: leave --run and")
    with pytest.raises(SystemExit) as ended:
        main(["train", "--resume", "runs/a", "--config", "runs/a/settings.toml"])
    assert ended.value.code == 2
    copy = tmp_path / "alone.safetensors"
    copy.write_bytes((tmp_path / "runs" / "a" / "model.safetensors").read_bytes())
    for file in (copy, "alone.safetensors"):
        assert refused(capsys, "--resume", file) == (
            f"--resume: {file} is no checkpoint in a run's folder: there is no "
            f"{tmp_path.parent / 'settings.toml'}"
        )
    capsys.readouterr()

    # What was interrupted cannot go on as something else, nor from a damaged file.
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(patch, 4)
        assert train("--epochs", 2, "--run", "b") == 130
    run = Run(tmp_path / "runs" / "b")
    for words, complaint in (
        (["--epochs", 3], "epochs: got 3, expected 2 as in the training restored"),
        (["--lr", 1], "with optimizer SGD(lr=0.15"),
        (["--recipe", "default"], "is of another architecture: layer 0 is "),
        (["--seed", 4], "with seed 0, expected 4"),
    ):
        capsys.readouterr()
        assert train("--resume", "runs/b", *words) == 1
        assert complaint in capsys.readouterr().err
    damaged = bytearray(run.latest.read_bytes())
    damaged[-1] ^= 1
    run.latest.write_bytes(damaged)
    assert train("--resume", "runs/b") == 1
    assert f"{run.latest.name} is damaged" in capsys.readouterr().err
    assert train("--resume", run.checkpoints[0]) == 0
