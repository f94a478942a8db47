"""The system's C++ compiler, which builds the libraries of the `cpu` target."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from . import cache
from .errors import KernelError
from .program import PACKAGE, flattened

_FLAGS = "-std=c++17 -fPIC -fvisibility=hidden".split()


class Compiler:
    """The system's C++ compiler.

    Attributes
    ----------
    command : list of str
        ``$CXX``, or the first of c++, g++ and clang++ that is installed.
    identity : str
        Its predefined macros, which tell its version and the instruction set it compiles for, and
        the dialect's REGISTER_BYTES, which follows from them.
    """

    def __init__(self) -> None:
        chosen = os.environ.get("CXX", "").strip()
        try:
            candidates = [shlex.split(chosen)] if chosen else [["c++"], ["g++"], ["clang++"]]
        except ValueError as error:
            raise KernelError(f"CXX: got {chosen!r}, which is not a command: {error}") from error
        found = [words for words in candidates if words and shutil.which(words[0])]
        if not found:
            names = " ".join(chosen.split()) if chosen else "c++, g++, clang++"
            raise KernelError(
                f"the cpu target needs a C++17 compiler and none was found (looked for {names}); "
                "install one (Debian and Ubuntu: apt install g++) or name it in CXX"
            )
        self.command = found[0]
        query = "-march=native -dM -E -x c++ -".split()
        text = flattened("dialect/registers.cuh")
        self.identity = self._run("a query of its macros", query, text)
        if " __VERSION__ " not in self.identity:
            raise KernelError(
                f"CXX: {self.command[0]} is not a C++ compiler: it defines no version"
            )

    @property
    def version(self) -> str:
        """The compiler's own version string, such as "12.2.0" or "Clang 18.1.8"."""
        return self.macro("__VERSION__").strip('"')

    def macro(self, name: str) -> str:
        """Return the value of a macro in `identity`."""
        definition = f"#define {name} "
        lines = self.identity.splitlines()
        return next(line.removeprefix(definition) for line in lines if line.startswith(definition))

    def load(self, name: str, text: str, flags: list[str]) -> ctypes.CDLL:
        """Compile a text to a shared library, or find it in the cache, and load it.

        A cached library that cannot be loaded is built again: a library that it was linked with may
        have been removed.

        Parameters
        ----------
        name : str
            Name of the text in errors: a file inside the package.
        text : str
            C++17 source.
        flags : list of str
            Flags for the compiler.

        Raises
        ------
        KernelError
            If the compiler fails, the cache folder cannot be written, or the library cannot be
            loaded.
        """
        # The command is part of the key: gcc and g++ have the same macros, but g++ alone links with
        # the C++ library.
        compiler = [str(shutil.which(self.command[0])), *self.command[1:], self.identity]
        parts = [text, *_FLAGS, *flags, *compiler]
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        key = f"{Path(name).stem}-{digest[:32]}"
        found = cache.find(key)
        if found is not None:
            with contextlib.suppress(OSError):
                return ctypes.CDLL(str(found))
        made = cache.store(key, self._compile(name, text, flags))
        try:
            return ctypes.CDLL(str(made))
        except OSError as error:  # such as a cache folder on a disk mounted with noexec
            raise KernelError(
                f"a compiled kernel cannot be loaded: {error}; the compiler "
                f"({' '.join(self.command)}) must be one of C++ for this machine, and the cache "
                "folder one that may hold programs"
            ) from error

    def _compile(self, name: str, text: str, flags: list[str]) -> bytes:
        what = f"{PACKAGE.name}/{name}"
        try:
            with tempfile.TemporaryDirectory(prefix="kernels-") as folder:
                output = Path(folder) / "library.so"
                options = [*_FLAGS, *flags, *"-shared -x c++ - -o".split(), str(output)]
                self._run(what, options, text)
                return output.read_bytes()
        except OSError as error:
            raise KernelError(f"the library of {what} could not be made: {error}") from error

    def _run(self, what: str, options: list[str], text: str) -> str:
        command = [*self.command, *options]
        english = {**os.environ, "LC_ALL": "C"}  # its messages are searched for "error"
        try:
            done = subprocess.run(
                command, input=text, capture_output=True, text=True, errors="replace", env=english
            )
        except OSError as error:
            reason = error.strerror or str(error)
            raise KernelError(f"the compiler {self.command[0]} did not run: {reason}") from error
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["it said nothing"]
            first = next((line for line in lines if "error" in line), lines[-1])
            raise KernelError(
                f"the compiler {self.command[0]} failed on {what} "
                f"(exit status {done.returncode}): {first.strip()}"
            )
        return done.stdout


@functools.cache
def compiler() -> Compiler:
    """Return the compiler, which is searched for once per process."""
    return Compiler()
