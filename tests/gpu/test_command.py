"""`python -m tests.gpu`, which runs a program on the emulated GPU."""

import subprocess
import sys


def run(*words):
    """Return what the command does with some words."""
    return subprocess.run(
        [sys.executable, "-m", "tests.gpu", *words], capture_output=True, text=True
    )


def test_a_script_runs_with_its_arguments(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sys, cupy\nprint(sys.argv[1], cupy.arange(3).sum())\n")
    assert run(str(script), "word").stdout == "word 3\n"


def test_words_that_name_no_program_are_answered_in_one_sentence():
    assert run("--help").stdout.startswith("Run a Python program on the emulated GPU.")
    missing = run("none.py")
    assert missing.returncode == 1
    assert missing.stderr == "python -m tests.gpu: there is no file none.py\n"
