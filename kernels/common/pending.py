"""Partial sums of gradients that the launch which uses the gradients adds up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ..runtime import Array, Target
from ..runtime.elementwise import SEGMENTS

#: The kernels' arguments for gradients without partial sums.
NOTHING: tuple[Array | None, ...] = (None,) * (1 + SEGMENTS)

_collecting: ContextVar[PendingSums | None] = ContextVar("collecting", default=None)


class PendingSums:
    """Takes partial sums of gradients that lie in one array, until an optimizer adds them up.

    Parameters
    ----------
    target : Target
        What the arrays are on.
    gradients : array
        Flat; until the optimizer's launch, what it holds of these gradients is undefined.
    """

    def __init__(self, target: Target, gradients: Array) -> None:
        self._target, self._gradients = target, gradients
        self._segments: list[tuple[int, ...]] = []  # those of pending.cuh
        self._partial: list[Array] = []

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Take the sums of the gradients that are computed in a ``with`` block, in this thread.

        Nothing in the block may read these gradients.
        """
        token = _collecting.set(self)
        try:
            yield
        finally:
            _collecting.reset(token)

    def takes(self, partial: Array, results: list[Array]) -> bool:
        """Take partial sums (parts, elements) of results; return whether they were taken.

        They are if the results lie in these gradients, and a launch can take as many segments. A
        part holds the results one after the other; results that lie so here, too, are one segment.
        """
        address, whole = self._target.address, self._gradients
        segments: list[tuple[int, int]] = []  # where each begins, and ends
        for result in results:
            begin = (address(result) - address(whole)) // whole.itemsize
            if result.dtype != whole.dtype or not 0 <= begin <= whole.size - result.size:
                return False
            first = segments.pop()[0] if segments and segments[-1][1] == begin else begin
            segments.append((first, begin + result.size))
        if len(partial) == 0 or len(self._partial) + len(segments) > SEGMENTS:
            return False
        parts, done = partial.reshape(len(partial), -1), 0
        for begin, end in segments:
            self._segments.append((begin, end - begin, *parts.shape))
            self._partial.append(parts.reshape(-1)[done:])
            done += end - begin
        return True

    def arguments(self) -> tuple[Array | None, ...]:
        """Return the kernels' arguments for what was taken."""
        if not self._partial:
            return NOTHING
        segments = self._target.kept((len(self._segments), 4), "int32")
        segments[...] = self._target.array(self._segments, "int32")
        return (segments, *self._partial, *NOTHING[1 + len(self._partial) :])


def take_up(partial: Array, results: list[Array]) -> bool:
    """Offer partial sums to the `PendingSums` that this thread collects; return if it took them."""
    collecting = _collecting.get()
    return collecting is not None and collecting.takes(partial, results)
