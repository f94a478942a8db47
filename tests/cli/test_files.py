"""Where outputs go: through links, into pipes and devices, over files, and never over an input."""

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import cnn.data
from cnn import SGD, Dataset, Dense, Flatten, Run, Sequential, Trainer, files, save_torch
from cnn.__main__ import main
from cnn.files import write_whole
from tests.lib import permissions
from tests.lib.fresh_python import environment

plots = pytest.importorskip("cnn.plots")


def random_digits(*_, **__):
    random = np.random.default_rng(0)
    images = random.integers(256, size=(32, 28, 28), dtype=np.uint8)
    return (Dataset(images, random.integers(10, size=32), "synthetic"),) * 2


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """The current folder, and few images in place of the data sets."""
    monkeypatch.setattr(cnn.data, "load", random_digits)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def model():
    return Sequential([Flatten(), Dense(10)], (28, 28, 1), "cpu")


def command(*words):
    assert main([str(word) for word in words]) == 0


def save(path):
    model().save(path)


def save_trainer(path):
    Trainer(model(), SGD(0.1)).save(path)


def save_to_torch(path):
    save_torch(model(), path)


def write_json_of_run(path):
    Run(path.parent).write_json(path.name, {"a": 1})


def write_picture(path):
    curve = [{"event": "steps", "images": 1, "loss": 1.0, "learning_rate": 0.1}]
    plots.write(path, plots.curves, curve, 2)


def export(path):
    model().save("saved")
    command("export", "saved", path)


def evaluate(path):
    model().save("saved")
    command("evaluate", "saved", "--json", path)


def predict(path):
    model().save("saved")
    write_picture(Path("image.png"))
    command("predict", "saved", "image.png", "--json", path)


def train_save(path):
    command("train", "--quiet", "--device", "cpu", "--save", path)


def train_json(path):
    command("train", "--quiet", "--device", "cpu", "--json", path)


WRITERS = [save, save_trainer, save_to_torch, write_json_of_run, write_picture]
WRITERS += [export, evaluate, predict, train_save, train_json]
every_writer = pytest.mark.parametrize("write", WRITERS)


@every_writer
def test_a_link_stays_one(write, folder):
    (folder / "elsewhere").mkdir()
    target = folder / "elsewhere" / "target"
    for there in (False, True):
        link = folder / f"link {there}.png"
        link.symlink_to("elsewhere/target")
        if there:
            target.write_bytes(b"before")
        write(link)
        assert link.is_symlink() and os.readlink(link) == "elsewhere/target"
        assert len(target.read_bytes()) > 6
        assert os.listdir(folder / "elsewhere") == ["target"]
        target.unlink()


@every_writer
def test_a_pipe_is_written_to(write, folder):
    pipe = folder / "pipe.png"
    os.mkfifo(pipe)
    content = []
    reader = threading.Thread(target=lambda: content.append(pipe.read_bytes()))
    reader.start()
    write(pipe)
    reader.join(timeout=60)
    assert stat.S_ISFIFO(pipe.stat().st_mode) and len(content[0]) > 6


@every_writer
def test_a_read_only_file_is_left_alone(write, folder, capsys):
    file = folder / "file.png"
    file.write_bytes(b"before")
    file.chmod(0o444)
    capsys.readouterr()
    if write in (export, evaluate, predict, train_save, train_json):
        with pytest.raises(AssertionError):  # status 1
            write(file)
        assert capsys.readouterr().err.endswith(
            f"cnn: error: {file} cannot be written: it is read-only\n"
        )
        assert not (folder / "runs").exists()  # before the training
    else:
        with pytest.raises(PermissionError, match="it is read-only") as caught:
            write(file)
        assert caught.value.filename == str(file)
    assert file.read_bytes() == b"before" and stat.S_IMODE(file.stat().st_mode) == 0o444


@every_writer
def test_the_longest_name_there_may_be(write, folder):
    file = folder / ("n" * 251 + ".png")
    write(file)
    assert len(file.read_bytes()) > 6


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o660, 0o755])
def test_a_file_that_is_replaced_keeps_its_permissions(mode, folder):
    file = folder / "file"
    file.write_bytes(b"before")
    file.chmod(mode)
    write_whole(file, b"after")
    assert file.read_bytes() == b"after" and stat.S_IMODE(file.stat().st_mode) == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only an administrator gives files away")
def test_a_file_that_is_replaced_keeps_its_owner(folder):
    file = folder / "file"
    file.write_bytes(b"before")
    os.chown(file, 12345, 54321)
    write_whole(file, b"after")
    assert (file.stat().st_uid, file.stat().st_gid) == (12345, 54321)


def test_a_device_is_written_to():
    ours, theirs = os.openpty()
    try:
        terminal = Path(os.ttyname(theirs))
        files.check([terminal, terminal])
        write_whole(terminal, b"shown")
        assert os.read(ours, 99) == b"shown" and terminal.is_char_device()
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_failure_names_the_file_and_leaves_nothing(folder):
    file = folder / "file"
    file.write_bytes(b"before")

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    for function in ("fsync", "replace", "fchmod"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, function, full_disk)
            with pytest.raises(OSError, match="No space left on device") as caught:
                write_whole(file, b"after")
        assert caught.value.filename == str(file)
        assert os.listdir(folder) == ["file"] and file.read_bytes() == b"before"


def test_a_full_disk_is_named_by_the_file(folder):
    (folder / "full").symlink_to("/dev/full")
    for write in (write_whole, files.append):
        with pytest.raises(OSError, match="No space left on device") as caught:
            write(folder / "full", b"content")
        assert caught.value.filename == str(folder / "full")


# Permissions


@pytest.mark.parametrize("mode", [0o444, 0o644])
def test_a_file_that_only_others_may_write(mode):
    with permissions.folder() as reachable:
        file = reachable / "file"
        file.write_bytes(b"before")
        file.chmod(mode if os.geteuid() == 0 else 0o444)
        with permissions.held_back():
            reason = "it is read-only" if file.stat().st_mode & 0o222 == 0 else "Permission denied"
            assert refusal([file]) == f"{file} cannot be written: {reason}"
            with pytest.raises(PermissionError):
                write_whole(file, b"after")
        assert file.read_bytes() == b"before" and os.listdir(reachable) == ["file"]


def test_a_folder_that_only_others_may_write():
    with permissions.folder() as reachable:
        (reachable / "file").touch()
        (reachable / "file").chmod(0o666)
        reachable.chmod(0o555)
        with permissions.held_back():
            for name in ("file", "new"):
                sentence = f"{reachable / name} cannot be written: Permission denied"
                assert refusal([reachable / name]) == sentence


def test_a_folder_that_is_written_unseen():
    """The folder may be written and entered, but not listed, so it cannot be opened."""
    with permissions.folder() as reachable:
        reachable.chmod(0o333)
        with permissions.held_back():
            files.check([reachable / "file"])
            write_whole(reachable / "file", b"content")
            assert (reachable / "file").read_bytes() == b"content"


def test_standard_output_that_may_not_be_opened_anew(capfd):
    """For example the terminal of the user before `su`, or a file of a shell with more rights."""
    os.fchmod(1, 0)
    with permissions.held_back():
        with pytest.raises(PermissionError):
            os.open("/dev/stdout", os.O_WRONLY)
        files.check([Path("/dev/stdout")])
        write_whole(Path("/dev/stdout"), b"content")
    assert capfd.readouterr().out == "content"


# Standard output

PRINTS = """
import sys
from pathlib import Path
from cnn.files import check, write_whole
print("before")
for name in sys.argv[1:]:
    check([Path(name)])
    write_whole(Path(name), b"written\\n")
print("after")
"""
STREAMS = ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"]


@pytest.mark.parametrize("kind", ["pipe", "file", "appended file"])
def test_standard_output_takes_it_between_the_lines_before_and_after(kind, folder):
    (folder / "link").symlink_to("/dev/stdout")
    names = [*STREAMS, str(folder / "link")]
    file = folder / "output"
    if kind != "pipe":
        names.append(str(file))  # by its own name, too: else it would be another file
    with open(file, "ab" if kind == "appended file" else "wb") as output:
        done = subprocess.run(
            [sys.executable, "-c", PRINTS, *names],
            stdout=subprocess.PIPE if kind == "pipe" else output,
            stderr=subprocess.PIPE,
            env=environment(),
        )
    assert (done.returncode, done.stderr) == (0, b"")
    said = done.stdout if kind == "pipe" else file.read_bytes()
    assert said == b"before\n" + len(names) * b"written\n" + b"after\n"
    assert (folder / "link").is_symlink()


@pytest.mark.parametrize(
    ("closed", "name"), [(">&-", "output"), (">&-", "/dev/stderr"), ("2>&-", "/dev/stdout")]
)
def test_a_closed_standard_output_or_error(closed, name, folder):
    script = f"{sys.executable} -c '{PRINTS.replace('print', 'str')}' {name} {closed}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, env=environment())
    assert done.returncode == 0, done.stderr
    written = (folder / name).read_bytes() if name == "output" else done.stdout + done.stderr
    assert written == b"written\n"


# Before the work


def refusal(outputs, inputs=()):
    with pytest.raises(OSError) as caught:
        files.check(list(map(Path, outputs)), list(map(Path, inputs)))
    return str(caught.value)


def test_a_check_changes_nothing(folder):
    (folder / "file").write_bytes(b"before")
    (folder / "dangling").symlink_to("not there")
    os.mkfifo(folder / "pipe")
    before = (folder / "file").stat()
    names = "file", "dangling", "pipe", "new", "n" * 255, "/dev/null", "/dev/stdout"
    files.check(map(Path, names), [folder / "nowhere" / "input"])
    assert sorted(os.listdir(folder)) == ["dangling", "file", "pipe"]
    assert (folder / "file").stat().st_mtime_ns == before.st_mtime_ns


def test_what_cannot_be_written_is_said_before_the_work(folder):
    (folder / "file").touch()
    (folder / "loop").symlink_to("loop")
    (folder / "lost").symlink_to("nowhere/file")
    for name, reason in (
        (".", "it is a folder"),
        ("nowhere/file", "there is no folder nowhere"),
        ("lost", f"there is no folder {folder / 'nowhere'}"),
        ("file/below", "Not a directory"),
        ("loop", "Too many levels of symbolic links"),
        ("n" * 256, "File name too long"),
    ):
        assert refusal([name]) == f"{name} cannot be written: {reason}"
    assert sorted(os.listdir(folder)) == ["file", "loop", "lost"]


@pytest.mark.parametrize(
    "output", ["input", "./input", "below/../input", "link", "twice", "hard", "below/link"]
)
def test_an_output_that_is_an_input(output, folder):
    (folder / "input").touch()
    (folder / "below").mkdir()
    (folder / "link").symlink_to("input")
    (folder / "twice").symlink_to("link")
    (folder / "below" / "link").symlink_to("../input")
    os.link("input", "hard")
    for read, written in (("input", output), (output, "input")):
        assert refusal([written], [read]) == (
            f"{Path(written)} cannot be written: it is the file {Path(read)}, which is read"
        )


def test_two_outputs_that_are_one_file(folder):
    """The file exists already, or not yet."""
    (folder / "below").mkdir()
    (folder / "link").symlink_to("file")
    (folder / "folder").symlink_to("below")
    for there in (False, True):
        for first, second in (("file", "file"), ("file", "link"), ("below/a", "folder/a")):
            for path in (first, second) if there else ():
                (folder / path).touch()
            assert refusal([first, "other", second]) == (
                f"{second} cannot be written: it is the file {first}, which is written, too"
            )
    os.mkfifo(folder / "pipe")
    files.check([folder / "pipe"] * 2 + [Path("/dev/null")] * 2)  # where nothing is lost


@pytest.fixture
def untouched(folder, monkeypatch):
    """A model, a settings file, data and a run, which no command may change."""
    for name in ("images", "labels"):
        (folder / f"t10k-{name}.idx{3 if name == 'images' else 1}-ubyte.gz").touch()
    (folder / "settings.toml").write_text("epochs = 1\n")
    write_picture(folder / "image.png")
    command("train", "--quiet", "--device", "cpu", "--run", "a", "--epochs", "2")
    model().save("model")
    os.link("model", "hard")
    (folder / "link").symlink_to("model")
    monkeypatch.setattr(cnn.data, "load", lambda *_, **__: pytest.fail("it works"))
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "line",
    [
        "export model model",
        "export model link",
        "export link model",
        "export model hard",
        "evaluate model --json model",
        "evaluate model --data . --json t10k-images.idx3-ubyte.gz",
        "predict model image.png --json link",
        "predict model image.png --json image.png",
        "train --config settings.toml --json settings.toml",
        "train --config settings.toml --save settings.toml",
        "train --data . --save t10k-labels.idx1-ubyte.gz",
        "train --save new --json new",
        "train --save ./new --json new",
        "train --resume runs/a --json runs/a/settings.toml",
        "train --resume runs/a --json runs/a/history.jsonl",
        "train --resume runs/a --save runs/a/results.json",
        "train --resume runs/a --save runs/a/checkpoints/epoch-0001.safetensors",
        "train --resume runs/a/checkpoints/epoch-0002.safetensors --save "
        "runs/a/checkpoints/epoch-0002.safetensors",
    ],
)
def test_a_command_harms_no_file_that_it_reads_or_writes(line, untouched, folder, capsys):
    capsys.readouterr()
    assert main(line.split()) == 1
    shown = capsys.readouterr()
    assert shown.out == "" and len(shown.err.splitlines()) == 1
    written = line.split()[-1].removeprefix("./")
    assert shown.err.startswith(f"cnn: error: {written} cannot be written: it is the file ")
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == untouched


def test_pictures_harm_no_file_of_the_run(untouched, folder, capsys):
    (folder / "runs" / "a" / "filters.png").symlink_to("model.safetensors")
    capsys.readouterr()
    assert main(["plot", "runs/a", "--output", "runs/a"]) == 1
    assert capsys.readouterr().err == (
        "cnn: error: runs/a/filters.png cannot be written: it is the file "
        "runs/a/model.safetensors, which is read\n"
    )


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "model", "--json"],
        ["evaluate", "model", "model", "--json"],
        ["predict", "model", "image.png", "--json"],
        ["export", "model"],
    ],
    ids=["json", "json of two models", "json of a picture", "onnx"],
)
def test_a_file_on_standard_output_has_it_alone(words, folder):
    """Other output goes to standard error."""
    model().save("model")
    write_picture(folder / "image.png")
    assert main([*words, "file"]) == 0
    done = in_a_process(*words, "/dev/stdout")
    assert done.stdout == (folder / "file").read_bytes()
    last = done.stderr.splitlines()[-1]
    assert last.startswith((b"synthetic test accuracy ", b"image.png: ", b"/dev/stdout: "))


def test_a_picture_on_standard_output_has_it_alone(folder):
    command("train", "--quiet", "--device", "cpu", "--run", "a")
    command("plot", "runs/a")
    (folder / "linked").mkdir()
    (folder / "linked" / "classes.png").symlink_to("/dev/stdout")
    done = in_a_process("plot", "runs/a", "--output", "linked")
    assert done.stdout == (folder / "runs" / "a" / "plots" / "classes.png").read_bytes()
    assert b"linked/classes.png\n" in done.stderr


def in_a_process(*words):
    """Run a command that succeeds in a process of its own."""
    script = "import sys; from tests.cli import test_files as t; "
    script += "t.cnn.data.load = t.random_digits; sys.exit(t.main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, env=environment()
    )
    assert done.returncode == 0, done.stderr
    return done


def test_a_name_that_is_no_text_is_written_and_shown(folder, capfd):
    model().save("model")
    name = os.fsdecode(b"x\xff.onnx")
    command("export", "model", name)
    assert (folder / name).exists()
    assert capfd.readouterr().out.startswith("x\\udcff.onnx: ")


def test_a_name_that_standard_output_cannot_encode_is_shown(folder, monkeypatch):
    model().save("model")
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    assert in_a_process("export", "model", "\u4e2d\xe9.onnx").stdout.startswith(
        b"\\u4e2d\xe9.onnx: "
    )


def test_names_that_are_no_text_are_read_and_shown(folder, capfd):
    name = os.fsdecode(b"x\xff")
    model().save(name)
    command("evaluate", name, name, "--json", "file")
    assert capfd.readouterr().out.startswith("x\\udcff: test accuracy ")
    each = json.loads((folder / "file").read_text())["models"]
    assert [one["model"] for one in each] == [name, name]
