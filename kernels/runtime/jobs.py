"""Threads of this process: how many, and jobs that they share."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

from .errors import KernelError

_MOST_THREADS = 1024


def thread_count() -> int:
    """Return how many threads to use: ``$KERNELS_THREADS``, or the cores this process may use.

    Raises
    ------
    KernelError
        If the variable is no whole number from 1 to 1024.
    """
    chosen = os.environ.get("KERNELS_THREADS")
    if not chosen:
        return len(os.sched_getaffinity(0))  # in a container or batch job, less than cpu_count()
    if not chosen.isdecimal() or not 1 <= int(chosen) <= _MOST_THREADS:
        raise KernelError(
            f"KERNELS_THREADS: got {chosen!r}, expected a whole number from 1 to {_MOST_THREADS}"
        )
    return int(chosen)


def run(jobs: Iterable[Callable[[], Any]]) -> None:
    """Run independent jobs in threads; after an error or Ctrl-C, start no more of them."""
    from concurrent.futures import ThreadPoolExecutor

    jobs = list(jobs)
    if not jobs:
        return
    failed = threading.Event()

    def guarded(job: Callable[[], Any]) -> None:
        try:
            if not failed.is_set():
                job()
        except BaseException:
            failed.set()  # here: this thread takes its next job before the caller knows
            raise

    executor = ThreadPoolExecutor(thread_count())
    try:
        for result in [executor.submit(guarded, job) for job in jobs]:
            result.result()
    finally:
        executor.shutdown(cancel_futures=True)
