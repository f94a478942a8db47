"""MNIST's files: IDX, gzip, hashes and folders.

The last test reads the real files where they are.
"""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cnn import data
from cnn.data import DataError, mnist
from cnn.data.idx import decode
from tests.lib import permissions
from tests.lib.quick_model import MNIST
from tests.lib.tiny_mnist import (
    CONTENTS,
    SOUND,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    assert_tiny_mnist,
    fill,
    idx,
    install,
    sha256,
)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Every test: tiny MNIST, an empty cache, no named folder and no mirror."""
    folder = tmp_path / "cache" / "mnist"
    install(monkeypatch, folder)
    return folder


# --- IDX


@pytest.mark.parametrize("shape", [(5,), (0, 28, 28), (2, 3, 4), (1, 1, 1, 7)])
def test_idx_is_decoded(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(1).integers(256, size=shape).astype(np.uint8)
    decoded = decode(idx(array))
    assert decoded.dtype == np.uint8 and decoded.flags.writeable
    np.testing.assert_array_equal(decoded, array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an IDX file"),
        (b"\0\0\x08", "is not an IDX file"),
        (b"PK\x03\x04rest", "is not an IDX file: it begins with 0x504b0304"),
        (b"\0\0\x08\0", "is not an IDX file"),  # no axis
        (b"\0\0\x0d\1\0\0\0\1" + bytes(4), "has IDX type 0x0d, expected 0x08, uint8"),
        (b"\0\0\x08\3\0\0\0\1", "ends within its IDX header of 16 bytes"),
        (b"\0\0\x08\1\0\0\0\5abcd", r"announces shape \(5,\), 13 bytes, but has 12 bytes"),
        (b"\0\0\x08\1\0\0\0\3abcd", r"announces shape \(3,\), 11 bytes, but has 12 bytes"),
        (b"\0\0\x08\4" + b"\xff" * 16, "announces shape"),  # 2**128 elements: no overflow
        (b"\0\0\x08\x41" + b"\0\0\0\1" * 65 + b"a", "announces a shape that no array has: "),
        (b"\0\0\x08\4" + bytes(4) + b"\xff" * 12, "announces a shape that no array has: "),
    ],
)
def test_bad_idx_names_the_file(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=f"^some/file {message}"):
        decode(content, "some/file")


# --- a named folder


@pytest.mark.parametrize("contents", [CONTENTS, SOUND], ids=["plain", "gzip"])
@pytest.mark.parametrize("named", ["argument", "environment"])
def test_named_folder_is_read(
    contents: dict[str, bytes], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fill(tmp_path / "named", contents)
    if named == "environment":
        monkeypatch.setenv("MNIST_DIR", str(folder))
    assert_tiny_mnist(data.load("mnist", folder if named == "argument" else None))
    assert_tiny_mnist(data.load("auto", folder if named == "argument" else None, say=pytest.fail))


def test_decompressed_file_with_gz_name_is_read(tmp_path: Path) -> None:
    contents = {f"{file}.gz": content for file, content in CONTENTS.items()}
    assert_tiny_mnist(mnist.load_mnist(fill(tmp_path / "named", contents)))


@pytest.mark.parametrize("contents", [CONTENTS, SOUND], ids=["plain", "gzip"])
def test_names_with_a_dot_are_read(contents: dict[str, bytes], tmp_path: Path) -> None:
    """MNIST's own page calls them so: t10k-images.idx3-ubyte."""
    dotted = {file.replace("-idx", ".idx"): content for file, content in contents.items()}
    assert not dotted.keys() & contents.keys()
    folder = fill(tmp_path / "named", dotted)
    assert_tiny_mnist(mnist.load_mnist(folder))
    assert sorted(mnist.files_there(folder)) == sorted(folder.iterdir())


def test_a_folder_beside_the_file_is_passed_over(tmp_path: Path) -> None:
    """Unpacking an archive in place leaves such a folder."""
    dotted = {file.replace("-idx", ".idx"): content for file, content in CONTENTS.items()}
    folder = fill(tmp_path / "named", dotted)
    (folder / TEST_IMAGES).mkdir()
    assert_tiny_mnist(mnist.load_mnist(folder))


# Zeros, as of a tape's block; text; what looks like a member's first byte.
@pytest.mark.parametrize("trailing", [bytes(512), b"\0", b"<!-- served by x -->", b"\x1f"])
def test_what_follows_a_gzip_stream_is_ignored(trailing: bytes, tmp_path: Path) -> None:
    contents = {file: content + trailing for file, content in SOUND.items()}
    assert_tiny_mnist(mnist.load_mnist(fill(tmp_path / "named", contents)))


def test_gzip_of_several_members_is_read(tmp_path: Path) -> None:
    contents = {
        f"{file}.gz": b"".join(map(gzip.compress, (content[:9], b"", content[9:]))) + b"\0"
        for file, content in CONTENTS.items()
    }
    assert_tiny_mnist(mnist.load_mnist(fill(tmp_path / "named", contents)))


def test_a_stream_larger_than_mnist_is_given_up(tmp_path: Path) -> None:
    folder = fill(tmp_path / "named", SOUND)
    (folder / f"{TRAIN_IMAGES}.gz").write_bytes(gzip.compress(bytes(2**28), 1))
    with pytest.raises(DataError, match="is not MNIST's train-images-idx3-ubyte: ") as caught:
        mnist.load_mnist(folder)
    found = re.search(r"\((\d+) bytes\)$", str(caught.value))
    assert found is not None and int(found[1]) < 2**27


# What stands in the place of a file, and what is said of it.
@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("folder", "is a folder"),
        ("pipe", "is no regular file"),
        ("broken link", "is a link to a file that is not there"),
        ("link to itself", "cannot be read: Too many levels of symbolic links"),
    ],
)
@pytest.mark.parametrize("file", [TRAIN_LABELS, f"{TRAIN_LABELS}.gz"])
def test_what_is_no_file_is_named(kind: str, complaint: str, file: str, tmp_path: Path) -> None:
    folder = fill(tmp_path / "named", CONTENTS)
    (folder / TRAIN_LABELS).unlink()
    make: dict[str, Callable[[Path], None]] = {
        "folder": Path.mkdir,
        "pipe": os.mkfifo,
        "broken link": lambda path: path.symlink_to("nowhere"),
        "link to itself": lambda path: path.symlink_to(path.name),
    }
    make[kind](folder / file)
    with pytest.raises(DataError) as caught:
        mnist.load_mnist(folder)
    assert str(caught.value) == f"{folder / file} {complaint}"


@pytest.mark.parametrize("closed", [f"above/named/{TRAIN_IMAGES}", "above/named", "above"])
@pytest.mark.parametrize("readable", [True, False])
def test_what_may_not_be_read_is_named(closed: str, readable: bool) -> None:
    with permissions.folder() as reachable:
        folder = fill(reachable / "above" / "named", CONTENTS)
        # A folder may be listed that may not be entered.
        (reachable / closed).chmod(0o444 if readable and not closed.endswith("ubyte") else 0)
        with permissions.held_back(), pytest.raises(DataError) as caught:
            mnist.load_mnist(folder)
    assert str(caught.value) == f"{folder / TRAIN_IMAGES} cannot be read: Permission denied"


@pytest.mark.parametrize("name", ["mnist", "auto"])
@pytest.mark.parametrize(
    "file", [f"{TRAIN_IMAGES}.gz", TEST_LABELS], ids=["gzip images", "plain labels"]
)
@pytest.mark.parametrize("damage", ["cut short", "another file", "flipped byte", "empty", "magic"])
def test_damaged_file_is_named_with_both_hashes(
    damage: str, file: str, name: str, tmp_path: Path
) -> None:
    sound = (SOUND | CONTENTS)[file]
    middle = len(sound) // 2
    flipped = bytes([sound[middle] ^ 0xFF])
    folder = fill(tmp_path / "named", SOUND)
    bad = {
        "cut short": sound[:-9],
        "another file": b"another file",
        "flipped byte": sound[:middle] + flipped + sound[middle + 1 :],
        "empty": b"",
        "magic": b"\x1f\x8b" + sound[2:] if file == TEST_LABELS else b"xx" + sound[2:],
    }[damage]
    (folder / file).write_bytes(bad)
    plain = file.removesuffix(".gz")
    with pytest.raises(DataError) as caught:
        data.load(name, folder, say=pytest.fail)
    message = str(caught.value)
    assert message.startswith(f"{folder / file} is not MNIST's {plain}: ")
    assert f"expected {sha256(CONTENTS[plain])}" in message
    if damage == "another file" or not bad:
        assert f"has SHA-256 {sha256(bad)}" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["mnist", "auto"])
@pytest.mark.parametrize("named", ["argument", "environment"])
def test_named_folder_without_a_file_is_an_error(
    named: str, name: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(cache, CONTENTS)  # would do, but the user named another place
    folder = fill(tmp_path / "named", CONTENTS)
    (folder / TRAIN_LABELS).unlink()
    (folder / TEST_IMAGES).unlink()
    if named == "environment":
        monkeypatch.setenv("MNIST_DIR", str(folder))
    with pytest.raises(DataError) as caught:
        data.load(name, folder if named == "argument" else None, say=pytest.fail)
    assert str(folder) in str(caught.value)
    assert f"did not find {TRAIN_LABELS}, {TEST_IMAGES} (" in str(caught.value)


def test_named_folder_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere, which is not a folder"):
        mnist.load_mnist(tmp_path / "nowhere")


def test_search_order(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument comes before the variable, and that before the cache."""
    damaged = fill(tmp_path / "damaged", dict.fromkeys(CONTENTS, b""))
    sound = fill(tmp_path / "sound", CONTENTS)
    fill(cache, dict.fromkeys(CONTENTS, b""))
    monkeypatch.setenv("MNIST_DIR", str(damaged))
    assert_tiny_mnist(mnist.load_mnist(sound))
    monkeypatch.setenv("MNIST_DIR", str(sound))
    assert_tiny_mnist(mnist.load_mnist())
    fill(cache, CONTENTS)
    monkeypatch.setenv("MNIST_DIR", "")
    assert_tiny_mnist(mnist.load_mnist())


@pytest.mark.skipif(
    not MNIST.is_dir() and "MNIST_DIR" not in os.environ,
    reason="MNIST is not on this machine: set MNIST_DIR",
)
def test_real_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real hashes
    train, test = mnist.load_mnist(MNIST)
    assert train.images.shape == (60_000, 28, 28) and test.images.shape == (10_000, 28, 28)
    assert train.images.dtype == train.labels.dtype == np.uint8
    # The class counts that are published with the data set.
    assert np.bincount(train.labels).tolist() == [
        *(5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
    ]
    assert np.bincount(test.labels).tolist() == [
        *(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)
    ]
    assert train.images.mean() / 255 == pytest.approx(0.1307, abs=1e-4)
