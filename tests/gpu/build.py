"""Build the emulated GPU: `libcuda.so.1`, and CuPy's one extension that has CUDA linked in.

    python -m tests.gpu.build

CuPy reaches a GPU through that extension and through `libcuda.so.1`. Both are built from CuPy's own
source package and the C++ beside this file, once per user and per version of what they depend on.
Nothing in site-packages changes.
"""

from __future__ import annotations

import concurrent.futures
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

SOURCES = Path(__file__).resolve().parent
#: CuPy's version, and the SHA-256 of its source package.
CUPY = "14.2.0"
CUPY_SHA256 = "cfed725e612178cfbdbf62f4a3a598b60edecbbca718c0d4580c21a16ae4a62c"
EXTENSION = "cupy_backends.cuda.api.runtime"

#: What CuPy's own build defines for CUDA 13.
_CUPY_CONSTANTS = {
    "CUPY_CUDA_VERSION": 13000,
    "CUPY_HIP_VERSION": 0,
    "CUPY_USE_CUDA_PYTHON": False,
    "CUPY_CYTHON_VERSION": "3.2",
    "CUPY_DTYPES_VERSION": 0,
}
_FLAGS = [*(SOURCES / "machine" / "compile_flags.txt").read_text().split(), "-pthread"]
# Nothing of the runtime takes long.
_FLAGS_OF = {
    "machine": _FLAGS,
    "runtime": ["-O1" if flag == "-O3" else flag for flag in _FLAGS],
}
# What most files include, compiled once for all of them.
_COMMON = (
    "algorithm cstdint cstring deque functional limits map memory mutex set sstream stdexcept "
    "string string_view thread vector"
)
# Symbols with a version of their own, so that no other CUDA in the process takes their place.
_LINK = "-shared -pthread -Wl,--default-symver -Wl,-z,defs".split()


class MissingError(Exception):
    """The emulated GPU cannot be built here; the message says in one sentence what is missing."""


@dataclass(frozen=True)
class Built:
    """The paths of the two libraries."""

    library: Path
    extension: Path


def build() -> Built:
    """Return the libraries, from the cache or newly built.

    Raises
    ------
    MissingError
        If something that the build needs is missing.
    """
    tools = _Tools()
    files = [*_files("machine", "*.cpp", "*.h"), *_files("runtime", "*.cpp", "*.h")]
    texts = [path.read_bytes() for path in [Path(__file__), *files]]
    folder = cache() / f"device-{_digest(*texts, *tools.identity)}"
    if not folder.exists():
        with _alone():
            extension = _extension_object(tools)
            _make(folder, lambda new: _link(tools, extension, new))
    return Built(
        folder / "libcuda.so.1", folder / f"runtime{sysconfig.get_config_var('EXT_SUFFIX')}"
    )


def cache() -> Path:
    """Return the user's cache folder of the emulated GPU."""
    return user_cache_path("cnn-kernels", appauthor=False) / "emulated-gpu"


def machine() -> Path:
    """Return the library of the machine alone, which executes PTX; it needs only a C++ compiler.

    Raises
    ------
    MissingError
        If there is no compiler.
    """
    compiler = _Compiler()
    texts = [path.read_bytes() for path in _files("machine", "*.cpp", "*.h")]
    folder = cache() / f"machine-{_digest(*texts, *_FLAGS, *compiler.identity)}"
    if not folder.exists():
        with _alone():
            _make(folder, lambda new: _link_machine(compiler, new))
    return folder / "libmachine.so"


def assembler() -> Path | None:
    """Return NVIDIA's PTX compiler as a shared library, or None without its package.

    Raises
    ------
    MissingError
        If it cannot be linked.
    """
    try:
        package = importlib.metadata.distribution("nvidia-nvptxcompiler")
    except importlib.metadata.PackageNotFoundError:
        return None
    folder = cache() / f"assembler-{package.version}"
    if not folder.exists():
        (archive,) = (path for path in package.files or () if path.suffix == ".a")
        with _alone():
            _make(folder, lambda new: _link_assembler(Path(str(archive.locate())), new))
    return folder / "libnvptxcompiler.so"


class _Compiler:
    """The C++ compiler, and what its code depends on."""

    def __init__(self) -> None:
        self.command = shlex.split(os.environ.get("CXX", "")) or ["g++"]
        if shutil.which(self.command[0]) is None:
            raise MissingError(f"the C++ compiler {self.command[0]} is not there")
        self.identity = [run([*self.command, *"-march=native -dM -E -x c++ /dev/null".split()])]


class _Tools:
    """What a build needs: compilers, headers, versions."""

    def __init__(self) -> None:
        _check_cupy()
        self.python = Path(sysconfig.get_paths()["include"])
        if not (self.python / "Python.h").exists():
            raise MissingError("Python.h is not there (Debian: apt install python3-dev)")
        for module, package in (("Cython", "Cython"), ("setuptools", "setuptools")):
            if importlib.util.find_spec(module) is None:
                raise MissingError(f"the package {package} is not installed")
        self.cuda = _cuda_headers()
        self.compiler = _Compiler()
        versions = [importlib.metadata.version(name) for name in ("cython", "nvidia-cuda-runtime")]
        python = sysconfig.get_config_var("SOABI")
        self.identity = [python, *versions, *self.compiler.identity]


def _check_cupy() -> None:
    try:
        version = importlib.metadata.version("cupy-cuda13x")
    except importlib.metadata.PackageNotFoundError:
        raise MissingError("the package cupy-cuda13x is not installed") from None
    if version != CUPY:
        raise MissingError(f"cupy-cuda13x is {version}, and the emulated GPU is made for {CUPY}")


def _cuda_headers() -> Path:
    from cuda.pathfinder import find_nvidia_header_directory  # CuPy depends on it

    found = find_nvidia_header_directory("cudart")
    folder = Path(found) if found else Path()
    needed = {
        "cuda_runtime.h": "nvidia-cuda-runtime",
        "crt/host_config.h": "nvidia-cuda-crt",
        "cuda_profiler_api.h": "nvidia-cuda-profiler-api",
    }
    for header, package in needed.items():
        if not (found and (folder / header).exists()):
            raise MissingError(f"the package {package} is not installed: it has {header}")
    return folder


def _files(part: str, *patterns: str) -> list[Path]:
    return sorted(path for pattern in patterns for path in (SOURCES / part).glob(pattern))


def _extension_object(tools: _Tools) -> Path:
    """Return CuPy's extension as an object file, from the cache or newly compiled."""
    constants = repr(sorted(_CUPY_CONSTANTS.items()))
    folder = cache() / f"cupy-{_digest(CUPY, constants, *tools.identity)}"
    _make(folder, lambda new: _compile_extension(tools, new))
    return folder / "runtime.o"


def _compile_extension(tools: _Tools, folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="cupy-") as name:
        root = _unpacked(Path(name))
        run([sys.executable, "-c", _CYTHONIZE, EXTENSION, repr(_CUPY_CONSTANTS)], cwd=root)
        api = root / "cupy_backends" / "cuda" / "api"
        includes = [root, root / "cupy_backends", api, tools.cuda, tools.python]
        flags = ["-O0", "-w", "-fPIC", *(f"-I{path}" for path in includes)]
        text = root / f"{EXTENSION.replace('.', '/')}.cpp"
        command = [*tools.compiler.command, *flags, "-c", str(text)]
        run([*command, "-o", str(folder / "runtime.o")])


_CYTHONIZE = """
import ast, sys
from Cython.Build import cythonize
from setuptools import Extension

name = sys.argv[1]
extension = Extension(name, [name.replace(".", "/") + ".pyx"], language="c++")
constants = ast.literal_eval(sys.argv[2])
cythonize([extension], compile_time_env=constants, language_level=3, include_path=["."], quiet=True)
"""


def cupy_source() -> Path:
    """Return the root of CuPy's source package, from the cache or newly unpacked.

    Raises
    ------
    MissingError
        If the package cannot be downloaded.
    """
    folder = cache() / f"source-{CUPY}"
    if not folder.exists():
        _make(folder, _unpacked)
    return folder / f"cupy-{CUPY}"


def _unpacked(folder: Path) -> Path:
    """Return the root of CuPy's source package, unpacked in a folder."""
    archive = cache() / f"cupy-{CUPY}.tar.gz"
    _make(archive, _download)
    with tarfile.open(archive) as package:
        # What pip unpacks, too; its hash was checked.
        package.extractall(
            folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {})
        )
    return folder / f"cupy-{CUPY}"


def _download(target: Path) -> None:
    wanted = target / "wanted.txt"
    wanted.write_text(f"cupy=={CUPY} --hash=sha256:{CUPY_SHA256}\n")
    command = [sys.executable, *"-m pip download --quiet --no-deps --no-binary cupy".split()]
    command += ["--no-build-isolation", "--require-hashes", "-r", str(wanted), "-d", str(target)]
    # Its setup looks for no CUDA then.
    environment = {**os.environ, "CUPY_INSTALL_USE_STUB": "1"}
    run(command, environment=environment, what=f"CuPy's source package {CUPY} cannot be had")
    wanted.unlink()


def _link(tools: _Tools, extension: Path, folder: Path) -> None:
    library = folder / "libcuda.so.1"
    objects = [*_machine_objects(tools.compiler), *_runtime_objects(tools)]
    words = [*_LINK, "-Wl,-soname,libcuda.so.1", *map(str, objects), "-ldl", "-o", str(library)]
    run([*tools.compiler.command, *words])
    output = folder / f"runtime{sysconfig.get_config_var('EXT_SUFFIX')}"
    words = ["-shared", str(extension), str(library), "-Wl,-rpath,$ORIGIN", "-o", str(output)]
    run([*tools.compiler.command, *words])


def _link_machine(compiler: _Compiler, folder: Path) -> None:
    objects = map(str, _machine_objects(compiler))
    run([*compiler.command, *_LINK, *objects, "-o", str(folder / "libmachine.so")])


def _link_assembler(archive: Path, folder: Path) -> None:
    functions = "Create Compile GetInfoLogSize GetInfoLog GetErrorLogSize GetErrorLog Destroy"
    needed = [f"-Wl,-u,nvPTXCompiler{name}" for name in functions.split()]
    words = [*_LINK, "-Wl,-s", *needed, str(archive), "-ldl", "-lm"]
    run([*_Compiler().command, *words, "-o", str(folder / "libnvptxcompiler.so")])


def _machine_objects(compiler: _Compiler) -> list[Path]:
    return _objects(compiler, "machine", compiler.identity)


def _runtime_objects(tools: _Tools) -> list[Path]:
    return _objects(tools.compiler, "runtime", tools.identity, ["-isystem", str(tools.cuda)])


def _objects(
    compiler: _Compiler, part: str, identity: list[str], include: Sequence[str] = ()
) -> list[Path]:
    """Return the object files of a part's C++ files, each from the cache or newly compiled."""
    words = [*compiler.command, *_FLAGS_OF[part]]

    def compiled(source: Path) -> Path:
        texts = [path.read_bytes() for path in sorted(_included(source))]
        digest = _digest(source.read_bytes(), *texts, *_FLAGS_OF[part], *identity)
        folder = cache() / f"object-{source.stem}-{digest}"
        command = [*words, *include, "-include", str(common), "-c", str(source)]
        _make(folder, lambda new: run([*command, "-o", str(new / "object.o")]))
        return folder / "object.o"

    with (
        tempfile.TemporaryDirectory(prefix="common-") as name,
        concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as executor,
    ):
        common = Path(name) / "common.h"
        common.write_text("".join(f"#include <{header}>\n" for header in _COMMON.split()))
        run([*words, "-x", "c++-header", str(common), "-o", f"{common}.gch"])
        return list(executor.map(compiled, _files(part, "*.cpp")))


def _included(source: Path) -> set[Path]:
    """Return this folder's headers that a file includes, directly or not."""
    found: set[Path] = set()
    unread = [source]
    while unread:
        path = unread.pop()
        names = re.findall(r'^#include "(.+)"', path.read_text(), re.MULTILINE)
        new = {(path.parent / name).resolve() for name in names} - found
        found |= new
        unread += new
    return found


@contextmanager
def _alone() -> Iterator[None]:
    """Let one process at a time build; others, such as pytest's workers, then use its result."""
    try:
        cache().mkdir(parents=True, exist_ok=True)
        lock = (cache() / "lock").open("w")
    except OSError as error:
        raise MissingError(f"{cache()} cannot be written: {error.strerror}") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(path: Path, fill: Callable[[Path], Any]) -> None:
    """Make a folder, or the one file that `fill` puts in it, whole or not at all."""
    if path.exists():
        return
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as name:
            new = Path(name) / "folder"
            new.mkdir()
            fill(new)
            made = next(new.iterdir()) if path.suffix == ".gz" else new
            made.rename(path)
    except OSError as error:
        raise MissingError(f"{path} cannot be written: {error.strerror}") from error


def run(
    command: list[str],
    cwd: Path | None = None,
    environment: dict[str, str] | None = None,
    what: str = "",
) -> str:
    """Run a program and return what it prints."""
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()
        reason = next((line for line in lines if "error" in line.lower()), lines[-1])
        raise MissingError(f"{what or shlex.join(command[:4]) + ' failed'}: {reason.strip()}")
    return done.stdout


def _digest(*parts: str | bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        whole.update(len(content).to_bytes(8, "little") + content)
    return whole.hexdigest()[:24]


if __name__ == "__main__":
    try:
        print(build().library.parent)
    except MissingError as error:
        sys.exit(f"the emulated GPU cannot be built: {error}")
