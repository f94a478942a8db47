"""Writing files: whole or not at all, where the path leads, and nothing that is read meanwhile.

A link is followed, so that it stays one. What is no regular file, such as a device or a pipe, is
written in place; so is what standard output or standard error goes to, after what is there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

#: Begins the name of a file that is not whole yet; a process that is killed leaves it behind.
UNFINISHED = ".cnn-unfinished-"


def check(outputs: Iterable[Path], inputs: Iterable[Path] = ()) -> None:
    """Raise OSError now rather than after the work, unless all outputs can be written.

    Nothing is changed and nothing is left behind.

    Parameters
    ----------
    outputs : iterable of Path
        Files to be written.
    inputs : iterable of Path
        Files that are read before that.

    Raises
    ------
    OSError
        If an output cannot be written, or is the same regular file as an input or another output.
    """
    others = [(path, "read") for path in inputs]
    for path in outputs:
        try:
            _check(path)
        except OSError as error:
            raise OSError(f"{path} cannot be written: {error.strerror}") from error
        for other, role in others:
            if _same(path, other):
                raise OSError(f"{path} cannot be written: it is the file {other}, which is {role}")
        others.append((path, "written, too"))


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it appears whole or not at all, even if the machine stops.

    One that was there is replaced, and keeps its permissions and, where that may be, its owner.

    Raises
    ------
    OSError
        If it cannot be written, or is read-only; what stood there is then unharmed. What is
        written in place may have taken a part.
    """
    try:
        there = _status(path)
        if there is None or _is_replaced(there):
            _replace(_target(path), content, there)
        else:
            _write_in_place(path, content, _stream(there))
    except OSError as error:
        raise _named(error, path) from error


def append(path: Path, content: bytes) -> None:
    """Write to the end of a file, a new one where there is none.

    Raises
    ------
    OSError
        If it cannot be written; a part may then be there.
    """
    try:
        with open(path, "ab") as file:
            file.write(content)
    except OSError as error:
        raise _named(error, path) from error


def _named(error: OSError, path: Path) -> OSError:
    """Return an error that names the file: not a temporary one, or none as of a full disk."""
    return OSError(error.errno, error.strerror, str(path))


def _check(path: Path) -> None:
    there = _status(path)
    if there is None or _is_replaced(there):
        target = _target(path)
        if there is not None:
            _refuse_read_only(target, there)
        if not target.parent.exists():
            raise FileNotFoundError(errno.ENOENT, f"there is no folder {target.parent}")
        with tempfile.TemporaryFile(dir=target.parent):  # has no name to leave behind
            pass
    elif stat.S_ISDIR(there.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    # To open a pipe would wait for its reader, or end what that reads.
    elif _stream(there) is None and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _status(path: Path) -> os.stat_result | None:
    """Return the status of what a path leads to, or None if that is not there."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _is_replaced(there: os.stat_result) -> bool:
    """Whether a new file takes the place of this one, which otherwise is written in place."""
    return stat.S_ISREG(there.st_mode) and _stream(there) is None


def _stream(there: os.stat_result) -> int | None:
    """Return the descriptor of standard output or error if it is this file, such as /dev/stdout.

    To open a file anew, which the user perhaps may not, would write over what is there.
    """
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):  # closed
            if os.path.samestat(os.fstat(descriptor), there):
                return descriptor
    return None


def _refuse_read_only(target: Path, there: os.stat_result) -> None:
    """Raise OSError for a file that may not be written: to replace it asks for no such right."""
    if not there.st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(errno.EACCES, "it is read-only")  # for an administrator, too
    os.close(os.open(target, os.O_WRONLY))


def _target(path: Path) -> Path:
    """Return the place of a regular file, there or not, that a path leads to by its links."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _same(path: Path, other: Path) -> bool:
    """Whether two paths lead to one regular file, there or not."""
    statuses = []
    for one in (path, other):
        try:
            statuses.append(_status(one))
        except OSError:  # an input whose reader says what is wrong with it
            return False
    first, second = statuses
    if first is None or second is None:
        return first is second and os.path.realpath(path) == os.path.realpath(other)
    return stat.S_ISREG(first.st_mode) and os.path.samestat(first, second)


def _replace(target: Path, content: bytes, there: os.stat_result | None) -> None:
    if there is not None:
        _refuse_read_only(target, there)
    # Short, and of one length: the target's name may be as long as names can be.
    temporary = target.with_name(f"{UNFINISHED}{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as file:  # unlike tempfile's, readable by others
            if there is not None:
                with contextlib.suppress(OSError):  # for an administrator alone
                    os.fchown(file.fileno(), there.st_uid, there.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(there.st_mode))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    with contextlib.suppress(PermissionError):  # a folder may be written that may not be read
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # of the new name
        finally:
            os.close(folder)


def _write_in_place(path: Path, content: bytes, stream: int | None) -> None:
    if stream is not None:
        for text in (sys.stdout, sys.stderr):
            text.flush()  # what was printed before comes before
    descriptor = os.open(path, os.O_WRONLY | os.O_NOCTTY) if stream is None else os.dup(stream)
    with open(descriptor, "wb") as file:
        file.write(content)
