"""The fast tests under a tool of compute-sanitizer that has first reported a planted fault.

python -m tests.gpu_lane.sanitizer memcheck
python -m tests.gpu_lane.sanitizer racecheck
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys

from .report import of_this_part

#: Every public function twice: all kernels, at sizes of several blocks.
FAST, CHOSEN = "tests/invariants/test_repeatability.py", "cuda and twice"
FAULT_STATUS = 86
# The padding parts arrays that would otherwise lie side by side. CUDA calls that return an error
# are CuPy's to raise or to ignore.
TOOLS = {
    "memcheck": (["--padding", "64", "--report-api-errors", "no"], "write_past_end"),
    "racecheck": ([], "missing_barrier"),
}


def main() -> int:
    """Try the tool on the fault, then run the tests under it in this process' place."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tool", choices=TOOLS)
    parser.add_argument("--emulated", action="store_true", help="let the emulated GPU be the tool")
    parser.add_argument("--only", default="", help="an expression that tests must match, too")
    options = parser.parse_args()
    report = of_this_part()
    flags, fault = TOOLS[options.tool]
    if options.emulated:
        start, wanted, plugins = [sys.executable, "-m", "tests.gpu"], 1, []
    else:
        # CUDA's own folder is seldom on PATH.
        path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/cuda/bin"])
        program = shutil.which("compute-sanitizer", path=path)
        if program is None:
            report.problem("compute-sanitizer is neither on PATH nor in /usr/local/cuda/bin")
            return report.status
        start = [program, "--tool", options.tool, "--error-exitcode", str(FAULT_STATUS), *flags]
        start, wanted = [*start, sys.executable], FAULT_STATUS
        plugins = ["-p", "tests.gpu_lane.without_pool"]  # which the emulated GPU does without
    planted = [*start, "-m", "tests.sanitizers.sanitizer_faults", fault, "cuda"]
    done = subprocess.run(planted, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != wanted or fault not in done.stdout:
        print(done.stdout)
        report.problem(f"the planted fault {fault} was not reported (status {done.returncode})")
        return report.status
    report.note(planted_fault="reported")
    words = "-m pytest -q -p no:cacheprovider -p tests.gpu_lane.counts".split()
    chosen = " and ".join(filter(None, [CHOSEN, options.only]))
    program = [sys.executable] if options.emulated else start
    sys.stdout.flush()
    os.execv(program[0], [*program, *words, *plugins, FAST, "-k", chosen])


if __name__ == "__main__":
    sys.exit(main())
