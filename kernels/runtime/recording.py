"""Recordings: the launches of some Python code, bound once and replayed without that code."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .errors import KernelError

if TYPE_CHECKING:
    from .memory import Arena
    from .target import Array

#: A launch whose arguments are checked and packed.
Launch = Callable[[], None]

_local = threading.local()


class Recording:
    """Runs the code of a ``with`` block once and keeps its launches, which `replay` runs again.

    All that the code does on the device must be launches of kernels, on the same arrays every
    time. Arrays that it makes come from an arena and go back there with their last reference, so
    the code's own lifetimes are the plan of the memory.

    Parameters
    ----------
    arena : Arena
        May serve several recordings whose replays never overlap.
    counter : array (1,) of int64, optional
        Counts the steps on the device; see `stepped`.
    step : int
        What the counter holds while the code is recorded.

    Attributes
    ----------
    launches : list of Launch
        What a replay runs, valid while the recording lives: it keeps the arrays.
    """

    def __init__(self, arena: Arena, counter: Array | None = None, step: int = 0) -> None:
        self.arena = arena
        self.counter = counter
        self.step = step
        self.launches: list[Launch] = []
        self._held: list[Array] = []  # what the launches use and the arena does not keep
        self._replay: Launch | None = None

    def __enter__(self) -> Recording:
        """Record every launch of this thread from now on."""
        if current() is not None:
            raise KernelError("a recording is under way in this thread already")
        _local.recording = self
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop; after an error there is nothing to replay."""
        _local.recording = None
        if error is None:
            self._replay = self.arena.target.replayer(self.launches)

    def __len__(self) -> int:
        """Return the number of launches."""
        return len(self.launches)

    def add(self, launch: Launch, arguments: list[Any]) -> None:
        """Append a launch that has just run."""
        self.launches.append(launch)
        self._held += [
            value for value in arguments if hasattr(value, "dtype") and not self.arena.owns(value)
        ]

    def replay(self) -> None:
        """Run the launches again, in order."""
        if self._replay is None:
            raise KernelError("nothing was recorded to its end, so there is nothing to replay")
        self._replay()


def in_order(launches: list[Launch]) -> None:
    """Run launches one after the other."""
    for launch in launches:
        launch()


def current() -> Recording | None:
    """Return the recording under way in this thread, if there is one."""
    return getattr(_local, "recording", None)


def stepped(offset: int) -> tuple[int, Array | None]:
    """Return what a kernel adds up to the offset of its random numbers: a number and a counter.

    Outside of a recording that is the offset itself and None. In one, each replay is to draw anew:
    the counter moves on from step to step, and number + counter is the offset at the step recorded.
    """
    recording = current()
    if recording is None or recording.counter is None:
        return offset, None
    return (offset - recording.step) % 2**64, recording.counter
