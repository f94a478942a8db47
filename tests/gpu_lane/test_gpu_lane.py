"""`make gpu`: how it goes through its parts, and what the parts find, on the emulated GPU."""

import importlib
import json
import sys
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from kernels.runtime import cuda_target
from kernels.runtime.cuda import unavailable
from kernels.runtime.program import Parameter
from tests.gpu import device, gpus, profile
from tests.gpu_lane import __main__ as lane
from tests.gpu_lane import bits, launches, report, steps, times
from tests.gpu_lane.undefined import undefined
from tests.lib.calls import CALLS
from tests.lib.fresh_python import REPOSITORY, program, run

HEAD = {"commit": "abc123"}
H100 = gpus.GPUS["h100"]
DEVICE = "report.note(device='NVIDIA Toy 100 (2 GB)')"


# --- the parts, one after the other


def part(*lines, seconds=60):
    """Return a part that runs a few lines of Python, its report at hand."""
    text = "\n".join(
        ["from tests.gpu_lane.report import of_this_part", "report = of_this_part()", *lines]
    )
    return [sys.executable, "-c", text], seconds


def run_lane(folder, budget=60, **parts):
    """Run parts, and return the exit status and the results' file as it is then."""
    status = lane.run_parts({"smoke": part(DEVICE), **parts}, HEAD, folder, budget)
    return status, json.loads((folder / "gpu-nvidia-toy-100-2-gb.json").read_text())


def test_parts_that_pass_are_recorded(tmp_path):
    status, document = run_lane(tmp_path, bits=part("report.note(launches=3)"))
    assert status == 0 and document["commit"] == "abc123" and document["seconds"] >= 0
    smoke, bits_ = document["parts"]["smoke"], document["parts"]["bits"]
    assert (smoke["outcome"], smoke["device"]) == ("passed", "NVIDIA Toy 100 (2 GB)")
    assert bits_ == {"outcome": "passed", "seconds": bits_["seconds"], "launches": 3}


def test_parts_that_fail_let_the_next_ones_run(tmp_path):
    status, document = run_lane(
        tmp_path,
        one=part("report.problem('it is wrong')", "raise SystemExit(report.status)"),
        several=part("report.problem('a')", "report.problem('b')"),
        crash=part("import os", "os.abort()"),
        last=part("pass"),
    )
    outcomes = [part["outcome"] for part in document["parts"].values()]
    expected = ["it is wrong", "2 problems", "failed with status -6", "passed"]
    assert (status, outcomes) == (1, ["passed", *expected])


def test_results_are_there_after_each_part(tmp_path):
    file = tmp_path / "gpu-nvidia-toy-100-2-gb.json"
    looks = part(f"import json; report.note(found=json.load(open('{file}')))")
    _, document = run_lane(tmp_path, one=part("report.note(a=1)"), two=looks)
    assert document["parts"]["two"]["found"]["parts"]["one"]["a"] == 1


def test_what_does_not_end_in_time_is_ended_with_all_that_it_started(tmp_path):
    late = tmp_path / "late"
    hangs = part(
        "report.note(compared=7)",
        "import subprocess, time",
        f"subprocess.Popen(['sh', '-c', 'sleep 3; touch {late}'])",
        "time.sleep(600)",
        seconds=2,
    )
    status, document = run_lane(tmp_path, bits=hangs, last=part("pass"))
    found = document["parts"]["bits"]
    assert (status, found["outcome"], found["compared"]) == (1, "out of time", 7)
    assert document["parts"]["last"]["outcome"] == "passed"
    time.sleep(2)
    assert not late.exists()


def test_the_budget_is_for_all_together(tmp_path):
    hangs = part("import time; time.sleep(600)")
    status, document = run_lane(tmp_path, budget=2, one=hangs, two=part("pass"))
    outcomes = [part["outcome"] for part in document["parts"].values()]
    assert (status, outcomes) == (1, ["passed", "out of time", "not begun: out of time"])


def test_the_budget_is_eight_minutes():
    assert lane.BUDGET_SECONDS <= 480
    # A part that takes all its time leaves some for the most important ones behind it.
    assert sum(part.seconds for part in lane.PARTS.values()) <= 1.2 * lane.BUDGET_SECONDS


@pytest.mark.parametrize("form", ["words", "rehearsal"])
@pytest.mark.parametrize("name", lane.PARTS)
def test_parts_are_programs_that_take_their_words(name, form, monkeypatch, capsys):
    module, *words = getattr(lane.PARTS[name], form).split()
    if module == "pytest":
        assert Path(REPOSITORY, words[words.index("-k") - 1]).exists()
        return
    main = importlib.import_module(module).main
    monkeypatch.setattr(sys, "argv", [module, *words, "--help"])
    if name == "smoke":  # it takes none
        assert not words
        return
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0 and "usage" in capsys.readouterr().out


def test_no_gpu_is_one_sentence(tmp_path):
    text = "class cuda:\n class runtime:\n  CUDARuntimeError = OSError\n  getDeviceCount = int\n"
    (tmp_path / "cupy.py").write_text(text)
    results = tmp_path / "results"
    done = run(
        "-m", "tests.gpu_lane", f"--results={results}", PYTHONPATH=f"{tmp_path}:{REPOSITORY}"
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "there is no GPU to test on: CuPy finds no GPU" in done.stdout.splitlines()
    assert not results.exists()


# --- tests, and tools that look for faults


def run_part(tmp_path, *words, **environment):
    """Run a part and return its exit status, what it printed and what it found."""
    file = tmp_path / "report.json"
    environment = {"PYTHONPATH": REPOSITORY, report.VARIABLE: file} | environment
    done = run(*words, **environment)
    return done.returncode, done.stdout, report.read(file)


COUNTED = """
import pytest
def test_passes(): pass
def test_fails(): assert False
def test_is_skipped(): pytest.skip("why")
@pytest.fixture
def broken(): raise OSError
def test_cannot_begin(broken): pass
"""


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["one process", "workers"])
def test_tests_are_counted(tmp_path, workers):
    (tmp_path / "test_it.py").write_text(COUNTED)
    words = [*lane.PYTEST.split(), *workers, "--rootdir", tmp_path, tmp_path / "test_it.py"]
    status, _, found = run_part(tmp_path, "-m", *map(str, words))
    assert status == 1
    problems = sorted(found.pop("problems"))
    assert found == {"passed": 1, "failed": 2, "skipped": 1}
    assert [name.partition("::")[2] for name in problems] == [
        "test_cannot_begin failed",
        "test_fails failed",
    ]


def test_no_test_is_no_success(tmp_path):
    (tmp_path / "test_it.py").write_text("import pytest\ndef test(): pytest.skip('why')")
    words = [*lane.PYTEST.split(), "--rootdir", tmp_path, tmp_path / "test_it.py"]
    found = run_part(tmp_path, "-m", *map(str, words))[2]
    assert found["problems"] == ["no test ran"]


# Passes its program through, or reports the planted faults.
SANITIZER = """
case "$*" in *sanitizer_faults*) {fault};; esac
while [ "${{1#/}}" = "$1" ]; do shift; done
exec "$@"
"""
REPORTS = 'echo "========= Invalid access in $*"; exit 86'
#: What plays pytest: one test passes.
PYTEST = "import os, json; json.dump({'passed': 1}, open(os.environ['GPU_LANE_REPORT'], 'w'))"


@pytest.fixture
def sanitize(tmp_path):
    """Run the fast tests under a tool that says this of the planted fault."""

    def sanitized(tool, fault):
        folder = tmp_path / "programs"
        folder.mkdir()
        (folder / "pytest.py").write_text(PYTEST)
        if fault is not None:
            program(folder / "compute-sanitizer", SANITIZER.format(fault=fault))
        path = {"PATH": f"{folder}:/usr/bin:/bin", "PYTHONPATH": f"{folder}:{REPOSITORY}"}
        return run_part(tmp_path, "-m", "tests.gpu_lane.sanitizer", tool, **path)

    return sanitized


@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_a_tool_that_reports_the_planted_fault_is_believed(sanitize, tool):
    status, _, found = sanitize(tool, REPORTS)
    assert (status, found) == (0, {"passed": 1})


def test_a_tool_that_misses_the_planted_fault_is_not(sanitize):
    status, _, found = sanitize("racecheck", "exit 0")
    missed = "the planted fault missing_barrier was not reported (status 0)"
    assert (status, found) == (1, {"problems": [missed]})


@pytest.mark.skipif(Path("/usr/local/cuda/bin/compute-sanitizer").exists(), reason="it is there")
def test_a_missing_compute_sanitizer_is_a_problem(sanitize):
    reason = "compute-sanitizer is neither on PATH nor in /usr/local/cuda/bin"
    assert sanitize("memcheck", None)[::2] == (1, {"problems": [reason]})


def test_arrays_are_allocated_without_a_pool_under_the_tools(tmp_path):
    (tmp_path / "cupy.py").write_text(
        "class cuda:\n"
        "    def set_allocator(allocator): print('allocator', allocator)\n"
        "    def set_pinned_memory_allocator(allocator): print('pinned', allocator)\n"
    )
    path = f"{tmp_path}:{REPOSITORY}"
    done = run(
        "-m",
        "pytest",
        "-p",
        "tests.gpu_lane.without_pool",
        "--collect-only",
        tmp_path,
        PYTHONPATH=path,
    )
    assert done.stdout.splitlines()[:2] == ["allocator None", "pinned None"]


# --- bits


@pytest.fixture
def cuda():
    reason = unavailable()
    if reason is not None:
        pytest.skip(reason)
    return cuda_target()


@pytest.fixture
def found(tmp_path):
    """The report of a part that runs in this process."""
    return report.Report(tmp_path / "report.json")


def compare(found, target, name, dtype="float32"):
    comparison = bits.Comparison(found)
    comparison.program = name
    with launches.each(comparison.launch):
        bits.run_call(target, CALLS[name], dtype)
    return found.found


def test_launches_are_the_same_bits_on_the_machine(cuda, found):
    # Arrays that are updated, arrays of whole numbers, a structure, scalars of both types.
    for name in ("sgd_step", "max_pool2d", "softmax_cross_entropy"):
        compare(found, cuda, name)
        assert found.found["launches"] == found.found["same_bits"] > 0
    assert found.status == 0 and "differences" not in found.found


def test_a_step_is_compared_launch_by_launch(cuda, found):
    comparison = bits.Comparison(found)
    with launches.each(comparison.launch):
        steps.record("speedrun", 2)
    assert found.status == 0
    assert found.found["launches"] == found.found["same_bits"] == 10


def another(monkeypatch, old, new):
    """Have the machine execute other PTX than the GPU does."""
    ptx = bits._ptx
    monkeypatch.setattr(bits, "_ptx", lambda *text: ptx(*text).replace(old, new))


def test_another_bit_is_a_problem_where_ptx_defines_all(cuda, found, monkeypatch):
    another(monkeypatch, "fma.rn.ftz.f32", "fma.rz.ftz.f32")
    (problem,) = compare(found, cuda, "dense")["problems"]
    assert problem.startswith("dense: y: ") and problem.endswith("though PTX defines every bit")


def test_another_last_bit_is_none_where_ptx_leaves_it_open(cuda, found, monkeypatch):
    another(monkeypatch, "rcp.rn", "rcp.rz")
    result = compare(found, cuda, "softmax")
    assert found.status == 0 and result["near"] == 1
    (difference,) = result["differences"]
    assert difference["because"] == ["ex2.approx.ftz.f32"]


def test_other_numbers_are_a_problem_everywhere(cuda, found, monkeypatch):
    another(monkeypatch, "ex2.approx.ftz.f32", "sqrt.approx.ftz.f32")
    (problem,) = compare(found, cuda, "softmax")["problems"]
    assert "expected 2.0e-05 at most" in problem


def test_arrays_that_overlap_are_one_on_the_machine(cuda):
    whole = cuda.array(np.arange(100, dtype=np.float32))
    pointer = Parameter("x", "T", pointer=True, const=False)
    arguments = [(pointer, array) for array in (whole[3:40], whole[20:], None)]
    launch = launches.Launch(None, "", {}, (1, 1, 1), 1, 0, arguments, lambda: None)
    memory = bits.Memory(bits.Machine(str(bits.build.machine())), launch)
    x, y, z = (argument.value for argument in memory.arguments())
    assert (y - x, z, x % 256) == (4 * 17, 0, whole[3:].data.ptr % 256)
    assert (memory.content(whole[20:]) == np.arange(20, 100)).all()


PTX = """
.visible .entry sum(
    .param .u64 p
)
{{
    {body}
    ret;
}}
"""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("add.f32 %f3, %f1, %f2; fma.rn.f32 %f4, %f3, %f3, %f1;", []),
        ("mul.f32 %f3, %f1, %f2;\n add.f32 %f4, %f2, %f1;", []),  # of something else
        (
            "mul.ftz.f32 %f3, %f1, %f2;\n@%p1 add.ftz.f32 %f4, %f4, %f3;",
            ["mul.ftz.f32 + add.ftz.f32"],
        ),
        (
            "mul.f64 %fd3, %fd1, %fd2;\n mov.f64 %fd5, %fd3;\n sub.f64 %fd4, %fd5, %fd1;",
            ["mul.f64 + sub.f64"],
        ),
        ("mul.rn.f32 %f3, %f1, %f2;\n add.f32 %f4, %f4, %f3;", []),
        ("mul.f32 %f3, %f1, %f2;\n add.rn.f32 %f4, %f4, %f3;", []),
        ("mul.lo.s32 %r3, %r1, %r2;\n add.s32 %r4, %r4, %r3;", []),
        ("add.f32 %f4, %f4, %f3;\n mul.f32 %f3, %f1, %f2;\n bra LOOP;", ["mul.f32 + add.f32"]),
        ("rsqrt.approx.ftz.f32 %f1, %f2;", ["rsqrt.approx.ftz.f32"]),
        ("div.full.f32 %f1, %f2, %f3;", ["div.full.f32"]),
        ("div.rn.f32 %f1, %f2, %f3;\n sqrt.rn.f32 %f1, %f2;", []),
        ("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%r1}, {%r2}, {%r3}, {%r4};", []),
    ],
)
def test_what_ptx_leaves_open(body, expected):
    assert undefined(PTX.format(body=body.replace("; ", ";\n")), "sum") == expected


# --- times


@pytest.fixture
def row(cuda, undivided):
    """A small row of the benchmark as the profile has it, and how to time it."""
    if device.real_gpu():
        pytest.skip("the GPU is a real one")
    options = Namespace(images=2, elements=1000, only="dense forward: odd sizes")
    ((name, counted, about),) = profile.counted_kernels(options)
    return json.loads(json.dumps(profile.described(name, counted, H100, about)))


def test_a_call_and_its_launches_are_timed_beside_their_bounds(row, found):
    times.Timing(found, H100, repeat=2).row(row)
    (timed,) = found.found["rows"]
    (launch,) = timed["launches"]
    assert found.status == 0 and launch["kernel"] == "dense_forward"
    # The bound is taken again of the counts, and is the profile's.
    assert (
        timed["bound_us"]
        == launch["bound_us"]
        == pytest.approx(1e6 * row["bound"]["seconds"], rel=1e-3)
    )
    assert timed["us"] > timed["bound_us"] and launch["us"] > launch["bound_us"]


def test_a_time_below_its_bound_is_a_problem(row, found):
    row["launches"][0]["longest_warp"] = 10**12
    times.Timing(found, H100, repeat=2).row(row)
    of_row, of_launch = found.found["problems"]
    assert "us, below the bound of 505050505.05 us that comes from longest warp" in of_launch
    assert of_row.startswith("dense forward: odd sizes: ")
    assert of_launch.startswith("dense forward: odd sizes: dense_forward: ")


def test_a_profile_of_other_launches_is_a_problem(row, found):
    row["launches"][0]["grid"][0] += 1
    times.Timing(found, H100, repeat=2).row(row)
    assert found.found["problems"] == [
        "dense forward: odd sizes: the profile is of other launches: make profile"
    ]


def test_a_step_is_timed_as_one_graph(cuda, found, monkeypatch):
    if device.real_gpu():
        pytest.skip("the GPU is a real one")
    monkeypatch.setattr(times, "ROUNDS", 1)
    counted = profile.counted_step("speedrun", 2)
    row = profile.described("training step: speedrun, batch 2", counted, H100, {})
    times.Timing(found, H100, repeat=2).row(json.loads(json.dumps(row)))
    assert found.status == 0
    (timed,) = found.found["rows"]
    assert len(timed["launches"]) == len(counted["launches"])
    assert timed["us"] > timed["bound_us"] > 0


def test_gpus_are_known_by_their_names():
    assert gpus.of_device("NVIDIA H200") == (gpus.H200, "h100")
    assert gpus.of_device("NVIDIA A100-SXM4-40GB") == (gpus.GPUS["a100"], "a100")
    assert gpus.of_device("NVIDIA A100-SXM4-80GB") is None  # other memory
    assert gpus.H200.dram > H100.dram


# --- all of it


@pytest.mark.slow
def test_a_rehearsal_goes_through_every_part(tmp_path):
    """Every part, on the emulated GPU, as `make gpu REHEARSE=h100` does it."""
    if unavailable() or device.real_gpu():
        pytest.skip("the GPU is a real one, or none at all")
    done = run("-m", "tests.gpu_lane", "--rehearse=h100", f"--results={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.iterdir()
    assert path.name == "gpu-rehearsal-nvidia-h100-80gb-hbm3-emulated.json"
    parts = json.loads(path.read_text())["parts"]
    assert list(parts) == list(lane.PARTS)
    assert {part["outcome"] for part in parts.values()} == {"passed"}
    assert parts["suite"]["passed"] > 0 and len(parts["training"]["trainings"]) == 2
