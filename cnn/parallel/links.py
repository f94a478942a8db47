"""Ways in which arrays go from process to process.

Each has `all_to_all`, which returns by rank what each process has at this one's index of the first
axis, and `all_gather`, which returns the arrays of all processes stacked by rank.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from kernels.lowlevel import Array


class Link(Protocol):
    """What `MpiWorld` needs of a link."""

    def all_to_all(self, parts: Array) -> Array:
        """Return, by rank, what each process has at this one's index of the first axis."""

    def all_gather(self, piece: Array) -> Array:
        """Return the arrays of all processes, stacked by rank."""


class Mpi:
    """NumPy arrays, by MPI.

    Parameters
    ----------
    communicator : mpi4py.MPI.Comm
        The processes.
    """

    def __init__(self, communicator: Any) -> None:
        self._communicator = communicator

    def all_to_all(self, parts: Array) -> Array:
        """Return, by rank, what each process has at this one's index of the first axis."""
        received = np.empty_like(parts)
        self._communicator.Alltoall(parts, received)
        return received

    def all_gather(self, piece: Array) -> Array:
        """Return the arrays of all processes, stacked by rank."""
        pieces = np.empty((self._communicator.size, *piece.shape), piece.dtype)
        self._communicator.Allgather(piece, pieces)
        return pieces


class Nccl:
    """CuPy arrays, by NCCL, on CuPy's current stream.

    Parameters
    ----------
    backend : cupyx.distributed.NCCLBackend
        Of as many processes, each with a GPU of its own.
    size : int
        The number of processes.
    """

    def __init__(self, backend: Any, size: int) -> None:
        self._backend, self._size = backend, size

    def all_to_all(self, parts: Array) -> Array:
        """Return, by rank, what each process has at this one's index of the first axis."""
        received = np.empty_like(parts)  # NumPy leaves arrays of CuPy to CuPy
        self._backend.all_to_all(parts, received)
        return received

    def all_gather(self, piece: Array) -> Array:
        """Return the arrays of all processes, stacked by rank."""
        pieces = np.empty_like(piece, shape=(self._size, *piece.shape))
        self._backend.all_gather(piece, pieces, piece.size)
        return pieces


class ThroughHost:
    """CuPy arrays, copied to the host and back, by a link for NumPy arrays."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def all_to_all(self, parts: Array) -> Array:
        """Return, by rank, what each process has at this one's index of the first axis."""
        return _like(parts, self._link.all_to_all(parts.get()))

    def all_gather(self, piece: Array) -> Array:
        """Return the arrays of all processes, stacked by rank."""
        return _like(piece, self._link.all_gather(piece.get()))


def _like(array: Array, values: Array) -> Array:
    copied = np.empty_like(array, shape=values.shape)
    copied.set(values)
    return copied
