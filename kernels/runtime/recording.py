"""Recordings: launches of some Python code, bound once and replayed without running the code.

A replay repeats launches and nothing else. Two checks find code that does more on the device:

- `Recording.add` refuses a launch on an array that no replay would fill: one that NumPy or CuPy
  made in the block, for example by a cast, or one from the arena that no launch has written.
- `Proof` replays from poisoned memory and compares every bit. It finds changes made without a
  launch, such as ``y *= 2``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Any

import numpy as np

from .arena import Arena
from .errors import KernelError
from .program import Parameter
from .target import Target
from .types import Array, Launch

# A context variable: what runs in a context of its own leaves none on, wherever Ctrl-C comes.
_current: ContextVar[Recording | None] = ContextVar("recording", default=None)


class Recording:
    """Records the launches of a ``with`` block, which runs once; `replay` runs them again.

    The code may do nothing on the device but launch kernels, on the same arrays every time. Its new
    arrays come from an arena, and their memory returns there with their last reference, so arrays
    that live at the same time in the code do not share memory.

    Parameters
    ----------
    arena : Arena
        May serve several recordings whose replays never overlap.
    inputs : iterable of array
        All other arrays that the code may use. The recording keeps them alive.
    counter : array (1,) of int64, optional
        Counter of steps on the device; see `stepped`.
    step : int
        Value of the counter while the code is recorded.

    Attributes
    ----------
    launches : list of Launch
        The recorded launches, valid while the recording lives: it keeps the arrays alive.
    """

    def __init__(
        self, arena: Arena, inputs: Iterable[Array], counter: Array | None = None, step: int = 0
    ) -> None:
        self.arena = arena
        self.counter = counter
        self.step = step
        self.launches: list[Launch] = []
        self._inputs: list[Array] = []
        self._ranges: list[tuple[int, int]] = []  # first and last address of the inputs
        self._unwritten: list[tuple[int, int]] = []  # the same of arena arrays not yet written
        self._replay: Launch | None = None
        for array in inputs if counter is None else (*inputs, counter):
            self.keep(array)

    def __enter__(self) -> Recording:
        """Record every launch of this thread from now on."""
        if current() is not None:
            raise KernelError("a recording is under way in this thread already")
        _current.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop recording; after an error there is nothing to replay."""
        _current.set(None)
        if error is None:
            self._replay = self.arena.target.replayer(self.launches)

    def __len__(self) -> int:
        """Return the number of launches."""
        return len(self.launches)

    def keep(self, array: Array) -> None:
        """Add an array to the inputs."""
        self._inputs.append(array)
        self._ranges.append(self._range(array))

    def made(self, array: Array) -> None:
        """Note a new array of the arena: a launch must write it before another one reads it."""
        begin, end = self._range(array)
        self._unwritten = [old for old in self._unwritten if old[1] <= begin or end <= old[0]]
        self._unwritten.append((begin, end))

    def add(
        self, launch: Launch, kernel: str, arguments: Iterable[tuple[Parameter, Array]]
    ) -> None:
        """Append a launch that has just run, with the name of its kernel and its arrays.

        Raises
        ------
        KernelError
            If an array would have other content in a replay than it had in this launch.
        """
        written = []
        for parameter, array in arguments:
            if array.size == 0:
                continue
            name = f"{kernel}: {parameter.name.rstrip('_')}"
            if parameter.const:
                self.check_read(name, array)
            else:
                self._check_known(name, array)
                written.append(self.arena.target.address(array))
        for address in written:
            self._unwritten = [old for old in self._unwritten if not old[0] <= address < old[1]]
        self.launches.append(launch)

    def check_read(self, name: str, array: Array) -> None:
        """Raise KernelError unless an array is an input, or a recorded launch has written it."""
        self._check_known(name, array)
        if _within(self._unwritten, self.arena.target.address(array)):
            raise KernelError(
                f"{name}: an array that no kernel of the recording has written, so no replay will"
            )

    def _check_known(self, name: str, array: Array) -> None:
        if self.arena.owns(array) or _within(self._ranges, self.arena.target.address(array)):
            return
        raise KernelError(
            f"{name}: an array that is no input of the recording, nor made by its kernels: a "
            "replay would find its old content; NumPy or CuPy made it, by a cast or arithmetic"
        )

    def _range(self, array: Array) -> tuple[int, int]:
        begin = self.arena.target.address(array) if array.size else 0
        return begin, begin + array.nbytes

    def replay(self) -> None:
        """Run the launches again, in order, on the arena's stream.

        Raises
        ------
        KernelError
            If an error ended the recording, or it has not ended.
        """
        if self._replay is None:
            raise KernelError("nothing was recorded to its end, so there is nothing to replay")
        with self.arena.target.on(self.arena.stream):
            self._replay()


class Rehearsal(Recording):
    """Runs the code of ``with`` blocks without launching, and notes which kernels it needs.

    Arrays that the launches would fill stay uninitialised: the code must not read their values.

    Parameters
    ----------
    arena : Arena
        That of the recordings to come, or another.

    Attributes
    ----------
    kernels : dict of Kernel to None
        The kernels, in the order of first launches.
    """

    def __init__(self, arena: Arena) -> None:
        super().__init__(arena, ())
        self.kernels: dict[Any, None] = {}

    def __exit__(self, *error: object) -> None:
        """Stop rehearsing; another block may follow."""
        _current.set(None)

    def keep(self, array: Array) -> None:
        """Do nothing: there will be no replay."""

    def made(self, array: Array) -> None:
        """Do nothing: there will be no replay."""

    def compile(self) -> None:
        """Compile the kernels that are not compiled yet, several at a time where that is faster.

        Raises
        ------
        KernelError
            If one cannot be compiled.
        """
        pending = [kernel.compile for kernel in self.kernels if not kernel.compiled]
        self.arena.target.compile(pending)


class Proof:
    """Checks that a replay from poisoned memory gives the same bits as the recorded code.

    Parameters
    ----------
    target : Target
        That of the arrays.
    state : sequence of array
        Arrays that the code changes and reads again the next time, before it runs.
    """

    def __init__(self, target: Target, state: Sequence[Array]) -> None:
        self._state = [(array, array.copy()) for array in _outermost(target, state)]

    def check(self, recordings: Sequence[Recording], results: Sequence[Array] = ()) -> None:
        """Replay recordings that share an arena, and compare the state and their results.

        Raises
        ------
        KernelError
            If there is a difference; the state is then restored to that before the code ran.
        """
        for array in results:
            recordings[-1].check_read("the result", array)
        compared = [*(array for array, _ in self._state), *results]
        expected = [array.copy() for array in compared]
        self._restore()
        recordings[0].arena.poison()
        for recording in recordings:
            recording.replay()
        if not all(map(_same_bits, compared, expected)):
            self._restore()
            raise KernelError(
                "a replay of what was recorded gives other results than its code gave: part of it "
                "is no launch of a kernel, such as an array changed by NumPy or CuPy"
            )

    def _restore(self) -> None:
        for array, values in self._state:
            if not _same_bits(array, values):  # an unchanged array may be read-only
                array[...] = values


def _outermost(target: Target, arrays: Sequence[Array]) -> list[Array]:
    """Return arrays but those whose elements are all another's, such as views of a buffer."""
    whole = [(target.address(array), array) for array in arrays if array.flags.c_contiguous]
    kept = [array for array in arrays if not array.flags.c_contiguous]
    end = -1
    for begin, array in sorted(whole, key=lambda one: (one[0], -one[1].nbytes)):
        if begin + array.nbytes > end:
            kept.append(array)
            end = begin + array.nbytes
    return kept


def _within(ranges: list[tuple[int, int]], address: int) -> bool:
    return any(first <= address < last for first, last in ranges)


def _same_bits(array: Array, other: Array) -> bool:
    whole = np.dtype(f"u{array.itemsize}")  # NaN is not equal to itself, its bits are
    return bool((array.reshape(-1).view(whole) == other.reshape(-1).view(whole)).all())


def in_order(launches: list[Launch]) -> None:
    """Run launches one after the other."""
    for launch in launches:
        launch()


def current() -> Recording | None:
    """Return this thread's current recording, or None."""
    return _current.get()


def stepped(offset: int) -> tuple[int, Array | None]:
    """Return a number and a counter whose sum, on the device, is the offset of random numbers.

    Outside of a recording these are the offset and None. In a recording, replays must draw other
    numbers: the counter grows from step to step, and number + counter is `offset` at the recorded
    step.
    """
    recording = current()
    if recording is None or recording.counter is None:
        return offset, None
    return (offset - recording.step) % 2**64, recording.counter
