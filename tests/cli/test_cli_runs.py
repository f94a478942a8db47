"""The command line's run folders, settings files, resumed runs, and bench."""

import json
import os
import re
import shlex

import numpy as np
import pytest
from safetensors import safe_open

import cnn.commands.run_folder
import cnn.data
import cnn.runs
import cnn.training_state
from cnn import Dataset, Run, Sequential
from cnn.__main__ import main
from cnn.commands import settings
from cnn.commands.train import add_arguments

tomllib = settings.tomllib
NAMES = "recipe dataset device epochs batch_size lr seed shards keep".split()


def few(count, seed):
    random = np.random.default_rng(seed)
    images = random.integers(256, size=(count, 28, 28), dtype=np.uint8)
    return Dataset(images, random.integers(10, size=count), "synthetic")


@pytest.fixture(autouse=True)
def few_images_and_a_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(cnn.data, "load", lambda *_, **__: (few(300, 0), few(100, 1)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(*words):
    return main(["train", "--quiet", "--device", "cpu", *map(str, words)])


def refused(capsys, *words, status=1):
    """Return the one sentence of a failure or, with status 2, of a wrong usage."""
    capsys.readouterr()
    assert main(["train", "--quiet", *map(str, words)]) == status
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("cnn: error: ")
    assert len(shown.err.splitlines()) == 1
    return shown.err.removeprefix("cnn: error: ").rstrip()


def digest(model):
    """The SHA-256 of a model's content; the order of a file's header is no part of it."""
    with safe_open(model, framework="numpy") as file:
        return file.metadata()["sha256"]


# What a training leaves behind


def test_a_run_folder(tmp_path, capsys):
    written = tmp_path / "results.json"
    assert train("--epochs", 4, "--run", "mine", "--json", written) == 0
    folder = tmp_path / "runs" / "mine"
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoints",
        "history.jsonl",
        "model.safetensors",
        "results.json",
        "settings.toml",
        "versions.json",
    ]
    assert [path.name for path in sorted((folder / "checkpoints").iterdir())] == [
        f"epoch-000{number}.safetensors" for number in (2, 3, 4)
    ]
    resolved = tomllib.loads((folder / "settings.toml").read_text())
    assert list(resolved) == NAMES
    assert resolved == {
        "recipe": "speedrun",
        "dataset": "synthetic",
        "device": "cpu",
        "epochs": 4,
        "batch_size": 128,
        "lr": 0.15,
        "seed": 0,
        "shards": 1,
        "keep": 3,
    }
    assert (folder / "results.json").read_text() == written.read_text()
    versions = json.loads((folder / "versions.json").read_text())
    assert versions["device"] == "cpu" and versions["NumPy"] == np.__version__
    for name in ("cnn-kernels", "Python", "CPU", "threads", "compiler", "GPU"):
        assert versions[name]
    events = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["steps", "steps", "steps", "epoch"] * 4
    assert 0 <= events[-1]["validation_accuracy"] <= 1
    accuracy = json.loads(written.read_text())["test_accuracy"]
    assert accuracy == events[-1]["validation_accuracy"]
    assert main(["evaluate", str(folder / "model.safetensors")]) == 0
    assert f"synthetic test accuracy {accuracy:.2%}" in capsys.readouterr().out.splitlines()[1]


def test_the_default_name_is_recipe_and_time(tmp_path):
    for _ in range(2):
        assert train("--runs", "elsewhere") == 0
    names = [path.name for path in (tmp_path / "elsewhere").iterdir()]
    assert len(names) == 2
    assert all(re.fullmatch(r"speedrun-\d{8}-\d{6}(~2)?", name) for name in names)


def test_a_run_that_is_there_is_not_overwritten(tmp_path, capsys, monkeypatch):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    with monkeypatch.context() as patch:  # the data may have to be downloaded
        patch.setattr(cnn.data, "load", lambda *_, **__: pytest.fail("it loads data"))
        sentence = refused(capsys, "--run", "mine", "--device", "cpu")
    assert sentence == (
        "--run: runs/mine is there already; choose another name, or delete it: it has no "
        "checkpoint to go on from"
    )
    assert list((tmp_path / "runs" / "mine").iterdir()) == []
    assert train("--run", "it's mine") == 0
    sentence = refused(capsys, "--run", "it's mine", "--device", "cpu")
    beginning, _, words = sentence.partition("; choose another name, or go on with it: ")
    assert beginning == "--run: runs/it's mine is there already"
    assert train(*shlex.split(words)) == 0  # as a shell takes it


@pytest.mark.parametrize("name", ["a/b", "..", "", "/"])
def test_a_name_that_is_no_folders(name, tmp_path, capsys):
    sentence = refused(capsys, "--run", name, "--device", "cpu", status=2)
    assert sentence == f"--run: got {name!r}, expected the name of a folder in runs"
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "runs").touch()
    assert train() == 1
    assert "Not a directory" in capsys.readouterr().err


def full_disk(path, content):
    raise OSError(28, "No space left on device", str(path))


def break_settings(monkeypatch):
    monkeypatch.setattr(cnn.commands.run_folder, "write_whole", full_disk)
    return 1, "runs/r/settings.toml: No space left on device"


def break_versions(monkeypatch):
    monkeypatch.setattr(cnn.runs, "write_whole", full_disk)
    return 1, "runs/r/versions.json: No space left on device"


def break_the_first_checkpoint(monkeypatch):
    monkeypatch.setattr(cnn.training_state, "save", lambda training, path: full_disk(path, b""))
    return 1, "runs/r/checkpoints/epoch-0000.safetensors: No space left on device"


def break_the_data(monkeypatch):
    bad = Dataset(few(300, 0).images, np.full(300, 10), "synthetic")
    monkeypatch.setattr(cnn.data, "load", lambda *_, **__: (bad, few(100, 1)))
    return 1, "data: labels: got 10 to 10, expected 0 to 9 for 10 classes"


def press_ctrl_c(monkeypatch):
    def interrupt(self, trainer):
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "begin", interrupt)
    return 130, "cnn: interrupted"


@pytest.mark.parametrize(
    "fault",
    [break_settings, break_versions, break_the_first_checkpoint, break_the_data, press_ctrl_c],
)
def test_a_run_without_a_checkpoint_is_not_left_behind(fault, tmp_path, capsys):
    """Otherwise it could not be resumed, and its name could not be used again."""
    with pytest.MonkeyPatch.context() as patch:
        status, sentence = fault(patch)
        assert train("--run", "r") == status
    shown = capsys.readouterr()
    assert (shown.out, shown.err.removeprefix("cnn: error: ")) == ("", f"{sentence}\n")
    assert list((tmp_path / "runs").iterdir()) == []
    assert train("--run", "r") == 0


def test_a_run_that_is_resumed_is_never_removed(tmp_path, monkeypatch):
    assert train("--epochs", 2, "--run", "r") == 0
    checkpoint = (tmp_path / "runs" / "r" / "checkpoints" / "epoch-0001.safetensors").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        press_ctrl_c(patch)
        assert train("--resume", "runs/r/checkpoints/epoch-0001.safetensors") == 130
    kept = Run(tmp_path / "runs" / "r")
    assert kept.checkpoints[1].read_bytes() == checkpoint
    assert kept.latest.name == "epoch-0002.safetensors"


def test_a_data_folder_whose_name_no_settings_file_holds(tmp_path, capsys):
    """The name's bytes are not text."""
    folder = os.fsdecode(b"x\xff")
    (tmp_path / folder).mkdir()
    sentence = refused(capsys, "--data", folder, "--run", "r", "--device", "cpu", status=2)
    resolved = str(tmp_path / folder)
    assert sentence == f"--data: got {resolved!r}, expected UTF-8, as the settings of a run are"
    assert not (tmp_path / "runs").exists()


# A home folder that a shell has left for the command to find, on a line or in a file.
@pytest.mark.parametrize("words", [["--runs", "~/r"], ["--config", "~/home.toml"]])
def test_a_tilde_is_the_home_folder(words, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    write(home / "home.toml", 'runs = "~/r"')
    files = ["--save", "~/m.safetensors", "--json", "~/m.json", "--run", "a"]
    assert train(*words, *files) == 0
    assert sorted(path.name for path in home.iterdir()) == [
        *("home.toml", "m.json", "m.safetensors", "r")
    ]
    assert main(["evaluate", "~/m.safetensors", "--json", "~/e.json"]) == 0
    assert main(["plot", "~/r/a", "--output", "~/pictures"]) == 0
    assert main(["export", "~/m.safetensors", "~/m.onnx"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


# Settings files


def write(path, text):
    path.write_text(text)
    return path


def settings_of(run):
    return tomllib.loads((run / "settings.toml").read_text())


def test_flags_win_over_the_file_and_the_file_over_the_recipe(tmp_path):
    file = write(tmp_path / "a.toml", 'seed = 5\nbatch-size = 50\nlr = 1\nrun = "a"\nquiet = true')
    assert main(["train", "--seed", "6", "--config", str(file), "--device", "cpu"]) == 0
    found = settings_of(tmp_path / "runs" / "a")
    assert (found["seed"], found["batch_size"], found["lr"], found["epochs"]) == (6, 50, 1, 1)


def test_a_switch_of_the_file_can_be_turned_off(tmp_path, capsys):
    file = write(tmp_path / "a.toml", "quiet = true")
    assert main(["train", "--config", str(file), "--device", "cpu"]) == 0
    shown = capsys.readouterr().err
    assert "epoch 1/1" not in shown and "Conv2D" not in shown
    assert main(["train", "--no-quiet", "--config", str(file), "--device", "cpu"]) == 0
    assert "epoch 1/1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "flag"),
    [
        ("quiet = true", "--quiet"),
        ("quiet = false", "--no-quiet"),
        ("no-quiet = true", "--no-quiet"),
        ("no_quiet = false", "--quiet"),
    ],
)
def test_both_flags_of_a_switch_are_keys(line, flag, tmp_path):
    assert settings.read(write(tmp_path / "a.toml", line), add_arguments) == [flag]


def test_the_settings_of_a_run_repeat_it(tmp_path):
    assert train("--seed", 3, "--epochs", 2, "--lr", 0.01, "--run", "a", "--keep", 1) == 0
    assert train("--config", "runs/a/settings.toml", "--run", "b") == 0
    a, b = tmp_path / "runs" / "a", tmp_path / "runs" / "b"
    assert settings_of(a) == settings_of(b)
    assert digest(a / "model.safetensors") == digest(b / "model.safetensors")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("epoch = 3", "epoch: there is no such setting; see cnn train --help"),
        ('resume = "x"', "resume: there is no such setting"),
        ('config = "x"', "config: there is no such setting"),
        ("help = true", "help: there is no such setting"),
        ("[train]\nepochs = 3", "train: there is no such setting"),
        ("no-epochs = true", "no-epochs: there is no such setting"),
        ("no-config = false", "no-config: there is no such setting"),
        ("no-quiet = 1", "no-quiet: got 1, expected true or false"),
        ("'' = true", ": there is no such setting"),  # --, which ends the flags
        ("'epochs=3' = true", "epochs=3: there is no such setting"),
        ("epochs = 0", "epochs: got '0', expected a whole number from 1 to 2147483647"),
        ("epochs = 1.5", "epochs: got '1.5', expected a whole number from 1 to 2147483647"),
        ('epochs = "3"', "epochs: got '3', expected a number"),
        ("epochs = true", "epochs: got true, expected a value as --epochs takes it"),
        ("epochs = [3]", "epochs: got '[3]', expected a whole number from 1 to 2147483647"),
        ("lr = nan", "lr: got 'nan', expected a number above 0"),
        ("seed = -1", "seed: got '-1', expected a whole number from 0 to 2147483647"),
        ('quiet = "yes"', "quiet: got 'yes', expected true or false"),
        ("quiet = 1", "quiet: got 1, expected true or false"),
        ("run = 3", "run: got 3, expected a string"),
        ("data = 3", "data: got 3, expected a string"),
        ('save = ["x.st"]', "save: got list, expected a string"),
        ("[run]\nname = 1", "run: got dict, expected a string"),
        ("run = 1979-05-27", "run: got date, expected a string"),
        ("json = 1979-05-27T07:32:00Z", "json: got datetime, expected a string"),
        ("runs = 07:32:00", "runs: got time, expected a string"),
        ("quiet = []", "quiet: got list, expected true or false"),
        ("data = false", "data: got false, expected a value as --data takes it"),
        ('recipe = "slow"', "recipe: invalid choice: 'slow' (choose from"),
    ],
)
def test_a_setting_that_is_wrong(line, complaint, tmp_path, capsys):
    file = write(tmp_path / "a.toml", line)
    assert refused(capsys, "--config", file).startswith(f"{file}: {complaint}")


def test_a_file_that_is_no_settings_file(tmp_path, capsys):
    file = write(tmp_path / "a.toml", "epochs 3")
    assert refused(capsys, "--config", file).startswith(f"{file} is not TOML: ")
    file.write_bytes(b"run = '\xff'")
    assert refused(capsys, "--config", file).startswith(f"{file} is not TOML: ")
    missing = tmp_path / "missing"
    assert refused(capsys, "--config", missing) == f"{missing}: No such file or directory"


# Quotes, backslashes, line ends, control characters and letters beyond ASCII.
@pytest.mark.parametrize("name", ['a "b" \\c', "a\nb\tc\x01\x7f\x85", "\u00e9\u4e2d\U0001f600"])
def test_any_string_survives_a_settings_file(name, tmp_path):
    file = tmp_path / "a.toml"
    kept = {"run": name, "lr": 1e-05, "seed": 3, "quiet": True, "data": None}
    file.write_text(settings.to_toml(kept), encoding="utf-8")
    assert tomllib.loads(file.read_text(encoding="utf-8")) == {
        "run": name,
        "lr": 1e-05,
        "seed": 3,
        "quiet": True,
    }
    flags = settings.read(file, add_arguments)
    assert flags == [f"--run={name}", "--lr=1e-05", "--seed=3", "--quiet"]


# Resuming


class PowerCutError(Exception):
    pass


def interrupt_at(monkeypatch, step, error=KeyboardInterrupt):
    """Press Ctrl-C after a step."""
    real = Run.step

    def stop(self, trainer, learning_rate):
        real(self, trainer, learning_rate)
        if trainer.steps == step:
            raise error

    monkeypatch.setattr(Run, "step", stop)


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
    curves = [
        [
            {k: v for k, v in json.loads(line).items() if k not in ("seconds", "images_per_second")}
            for line in (run / "history.jsonl").read_text().splitlines()
        ]
        for run in (whole, stopped)
    ]
    assert curves[0] == curves[1]


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


def test_a_run_that_ended_before_its_results_gets_them(tmp_path, capsys):
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


def test_what_cannot_be_resumed(tmp_path, capsys, monkeypatch):
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


# Bench


def test_bench_prints_a_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("cnn.commands.bench._STEPS", 2)
    monkeypatch.setattr("cnn.commands.bench._INFERENCE", {1: 3, 8: 2})
    written = tmp_path / "bench.json"
    words = ["bench", "--batch-size", "16", "--device", "cpu", "--json", str(written)]
    assert main(words) == 0
    title, *rows = capsys.readouterr().out.splitlines()
    assert title.split() == ["speedrun", "on", "cpu", "images/s", "ms", "per", "batch", "slowest"]
    results = json.loads(written.read_text())
    names = ["training, batch 16", "inference, batch 1", "inference, batch 8"]
    assert list(results) == ["recipe", "device", *names]
    for row, name in zip(rows, names, strict=True):
        assert row.startswith(name)
        rate, milliseconds, slowest = (float(t.replace(",", "")) for t in row[30:].split())
        size = int(name.rpartition(" ")[2])
        assert 0 < milliseconds <= slowest
        assert abs(rate * milliseconds / 1e3 / size - 1) < 0.1
        assert len(results[name]["seconds"]) == (5 if size == 16 else {1: 3, 8: 2}[size])


def test_a_checkpoint_of_the_command_line_is_a_model(tmp_path):
    assert train("--run", "a") == 0
    checkpoint = Run(tmp_path / "runs" / "a").latest
    found = Sequential.load(checkpoint).parameter_buffer
    model = Sequential.load(tmp_path / "runs" / "a" / "model.safetensors")
    assert found.tobytes() == model.parameter_buffer.tobytes()
