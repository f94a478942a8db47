"""Writing files: whole or not at all, and never over an input.

Symbolic links are followed, and stay links. Anything but a regular file, such as a device or a
pipe, is written in place. So is the file that standard output or standard error goes to: content is
added at its end.
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

#: Begins the names of files that are not complete; a process that is killed leaves one behind.
UNFINISHED = ".cnn-unfinished-"


def check(outputs: Iterable[Path], inputs: Iterable[Path] = ()) -> None:
    """Raise OSError before the work begins, unless all outputs can be written.

    This changes no file and leaves none behind.

    Parameters
    ----------
    outputs : iterable of Path
        Files to be written.
    inputs : iterable of Path
        Files that are read, so must not be written.

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

    A file that was there is replaced; its permissions stay and, if the user may set it, its owner.

    Raises
    ------
    OSError
        If the file cannot be written, or is read-only; it is then unchanged. If it is written in
        place, a part of the content may be there.
    """
    try:
        there = _status(path)
        if there is None or _is_replaced(there):
            _replace(_target(path), content, there)
        else:
            _write_in_place(path, content, _stream(there))
    except OSError as error:
        raise _named(error, path) from error


def is_standard_output(path: Path) -> bool:
    """Whether a path leads to the file that standard output goes to."""
    there = _status(path)
    return there is not None and _stream(there) == 1


def flush_streams() -> None:
    """Flush standard output and standard error; `sys` has None for one that is closed."""
    for text in (sys.stdout, sys.stderr):
        if text is not None:
            text.flush()


def append(path: Path, content: bytes) -> None:
    """Write to the end of a file, which is made if it is not there.

    Raises
    ------
    OSError
        If it cannot be written; a part of the content may then be there.
    """
    try:
        with open(path, "ab") as file:
            file.write(content)
    except OSError as error:
        raise _named(error, path) from error


def _named(error: OSError, path: Path) -> OSError:
    """Return the error with the name of this file, not of a temporary one or of none."""
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
    # Not by opening it: a pipe would wait for its reader, or end that reader's input.
    elif _stream(there) is None and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _status(path: Path) -> os.stat_result | None:
    """Return the status of the file that a path leads to, or None if there is none."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _is_replaced(there: os.stat_result) -> bool:
    """Whether a new file replaces this one; otherwise it is written in place."""
    return stat.S_ISREG(there.st_mode) and _stream(there) is None


def _stream(there: os.stat_result) -> int | None:
    """Return the descriptor of standard output or error if it goes to this file, else None.

    The file may be /dev/stdout. Opening it again would overwrite its content, and may be forbidden.
    """
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):  # closed
            if os.path.samestat(os.fstat(descriptor), there):
                return descriptor
    return None


def _refuse_read_only(target: Path, there: os.stat_result) -> None:
    """Raise OSError for a read-only file, which can be replaced without the right to write it."""
    if not there.st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(errno.EACCES, "it is read-only")  # an administrator could write it
    os.close(os.open(target, os.O_WRONLY))


def _target(path: Path) -> Path:
    """Return a path with its symbolic links followed; no file need be there."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _same(path: Path, other: Path) -> bool:
    """Whether two paths lead to the same regular file; it need not be there yet."""
    statuses = []
    for one in (path, other):
        try:
            statuses.append(_status(one))
        except OSError:  # of an input: the command that reads it reports the error
            return False
    first, second = statuses
    if first is None or second is None:
        return first is second and os.path.realpath(path) == os.path.realpath(other)
    return stat.S_ISREG(first.st_mode) and os.path.samestat(first, second)


def _replace(target: Path, content: bytes, there: os.stat_result | None) -> None:
    if there is not None:
        _refuse_read_only(target, there)
    # A short name of its own: one made from the target's could be too long.
    temporary = target.with_name(f"{UNFINISHED}{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as file:  # unlike tempfile's, readable by others
            if there is not None:
                with contextlib.suppress(OSError):  # only an administrator may
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
    with contextlib.suppress(PermissionError):  # the folder may be writable but not readable
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # makes the new name last, too
        finally:
            os.close(folder)


def _write_in_place(path: Path, content: bytes, stream: int | None) -> None:
    if stream is not None:
        flush_streams()  # what was printed earlier comes first
    descriptor = os.open(path, os.O_WRONLY | os.O_NOCTTY) if stream is None else os.dup(stream)
    with open(descriptor, "wb") as file:
        file.write(content)
