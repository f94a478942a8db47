"""`make gpu` without a GPU: what it refuses, and what it makes of its tools' answers.

CuPy, pytest, compute-sanitizer and nvidia-smi are played by programs that answer as they do.
"""

import json
import time
from pathlib import Path

import pytest

import gpu_lane
from fresh_python import REPOSITORY, program, run

GPU_LANE = str(Path(__file__).parent / "gpu_lane.py")

CUPY = """
__version__ = "14.2.0"
class cuda:
    class runtime:
        class CUDARuntimeError(RuntimeError):
            pass
        def getDeviceCount():
            return 1
        def getDeviceProperties(number):
            return {"name": b"NVIDIA Toy 100 (2 GB)"}
        def driverGetVersion():
            return 13010
        def runtimeGetVersion():
            return 13000
    class Device:
        def __init__(self, number=0):
            self.compute_capability = "90"
    class nvrtc:
        def getVersion():
            return 13, 0
class RawModule:
    def __init__(self, code):
        self.compile = lambda: None
"""
# Counts the three kinds of results; the fast part has fewer.
PYTEST = """
import sys
counts = 'tests="9" failures="{failures}" errors="0" skipped="2"'
path = next(word for word in sys.argv if word.startswith("--junitxml=")).partition("=")[2]
open(path, "w").write("<testsuites><testsuite " + counts + "/></testsuites>")
sys.exit({failures} > 0)
"""
# Passes its program through, or reports the planted faults.
SANITIZER = """
case "$*" in *sanitizer_faults.py*) {fault};; esac
while [ "${{1#/}}" = "$1" ]; do shift; done
exec "$@"
"""
REPORTS = 'echo "========= Invalid access in $*"; exit 86'


class Machine:
    """A machine with the programs that a test gives it."""

    def __init__(self, folder, results):
        self.folder, self.results = folder, results

    def lane(self):
        """Run the lane; return exit status, standard output and error."""
        done = run(
            GPU_LANE,
            f"--results={self.results}",
            "--commit=abc123",
            PYTHONPATH=f"{self.folder}:{REPOSITORY}",
            PATH=f"{self.folder}:/usr/bin:/bin",
        )
        return done.returncode, done.stdout, done.stderr

    def document(self):
        (path,) = self.results.iterdir()
        assert path.name == "gpu-tests-nvidia-toy-100-2-gb.json"
        return json.loads(path.read_text())


@pytest.fixture
def machine(tmp_path):
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "cupy.py").write_text(CUPY)
    (folder / "pytest.py").write_text(PYTEST.format(failures=0))
    program(folder / "nvidia-smi", "echo 580.1")
    program(folder / "compute-sanitizer", SANITIZER.format(fault=REPORTS))
    return Machine(folder, tmp_path / "results")


def test_no_gpu_is_one_sentence(machine):
    (machine.folder / "cupy.py").write_text(CUPY.replace("return 1\n", "return 0\n"))
    sentence = "make gpu: there is no GPU to test on: CuPy finds no GPU\n"
    assert machine.lane() == (1, "", sentence)
    assert not machine.results.exists()


def test_all_is_well(machine):
    status, output, _ = machine.lane()
    assert status == 0, output
    document = machine.document()
    assert document["device"] == "NVIDIA Toy 100 (2 GB)"
    assert (document["driver"], document["cupy"]) == ("580.1", "14.2.0")
    assert (document["cuda_driver"], document["commit"]) == (13010, "abc123")
    assert list(document["steps"]) == ["suite", "memcheck", "racecheck"]
    for step in document["steps"].values():
        assert step.pop("seconds") >= 0
        assert step == {"outcome": "passed", "passed": 7, "failed": 0, "skipped": 2}


def test_a_failed_test_fails_the_lane(machine):
    (machine.folder / "pytest.py").write_text(PYTEST.format(failures=3))
    assert machine.lane()[0] == 1
    suite = machine.document()["steps"]["suite"]
    assert (suite["outcome"], suite["passed"], suite["failed"]) == ("failed with status 1", 4, 3)


def test_no_test_is_no_success(machine):
    text = PYTEST.format(failures=0).replace('tests="9"', 'tests="2"')
    (machine.folder / "pytest.py").write_text(text)
    assert machine.lane()[0] == 1
    assert machine.document()["steps"]["suite"]["outcome"] == "no test ran"


def test_pytest_that_crashes_fails_the_lane(machine):
    (machine.folder / "pytest.py").write_text("import os; os.abort()")
    assert machine.lane()[0] == 1
    suite = machine.document()["steps"]["suite"]
    assert (suite["outcome"], suite["passed"]) == ("failed with status -6", 0)


def test_an_error_that_compute_sanitizer_reports_fails_the_lane(machine):
    text = SANITIZER.format(fault=REPORTS) + "\n"
    text = text.replace('exec "$@"', '"$@"; exit 86')
    program(machine.folder / "compute-sanitizer", text)
    assert machine.lane()[0] == 1
    steps = machine.document()["steps"]
    assert [step["outcome"] for step in steps.values()] == ["passed", *["errors reported"] * 2]


def test_a_tool_that_misses_the_planted_fault_fails_the_lane(machine):
    program(machine.folder / "compute-sanitizer", SANITIZER.format(fault="exit 0"))
    assert machine.lane()[0] == 1
    missed = "the planted fault missing_barrier was not reported (status 0)"
    assert machine.document()["steps"]["racecheck"] == {"outcome": missed}


@pytest.mark.skipif(Path("/usr/local/cuda/bin/compute-sanitizer").exists(), reason="it is there")
def test_a_missing_compute_sanitizer_fails_the_lane(machine):
    (machine.folder / "compute-sanitizer").unlink()
    status, output, _ = machine.lane()
    reason = "compute-sanitizer is neither on PATH nor in /usr/local/cuda/bin"
    assert (status, machine.document()["steps"]["memcheck"]) == (1, {"outcome": reason})
    assert reason in output


def test_what_does_not_end_in_time_is_ended(tmp_path):
    """With all that it started, here a process that would write a file later."""
    late = tmp_path / "late"
    shell = f"(sleep 2; touch {late}) & sleep 600"
    assert gpu_lane.run(["sh", "-c", shell], time.monotonic() + 0.5) == (None, "")
    time.sleep(2)
    assert not late.exists()


def test_arrays_are_allocated_without_a_pool_under_the_tools(tmp_path):
    (tmp_path / "cupy.py").write_text(
        "class cuda:\n"
        "    def set_allocator(allocator): print('allocator', allocator)\n"
        "    def set_pinned_memory_allocator(allocator): print('pinned', allocator)\n"
    )
    assert gpu_lane.FAST[-2:] == ["-p", "without_pool"]
    path = f"{tmp_path}:{Path(__file__).parent}"
    done = run("-m", "pytest", "-p", "without_pool", "--collect-only", tmp_path, PYTHONPATH=path)
    assert done.stdout.splitlines()[:2] == ["allocator None", "pinned None"]
