"""Run the kernels under GCC's sanitizers, after a check that these report planted faults.

    make sanitize

AddressSanitizer and UndefinedBehaviorSanitizer watch the kernel tests on `cpu`, with a red zone on
both sides of every array. ThreadSanitizer watches the block pool of `cpu`: in a C++
program, thread_pool_stress.cpp, and under Python threads that build, load and launch every kernel
at once. Of the cache of compiled libraries it sees the loading, no more: the rest is Python and
files, which test_cache.py and test_runtime.py try with several threads and processes.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from kernels.runtime import Source, cpu_target
from kernels.runtime.program import PACKAGE
from tests.sanitizers.sanitizer_faults import RACE, RACE_REPORT, REPORTS, line

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
BUILD = REPOSITORY / "build" / "sanitize"
LOGS = BUILD / "reports"  # a file for every process that a sanitizer complains of

FAULTS = "tests.sanitizers.sanitizer_faults"

# Those that start no Python of their own, which would lack the sanitizer.
KERNEL_TESTS = [
    *(f"tests/kernels/test_{name}.py" for name in "conv2d conv2d_pool winograd im2col".split()),
    *(
        f"tests/kernels/test_{name}.py"
        for name in "pool batchnorm dense dense_loss softmax cases".split()
    ),
    *(f"tests/kernels/test_{name}.py" for name in "elementwise dropout augment batch".split()),
    "tests/invariants/test_repeatability.py::test_twice_gives_the_same_bits",
]
THREAD_TESTS = [
    "tests/invariants/test_repeatability.py::test_python_threads_do_not_disturb_each_other",
    "tests/kernels/test_runtime.py::test_concurrent_callers_get_their_own_results",
]
_NO_RANDOM_ADDRESSES = 0x0040000  # ADDR_NO_RANDOMIZE of personality(2)


class SanitizeError(Exception):
    """A sanitizer is not there, a planted fault went unseen, or a real one was found."""


@dataclass(frozen=True)
class Sanitizer:
    """What to compile kernels with, what to load into Python, and the options of the latter."""

    flags: str
    libraries: tuple[str, ...]
    options: dict[str, str]

    def environment(self) -> dict[str, str]:
        """Return the variables of a Python process that it watches."""
        log = f"log_path={LOGS}/report"
        return {
            "CXX": f"{gcc()} -g1 {self.flags}",
            "LD_PRELOAD": " ".join(library(name) for name in self.libraries),
            "KERNELS_CACHE_DIR": str(BUILD / "cache"),
            "KERNELS_THREADS": "4",
            "PYTHONMALLOC": "malloc",  # Python's own would take many arrays from one block
            "PYTHONPATH": str(REPOSITORY),
            **{name: f"{value}:{log}" for name, value in self.options.items()},
        }


# Leaks: Python's own, at exit. Use after return: its shadow stacks do not align variables to 64
# bytes, as registers need. Aborting makes Python say in which test it was.
ADDRESS = Sanitizer(
    "-fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all",
    ("libasan.so", "libubsan.so"),
    {
        "ASAN_OPTIONS": "abort_on_error=1:detect_leaks=0:detect_stack_use_after_return=0",
        "UBSAN_OPTIONS": "abort_on_error=1:print_stacktrace=1",
    },
)
THREAD = Sanitizer(
    "-fsanitize=thread", ("libtsan.so",), {"TSAN_OPTIONS": "abort_on_error=1:halt_on_error=1"}
)


def main() -> int:
    """Run every step and return the exit status."""
    try:
        for sanitizer in (ADDRESS, THREAD):
            sanitizer.environment()  # raises where a library is not there
        shutil.rmtree(BUILD, ignore_errors=True)
        LOGS.mkdir(parents=True)
        for step in (planted_faults, kernel_tests, block_pool, python_threads):
            started = time.monotonic()
            print(f"{step.__doc__} ...", flush=True)
            print(f"  {step()} ({time.monotonic() - started:.0f} s)", flush=True)
    except SanitizeError as error:
        print(f"make sanitize: {error}", file=sys.stderr)
        return 1
    return 0


def planted_faults() -> str:
    """Faults that AddressSanitizer and UndefinedBehaviorSanitizer must report"""
    succeeds(start(ADDRESS, FAULTS, "red_zones"))
    for fault, report in REPORTS.items():
        reported(start(ADDRESS, FAULTS, fault, "cpu"), report, line(fault))
    return f"red zones are there, {len(REPORTS)} faults reported"


def kernel_tests() -> str:
    """The kernel tests on cpu, with AddressSanitizer and UndefinedBehaviorSanitizer"""
    cores = len(os.sched_getaffinity(0))
    shares = filter(None, (KERNEL_TESTS[core::cores] for core in range(cores)))
    return succeeds(*[start(ADDRESS, *pytest(*share)) for share in shares])


def block_pool() -> str:
    """The block pool in C++, with ThreadSanitizer"""
    launches = BUILD / "dense.cpp"
    source = next(source for source in Source.all if source.name == "gemm/dense.cu")
    constants = source.constants(cpu_target(), "float32")
    launches.write_text(source.library("dense_forward", constants))
    texts = [HERE / "thread_pool_stress.cpp", PACKAGE / "runtime" / "thread_pool.cpp", launches]
    programs = []
    for name, flags in (("raced", ["-DPLANTED_RACE"]), ("stress", [])):
        programs.append(str(BUILD / name))
        options = f"-std=c++17 -O1 -g -pthread {THREAD.flags}".split() + flags
        options.append(f"-I{PACKAGE}")
        compiled = [*shlex.split(gcc()), *options, *map(str, texts), "-o", programs[-1]]
        succeeds(run(compiled, {}))
    environment = {name: THREAD.environment()[name] for name in THREAD.options}
    raced, stress = programs
    reported(run([raced, "4"], environment), RACE_REPORT, "thread_pool_stress.cpp")
    sizes = "2 3 8".split()
    for threads in sizes:
        succeeds(run([stress, threads], environment))
    return f"a planted race reported, pools of {', '.join(sizes)} threads without one"


def python_threads() -> str:
    """Python threads that build, load and launch every kernel at once, with ThreadSanitizer"""
    reported(start(THREAD, FAULTS, RACE, "cpu"), RACE_REPORT, line(RACE))
    done = succeeds(start(THREAD, *pytest(*THREAD_TESTS)))
    return f"a planted race reported, {done}"


def pytest(*arguments: str) -> list[str]:
    """Return the words that run tests, but for those on a GPU."""
    # UndefinedBehaviorSanitizer writes to the process' own stderr: pytest must not capture that.
    # The thread that waits for a test's time to be over would never end under ThreadSanitizer.
    words = "pytest -q -p no:cacheprovider --capture=sys --tb=short".split()
    words += "-o faulthandler_timeout=0 -k".split()
    return [*words, "not cuda", *arguments]


def start(sanitizer: Sanitizer, *arguments: str) -> subprocess.Popen[str]:
    """Start a Python module that a sanitizer watches."""
    return run(
        [sys.executable, "-m", "tests.sanitizers.sanitized", *arguments], sanitizer.environment()
    )


def run(command: list[str], changes: dict[str, str]) -> subprocess.Popen[str]:
    """Start a program in the checkout's folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KERNELS_")}
    return subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=kept | changes,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=_fix_addresses,
    )


def _fix_addresses() -> None:
    """Load every library at the same place: of more random ones the older sanitizers despair."""
    ctypes.CDLL(None).personality(_NO_RANDOM_ADDRESSES)


def succeeds(*processes: subprocess.Popen[str]) -> str:
    """Return the last line that each process prints; all must succeed, nothing be reported."""
    outputs = [process.communicate()[0] for process in processes]
    reports = take_reports()
    failed_first = sorted(
        zip(processes, outputs, strict=True), key=lambda it: it[0].returncode == 0
    )
    for process, output in failed_first:
        if process.returncode != 0 or reports or "runtime error:" in output:
            raise SanitizeError(
                f"{shlex.join(process.args)}\n"
                f"ended with status {process.returncode}\n{output}{reports}"
            )
    return "; ".join(output.strip().rpartition("\n")[2] for output in outputs)


def reported(process: subprocess.Popen[str], *expected: str) -> None:
    """Check that a process ends with a report that says what is expected."""
    output = process.communicate()[0]
    output += take_reports()
    if process.returncode == 0 or not all(words in output for words in expected):
        raise SanitizeError(
            f"a planted fault was not reported: {shlex.join(process.args)}\n"
            f"ended with status {process.returncode}, expected a report with {expected}\n{output}"
        )


def take_reports() -> str:
    """Return what the sanitizers wrote since the last time."""
    texts = []
    for path in sorted(LOGS.iterdir()):
        texts.append(path.read_text(errors="replace"))
        path.unlink()
    return "".join(texts)


def gcc() -> str:
    """Return the command of the C++ compiler: $CXX or g++."""
    return os.environ.get("CXX", "").strip() or "g++"


def library(name: str) -> str:
    """Return the path of one of the compiler's own libraries."""
    command = [*shlex.split(gcc()), f"-print-file-name={name}"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        found = name
    if not os.path.isabs(found):
        raise SanitizeError(
            f"{gcc()} has no {name}: name a GCC that has its sanitizers' libraries in CXX "
            "(Debian and Ubuntu: apt install g++)"
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
