"""MNIST from mirrors and the per-user cache, and what is said without it.

The mirrors are folders of a server on 127.0.0.1.
"""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from cnn import data
from cnn.data import DataError, Dataset, mnist, synthetic
from cnn.data.mnist import DataNotFoundError
from tests.lib import fresh_python
from tests.lib.tiny_mnist import (
    CONTENTS,
    SOUND,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    assert_tiny_mnist,
    files_in,
    fill,
    install,
    sha256,
)

CUT_SHORT = {file: content[: len(content) // 2] for file, content in SOUND.items()}
OTHER = {file: gzip.compress(b"another file") for file in SOUND}
GARBAGE = dict.fromkeys(SOUND, b"\x1f\x8b<html>please log in</html>")


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Every test: tiny MNIST, an empty cache, no named folder and no mirror."""
    folder = tmp_path / "cache" / "mnist"
    install(monkeypatch, folder)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return folder


class Mirrors:
    """A server whose folders each play one mirror, and the paths it was asked for."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.requests: list[str] = []
        mirrors = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # noqa: N802 (the name that http.server calls)
                mirrors.requests.append(self.path)
                body = mirrors.bodies.get(self.path)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def add(self, name: str, bodies: dict[str, bytes]) -> str:
        self.bodies.update({f"/{name}/{file}": body for file, body in bodies.items()})
        return f"http://127.0.0.1:{self.server.server_port}/{name}/"


@pytest.fixture
def mirrors() -> Iterator[Mirrors]:
    running = Mirrors()
    yield running
    running.server.shutdown()
    running.server.server_close()


def closed_port() -> int:
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.server_close()
    return server.server_port


def test_download_fills_the_cache(
    mirrors: Mirrors, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mnist, "MIRRORS", (mirrors.add("first", SOUND), mirrors.add("second", {})))
    assert_tiny_mnist(data.load("auto", say=pytest.fail))
    assert files_in(cache) == CONTENTS  # decompressed, and nothing else
    assert mirrors.requests == [f"/first/{file}" for file in SOUND]
    assert_tiny_mnist(mnist.load_mnist())
    assert len(mirrors.requests) == 4


@pytest.mark.parametrize(
    "bodies", [OTHER, CUT_SHORT, GARBAGE, {}], ids=["other", "cut short", "garbage", "404"]
)
def test_second_mirror_is_used_when_the_first_is_bad(
    bodies: dict[str, bytes], mirrors: Mirrors, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_sound_file = {f"{TEST_LABELS}.gz": SOUND[f"{TEST_LABELS}.gz"]}
    first, second = mirrors.add("first", bodies | one_sound_file), mirrors.add("second", SOUND)
    monkeypatch.setattr(mnist, "MIRRORS", (first, second))
    assert_tiny_mnist(mnist.load_mnist())
    assert files_in(cache) == CONTENTS
    assert f"/second/{TEST_LABELS}.gz" not in mirrors.requests  # the first mirror's was sound


@pytest.mark.parametrize(
    ("bodies", "reason"),
    [
        (OTHER, sha256(b"another file")),
        (CUT_SHORT, "damaged gzip: Compressed file ended"),
        (GARBAGE, "damaged gzip"),
        ({}, "404 Not Found"),
    ],
    ids=["other", "cut short", "garbage", "404"],
)
def test_bad_download_leaves_nothing_in_the_cache(
    bodies: dict[str, bytes],
    reason: str,
    mirrors: Mirrors,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = mirrors.add("only", bodies)
    monkeypatch.setattr(mnist, "MIRRORS", (url,))
    with pytest.raises(DataNotFoundError) as caught:
        data.load("mnist")
    assert f"{url}{TRAIN_IMAGES}.gz" in caught.value.reason
    assert reason in caught.value.reason and caught.value.reason in str(caught.value)
    assert files_in(cache) == {}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_interrupted_write_leaves_nothing_in_the_cache(
    function: str,
    error: BaseException,
    mirrors: Mirrors,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(mnist, "MIRRORS", (mirrors.add("first", SOUND),))
    monkeypatch.setattr(os, function, fail)
    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else DataError
    with pytest.raises(expected) as caught:
        mnist.load_mnist()
    if expected is DataError:
        assert f"{cache} cannot be written: No space left on device" in str(caught.value)
    assert files_in(cache) == {}


def test_damaged_cached_file_is_downloaded_again(
    mirrors: Mirrors, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(cache, CONTENTS | {TRAIN_IMAGES: CONTENTS[TRAIN_IMAGES][:-1]})
    monkeypatch.setattr(mnist, "MIRRORS", (mirrors.add("first", SOUND),))
    assert_tiny_mnist(mnist.load_mnist())
    assert files_in(cache) == CONTENTS
    assert mirrors.requests == [f"/first/{TRAIN_IMAGES}.gz"]


@pytest.mark.parametrize("name", ["mnist", "auto"])
def test_damaged_cached_file_offline_is_an_error(
    name: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(cache, CONTENTS | {TEST_IMAGES: b"half"})
    monkeypatch.setattr(mnist, "MIRRORS", (f"http://127.0.0.1:{closed_port()}/",))
    with pytest.raises(DataError) as caught:
        data.load(name, say=pytest.fail)
    assert not isinstance(caught.value, DataNotFoundError)
    assert str(caught.value).startswith(f"{cache / TEST_IMAGES} is not MNIST's {TEST_IMAGES}")
    assert sha256(b"half") in str(caught.value)
    assert sha256(CONTENTS[TEST_IMAGES]) in str(caught.value)
    assert "Connection refused" in str(caught.value)


def test_unwritable_cache_names_the_folder(
    mirrors: Mirrors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Below a file, because permissions do not hold back the administrator who may run the tests.
    (tmp_path / "file").write_bytes(b"")
    folder = tmp_path / "file" / "mnist"
    monkeypatch.setattr(mnist, "cache_directory", lambda: folder)
    monkeypatch.setattr(mnist, "MIRRORS", (mirrors.add("first", SOUND),))
    with pytest.raises(DataError, match=f"the cache folder {folder} cannot be written: Not a dir"):
        mnist.load_mnist()
    assert mirrors.requests == []  # not downloaded in vain


def test_two_processes_fill_the_cache_at_once(mirrors: Mirrors, cache: Path) -> None:
    program = (
        "import pathlib; from cnn.data import mnist\n"
        f"mnist.SHA256 = {mnist.SHA256!r}\n"
        f"mnist.MIRRORS = ({mirrors.add('first', SOUND)!r},)\n"
        f"mnist.cache_directory = lambda: pathlib.Path({str(cache)!r})\n"
        "print(int(mnist.load_mnist()[0].images.sum()))"
    )
    command = [sys.executable, "-c", program]
    processes = [
        subprocess.Popen(command, cwd=fresh_python.REPOSITORY, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    total = sum(CONTENTS[TRAIN_IMAGES][16:])
    assert [process.communicate()[0] for process in processes] == [f"{total}\n"] * 4
    assert files_in(cache) == CONTENTS


# --- without MNIST


def test_mnist_offline_names_files_and_places(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    urls = tuple(f"http://127.0.0.1:{closed_port()}/{name}/" for name in ("first", "second"))
    monkeypatch.setattr(mnist, "MIRRORS", urls)
    with pytest.raises(DataNotFoundError) as caught:
        data.load("mnist")
    for part in (
        *CONTENTS,
        "all of them",
        "--data",
        "$MNIST_DIR",
        str(cache),
        *urls,
        "Connection refused",
    ):
        assert part in str(caught.value)
    assert files_in(cache) == {}


def test_part_of_mnist_offline_names_what_is_missing(cache: Path) -> None:
    fill(cache, {file: CONTENTS[file] for file in (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES)})
    with pytest.raises(DataNotFoundError, match=f"{cache} lacks {TEST_LABELS}, and"):
        mnist.load_mnist()


def test_auto_offline_takes_synthetic_digits_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = f"http://127.0.0.1:{closed_port()}/"
    digits = Dataset(np.zeros((3, 4, 4), np.uint8), np.zeros(3, int), "synthetic")
    sets = digits, digits
    monkeypatch.setattr(mnist, "MIRRORS", (url,))
    monkeypatch.setattr(synthetic, "synthetic_digits", lambda: sets)
    said: list[str] = []
    assert data.load("auto", say=said.append) == sets
    assert len(said) == 1
    assert said[0].startswith(f"MNIST is not here and could not be downloaded ({url}")
    assert said[0].endswith("; taking synthetic digits instead")
    assert data.load("synthetic", say=pytest.fail) == sets


NOWHERE_TO_KEEP = """
from cnn import data
from cnn.data import mnist, synthetic
mnist.MIRRORS, synthetic.synthetic_digits = (), lambda: "synthetic digits"
print(data.load("auto", say=print))
try:
    data.load("mnist")
except data.DataError as error:
    print(error)
print(mnist.files_there())
"""


def test_without_a_home_folder_it_says_so() -> None:
    """As in a container that runs as a number that has no name."""
    instead, digits, message, none = fresh_python.output(
        fresh_python.NO_HOME + NOWHERE_TO_KEEP
    ).splitlines()
    reason = "there is no home folder to keep it in: set HOME or XDG_CACHE_HOME"
    assert instead == (
        f"MNIST is not here and could not be downloaded ({reason}); taking synthetic digits instead"
    )
    assert (digits, none) == ("synthetic digits", "[]")
    assert message.startswith("MNIST's four files (train-images-idx3-ubyte, ")
    assert message.endswith(f"with --data or $MNIST_DIR, and {reason}")


def test_silent_mirror_is_given_up(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes the connection and never answers costs the timeout once, not per file."""
    listener = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # never served
    monkeypatch.setattr(mnist, "MIRRORS", (f"http://127.0.0.1:{listener.server_port}/",))
    monkeypatch.setattr(mnist, "DOWNLOAD_TIMEOUT_SECONDS", 0.2)
    with pytest.raises(DataNotFoundError, match="no answer in 0.2 s|timed out"):
        mnist.load_mnist()
    listener.server_close()
    assert files_in(cache) == {}
