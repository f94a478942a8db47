"""Settings files: what they may hold, which value wins, and that a run's own repeats it."""

import pytest

from cnn.__main__ import main
from cnn.commands import settings
from cnn.commands.settings import tomllib
from cnn.commands.train import add_arguments
from tests.lib.small_runs import digest, refused, settings_of, train, write

pytestmark = pytest.mark.usefixtures("few_random_images")


def test_flags_win_over_the_file_and_the_file_over_the_recipe(tmp_path):
    file = write(tmp_path / "a.toml", 'seed = 5\nbatch-size = 50\nlr = 1\nrun = "a"\nquiet = true')
    assert main(["train", "--seed", "6", "--config", str(file), "--device", "cpu"]) == 0
    found = settings_of(tmp_path / "runs" / "a")
    assert (found["seed"], found["batch_size"], found["lr"], found["epochs"]) == (6, 50, 1, 1)
    file.write_text(f'data = "{tmp_path}"')  # not used by the set that the flag names
    assert train("--config", file, "--dataset", "synthetic") == 0


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
        ("batch-size = 64\nbatch_size = 32", "batch_size: is set twice, as batch-size, too"),
        ("quiet = true\nno-quiet = true", "no-quiet: is set twice, as quiet, too"),
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


def test_a_file_as_editors_on_windows_write_it(tmp_path):
    file = tmp_path / "a.toml"
    file.write_bytes("lr = 0.1\r\nrun = 'mine'\r\n".encode("utf-8-sig"))
    assert settings.read(file, add_arguments) == ["--lr=0.1", "--run=mine"]
