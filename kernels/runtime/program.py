"""Programs: the text of a `.cu` file with its headers, and the signatures of its entry points."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

PACKAGE = Path(__file__).resolve().parent.parent

#: Each element type's name in C++, and the header that declares it if one is needed.
C_TYPES = {
    "float32": ("float", None),
    "float64": ("double", None),
    "float16": ("__half", "cuda_fp16.h"),
    "bfloat16": ("__nv_bfloat16", "cuda_bf16.h"),
    "uint8": ("unsigned char", None),
    "uint16": ("unsigned short", None),
    "int32": ("int", None),
    "int64": ("long long", None),
    # Precisions of tensor cores; see mma.cuh.
    "tf32": ("Tf32", None),
    "bf16": ("Bf16", None),
    "fp16": ("Fp16", None),
}
_FIXED_TYPES: dict[str, np.dtype[Any]] = {
    "int": np.dtype(np.int32),
    "int32": np.dtype(np.int32),
    "int64": np.dtype(np.int64),
    "uint8": np.dtype(np.uint8),
    "uint16": np.dtype(np.uint16),
    "float": np.dtype(np.float32),
    "uint64": np.dtype(np.uint64),
    "double": np.dtype(np.float64),
}
_INCLUDE = re.compile(r'^#include "([^"]+)"\s*(?://.*)?$')
_ENTRY = re.compile(
    r"^KERNEL\b(?:\s*__launch_bounds__\([\w:, ]+\))?\s*(\w+)\(([^)]*)\)", re.MULTILINE
)


@dataclass(frozen=True)
class Parameter:
    """One parameter of an entry point; `const` tells whether it is a pointer to const."""

    name: str
    type: str
    pointer: bool
    const: bool

    def dtype(self, constants: dict[str, Any]) -> np.dtype[Any] | None:
        """Return the element type with these constants, or None for a struct."""
        if self.type == "acc_t":
            wide = np.dtype(constants["T"]) == np.float64
            return np.dtype("float64" if wide else "float32")
        if self.type in constants:
            chosen: np.dtype[Any] = np.dtype(constants[self.type])
            return chosen
        return _FIXED_TYPES.get(self.type)


class Program:
    """A `.cu` file of the package, or a generated text, with its entry points.

    Parameters
    ----------
    name : str
        File name inside the package, or the name of a generated text in errors.
    text : str, optional
        The text, if it is not a file.
    """

    def __init__(self, name: str, text: str | None = None) -> None:
        self.name = name
        self._text = text

    @cached_property
    def text(self) -> str:
        """The text with its headers expanded, and ``#line`` marks for the compiler's messages."""
        return flattened(self.name, self._text)

    @cached_property
    def entries(self) -> dict[str, tuple[Parameter, ...]]:
        """The parameters of every entry point, parsed from the text."""
        return {name: _parameters(text) for name, text in _ENTRY.findall(self.text)}

    def specialised(self, constants: dict[str, Any], entry: str | None = None) -> str:
        """Return the text with these constants, and all entry points or one.

        An int becomes ``#define NAME value``, a dtype ``#define TYPE_NAME ctype``.
        """
        lines = []
        for name, value in sorted(constants.items()):
            if isinstance(value, int):
                lines.append(f"#define {name} {value}")
                continue
            # NumPy knows the name "bfloat16" only if ml_dtypes is loaded.
            c_type, header = C_TYPES[value if isinstance(value, str) else np.dtype(value).name]
            if header:
                lines.append(f"#include <{header}>")
            lines.append(f"#define TYPE_{name} {c_type}")
        text = self.text
        if entry is not None:
            text = _ENTRY.sub(lambda found: _only(entry, found), text)
        return "\n".join([*lines, text])

    def library(self, entry: str, constants: dict[str, Any]) -> str:
        """Return the text of a C++ library that exports a launch of this entry point."""
        return f"{self.specialised(constants)}EXPORT_LAUNCH({entry})\n"


def _only(entry: str, found: re.Match[str]) -> str:
    """Return the head of an entry point; all but one become templates that are not compiled."""
    return found[0] if found[1] == entry else found[0].replace("KERNEL", "OTHER_KERNEL", 1)


def flattened(name: str, text: str | None = None) -> str:
    """Return a file of the package, or a named text, with its headers expanded."""
    return "\n".join(_flatten(name, text or (PACKAGE / name).read_text(), set())) + "\n"


@cache
def _header(name: str) -> str:
    return (PACKAGE / name).read_text()


def _flatten(name: str, text: str, once: set[str], conditional: bool = False) -> list[str]:
    """Replace each quoted include by its file, keeping line numbers in messages.

    A header is expanded once, and added to `once`. If it is included under an ``#if``, only the
    compiler knows whether that include counts: then it is expanded at each include, up to the first
    that is unconditional, behind a guard in place of ``#pragma once``.
    """
    lines = [f'#line 1 "{PACKAGE.name}/{name}"']
    depth = 0
    for number, line in enumerate(text.splitlines(), start=1):
        include = _INCLUDE.match(line)
        if line.startswith("#if"):
            depth += 1
        if include and include[1] not in once:
            under = conditional or depth > 0
            if not under:
                once.add(include[1])
            guard = "INCLUDED_" + re.sub(r"\W", "_", include[1])
            header = _flatten(include[1], _header(include[1]), once, under)
            lines += [f"#ifndef {guard}", f"#define {guard}", *header, "#endif"]
            lines.append(f'#line {number + 1} "{PACKAGE.name}/{name}"')
        elif include or line == "#pragma once":
            lines.append("")
        elif line.startswith("#endif"):  # the compiler ignores marks in a branch that it skips
            depth -= 1
            lines += [line, f'#line {number + 1} "{PACKAGE.name}/{name}"']
        else:
            lines.append(line)
    return lines


def _parameters(text: str) -> tuple[Parameter, ...]:
    parameters = []
    for declaration in text.split(","):
        words = declaration.replace("*", " * ").split()
        kept = [word for word in words if word not in ("const", "*", "__restrict__")]
        pointer = "*" in words
        parameters.append(Parameter(kept[-1], kept[0], pointer, pointer and "const" in words))
    return tuple(parameters)
