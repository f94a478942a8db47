"""Settings files of `cnn train`: TOML with the flags' names as keys."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import checks
from .options import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read(path: Path, add_arguments: Callable[[argparse.ArgumentParser], None]) -> list[str]:
    """Return the flags that a settings file stands for.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is no TOML, or has a key that is no flag or a value that the flag does not take.
    """
    try:
        # Editors on Windows begin a file with a byte order mark, which tomllib does not skip.
        settings = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    add_arguments(parser)
    spellings: dict[str, str] = {}
    for key in settings:
        other = spellings.setdefault(_bare(key), key)
        if other != key:
            raise ValueError(f"{path}: {key}: is set twice, as {other}, too")
    return [_flag(path, parser, key, value) for key, value in settings.items()]


def to_toml(settings: dict[str, Any]) -> str:
    """Return the text of a settings file; settings that are None are left out.

    Raises
    ------
    UsageError
        If one is no UTF-8, as a file's name may be: TOML cannot hold it.
    """
    values = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in settings.items()
        if value is not None
    }
    # JSON's strings, numbers, true and false are TOML's, if letters beyond ASCII are not escaped
    # and DEL is.
    lines = ["# The settings of this run; cnn train --config takes them again."]
    for name, value in values.items():
        text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        lines.append(f"{name} = {text}")
        if re.search("[\ud800-\udfff]", lines[-1]):  # stand for bytes that are no UTF-8
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag}: got {value!r}, expected UTF-8, as the settings of a run are")
    return "".join(f"{line}\n" for line in lines)


def _bare(key: str) -> str:
    """Return the name of a setting; a switch has two flags, such as --quiet and --no-quiet."""
    return key.replace("_", "-").removeprefix("no-")


def _flag(path: Path, parser: argparse.ArgumentParser, key: str, value: Any) -> str:
    """Return one setting as a flag that the parser accepts."""
    name, bare = key.replace("_", "-"), _bare(key)
    switch = isinstance(value, bool)
    flag = f"--{name}" if switch else f"--{name}={value}"
    try:
        parsed, unknown = parser.parse_known_args([flag])
    except argparse.ArgumentError as error:
        if switch:
            fault = f"got {str(value).lower()}, expected a value as --{name} takes it"
        elif "explicit argument" in error.message:  # a switch takes none
            fault = f"got {checks.shown(value)}, expected true or false"
        else:
            fault = error.message
        raise ValueError(f"{path}: {key}: {fault}") from error
    attribute = bare.replace("-", "_")
    if unknown or attribute not in parsed or name in ("config", "resume"):
        raise ValueError(f"{path}: {key}: there is no such setting; see cnn train --help")
    if switch:
        return f"--{bare}" if value == (name == bare) else f"--no-{bare}"
    numeric = isinstance(getattr(parsed, attribute), (int, float))
    if not isinstance(value, (int, float) if numeric else str):
        expected = "a number" if numeric else "a string"
        raise ValueError(f"{path}: {key}: got {checks.shown(value)}, expected {expected}")
    return flag
