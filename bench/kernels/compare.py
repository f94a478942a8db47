"""Time the working tree's kernels and those of another commit, in turns.

python -m bench.kernels.compare main conv2d "dense forward"
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.kernels.rows import rows
from bench.machine import threads
from bench.peers.worker import Worker
from bench.report.condense import spread

REPOSITORY = Path(__file__).resolve().parents[2]
ROUNDS = 15


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", type=revision, help="a commit, branch or tag")
    parser.add_argument("rows", nargs="*", default=[""], help="parts of rows' names; all if none")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    chosen = [row.name for row in rows() if any(part in row.name for part in options.rows)]
    if not chosen:
        print(f"no row has {' or '.join(options.rows)} in its name", file=sys.stderr)
        return 2
    with checked_out(options.base) as tree:
        print(f"{'row':<47} {options.base[:12]:>12} {'this tree':>12} {'times as fast':>16}")
        for name in chosen:
            # Each row has its own processes: a fault in one does not end the others.
            try:
                print(line(name, *timed(name, tree, options.rounds)), flush=True)
            except RuntimeError as error:
                print(f"{name:<47} {error}", flush=True)
    return 0


def revision(text: str) -> str:
    """Return the name of a commit, branch or tag that the repository has."""
    words = ["rev-parse", "--verify", "--end-of-options", f"{text}^{{commit}}"]
    if subprocess.run(["git", "-C", str(REPOSITORY), *words], capture_output=True).returncode:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a commit, branch or tag")
    return text


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """Check out only a commit's kernels, in a temporary folder."""
    git = ["git", "-C", str(REPOSITORY), "worktree"]
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder).resolve() / "base"
        words = ["add", "--quiet", "--detach", "--no-checkout", str(tree), commit]
        subprocess.run([*git, *words], check=True)
        try:
            words = ["checkout", "--quiet", "HEAD", "--", "kernels"]
            subprocess.run(["git", "-C", str(tree), *words], check=True)
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def timed(name: str, base: Path, rounds: int) -> tuple[list[float], list[float]]:
    """Return the seconds of a row's samples in the base and here; who goes first alternates."""
    with (
        Worker("kernels.worker_kernels", threads(), str(base), tree=base) as before,
        Worker("kernels.worker_kernels", threads(), str(REPOSITORY)) as after,
    ):
        workers = [before, after]
        samples: list[list[float]] = [[], []]
        for worker in workers:
            worker.call("prepare", name=name)
        for turn in range(rounds):
            for which in (0, 1) if turn % 2 else (1, 0):
                samples[which].append(workers[which].call("sample"))
    return samples[0], samples[1]


def line(name: str, before: list[float], after: list[float]) -> str:
    """Return both medians and the ratio with its noise; "=" if it is within twice the noise."""
    ratios = [b / a for b, a in zip(before, after, strict=True)]
    ratio, noise = statistics.median(ratios), spread(ratios)
    verdict = "=" if abs(ratio - 1) <= 2 * noise * ratio else "faster" if ratio > 1 else "slower"
    times = [f"{statistics.median(s) * 1e6:9,.0f} µs" for s in (before, after)]
    return f"{name:<47} {times[0]:>12} {times[1]:>12} {ratio:6.2f}x ±{noise:4.0%}  {verdict}"


if __name__ == "__main__":
    sys.exit(main())
