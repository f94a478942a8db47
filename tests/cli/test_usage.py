"""Help, version and wrong usage of the command line."""

import re

import pytest

from cnn import commands
from cnn.__main__ import main


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
        ("predict", "required: MODEL, IMAGE"),
        ("predict model.safetensors", "required: IMAGE"),
        ("predict model.safetensors a.png --top 0", "--top: got '0', expected a whole number"),
    ],
)
def test_wrong_usage(line, complaint, capsys):
    with pytest.raises(SystemExit) as ended:
        main(line.split())
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == "" and complaint in shown.err and shown.err.startswith("usage: cnn")
    assert "_" not in shown.err.splitlines()[-1]  # no name of a function


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert re.fullmatch(r"cnn-kernels \S+\n", capsys.readouterr().out)


@pytest.mark.parametrize("command", ["train", "evaluate model"])
def test_drawn_digits_are_in_no_folder(command, capsys):
    assert main([*command.split(), "--dataset", "synthetic", "--data", "there"]) == 2
    sentence = "cnn: error: --data: got there, expected none with --dataset synthetic\n"
    assert capsys.readouterr() == ("", sentence)
