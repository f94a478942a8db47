"""What ``cnn train`` leaves behind: the folder of a run, or none if it failed too early."""

import json
import os
import re
import shlex

import numpy as np
import pytest

import cnn.commands.run_folder
import cnn.data
import cnn.runs
import cnn.training_state
from cnn import Dataset, Run, Sequential
from cnn.__main__ import main
from cnn.commands.settings import tomllib
from tests.lib.small_runs import few, refused, train, write

pytestmark = pytest.mark.usefixtures("few_random_images")
NAMES = "recipe dataset device epochs batch_size lr seed shards keep".split()


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


def test_a_run_that_is_resumed_is_never_removed(tmp_path):
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


def test_a_checkpoint_of_the_command_line_is_a_model(tmp_path):
    assert train("--run", "a") == 0
    checkpoint = Run(tmp_path / "runs" / "a").latest
    found = Sequential.load(checkpoint).parameter_buffer
    model = Sequential.load(tmp_path / "runs" / "a" / "model.safetensors")
    assert found.tobytes() == model.parameter_buffer.tobytes()
