"""``cnn demo``: it says where it is, ends with Ctrl-C, and explains why it cannot start."""

import signal
import socket
import subprocess
import urllib.request

import pytest

from cnn import Dense, Flatten, Sequential
from cnn.__main__ import main
from tests.lib.command_line import command, environment_with


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.safetensors"
    Sequential([Flatten(), Dense(10)], (28, 28, 1), device="cpu").save(path)
    return path


def failure(capsys, *arguments):
    """Run it where it must fail and return its one sentence."""
    assert main(["demo", *map(str, arguments), "--device", "cpu"]) == 1
    return capsys.readouterr().err.splitlines()[-1].removeprefix("cnn: error: ")


def test_it_serves_until_interrupted(model):
    words = command(["demo", model, "--port", 0, "--device", "cpu"])
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, **pipes, env=environment_with()) as process:
        shown = process.stdout.readline()
        assert shown.startswith("draw on http://127.0.0.1:") and shown.endswith(" (Ctrl-C ends)\n")
        address = shown.split()[2]
        with urllib.request.urlopen(address, timeout=30) as page:
            assert b"Draw a digit" in page.read()
        port = int(address.rsplit(":")[-1].strip("/"))
        with socket.create_connection(("127.0.0.1", port)):  # a silent client holds no one up
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "")
    assert err.startswith("preparing the model") and err.count("\n") == 1


def test_a_port_that_is_taken_is_noticed_before_the_model_is_prepared(model, capsys, monkeypatch):
    monkeypatch.setattr(Sequential, "load", lambda *_: pytest.fail("it is loaded"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        sentence = failure(capsys, model, "--port", port)
    assert sentence == f"127.0.0.1 port {port} is in use: choose another --port, or 0"


def test_an_address_that_is_not_of_this_machine(model, capsys):
    # 192.0.2.0/24 is for documentation: no machine has it.
    sentence = failure(capsys, model, "--host", "192.0.2.1", "--port", "0")
    assert sentence.startswith("cannot listen on 192.0.2.1 port 0: ")
    for host in ("no address", "", "x" * 300):
        sentence = failure(capsys, model, "--host", host)
        assert sentence.startswith(f"--host: {host!r} is no address: ")


def test_a_model_that_the_page_cannot_show(tmp_path, capsys):
    path = tmp_path / "model.safetensors"
    Sequential([Flatten(), Dense(3)], (28, 28, 1), device="cpu").save(path)
    expected = "model: gives outputs of shape (3,), expected (10,)"
    assert failure(capsys, path, "--port", "0") == expected


@pytest.mark.parametrize("port", ["65536", "http"])
def test_wrong_usage(port, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["demo", "model.safetensors", "--port", port])
    assert ended.value.code == 2
    expected = f"--port: got '{port}', expected a whole number from 0 to 65535"
    assert expected in capsys.readouterr().err
