"""No barrier of a shipped kernel can be deleted without a test of `simt` turning red."""

import shutil

import pytest

from delete_barriers import REPOSITORY, barriers, run_without, try_all


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def test_every_barrier_is_needed_and_its_deletion_is_caught(cache):
    verdicts = try_all(REPOSITORY, cache)
    survivors = [str(verdict.barrier) for verdict in verdicts if verdict.test is None]
    assert verdicts and not survivors
    # By the race check, or of an array by the NaN that was there before: not by some other failure.
    for verdict in verdicts:
        assert "SimtError" in verdict.message or "float64(nan)" in verdict.message, verdict


def test_a_barrier_that_is_not_needed_survives(cache, tmp_path):
    for name in ("kernels", "tests"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    last = barriers(tmp_path / "kernels")[-1]
    path = tmp_path / "kernels" / last.file
    lines = path.read_text().splitlines()
    lines[last.line - 1] = lines[last.line - 1].replace("__syncthreads();", "__syncthreads();" * 2)
    path.write_text("\n".join(lines) + "\n")
    added = barriers(tmp_path / "kernels")[-1]
    assert (added.file, added.line) == (last.file, last.line) and added != last
    assert run_without(added, tmp_path, cache).test is None


def test_a_barrier_is_one_in_code(tmp_path):
    (tmp_path / "some.cu").write_text(
        "// before __syncthreads();\n"
        "#define __syncthreads() wait()\n"
        "static inline void __syncthreads() {}\n"
        "if (x) { __syncthreads(); y = 1; __syncthreads(); }  // and __syncthreads();\n"
    )
    found = barriers(tmp_path)
    assert [(barrier.line, barrier.column) for barrier in found] == [(4, 9), (4, 33)]


def test_a_barrier_of_another_form_is_not_passed_over(tmp_path):
    (tmp_path / "some.cu").write_text("if (__syncthreads_or(x)) return;\n")
    with pytest.raises(AssertionError, match=r"some\.cu:1: if \(__syncthreads_or"):
        barriers(tmp_path)
