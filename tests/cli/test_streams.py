"""The command line with closed or full streams, and interrupted by Ctrl-C."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

import cnn.data
from cnn import Sequential
from cnn.__main__ import main
from tests.lib.command_line import FIELDS, command, environment_with

pytestmark = pytest.mark.usefixtures("folder_of_runs")

# Closed streams


def run_closed(closed, *arguments):
    """Run the command line with streams closed, as by a shell's ``2>&-``."""
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *command(arguments)]
    return subprocess.run(shell, capture_output=True, text=True, env=environment_with())


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
    environment = environment_with(PYTHONUNBUFFERED=unbuffered)
    with subprocess.Popen(command(words), **pipes, env=environment) as process:
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
    with subprocess.Popen(command(arguments), **pipes, env=environment_with()) as process:
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
