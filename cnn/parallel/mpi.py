"""The processes that ``mpiexec`` started, joined by MPI."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np

from kernels.lowlevel import Array

from ..files import flush_streams
from .links import Link, Mpi, Nccl, ThroughHost
from .world import World

#: Where launchers write the number of processes: Open MPI; MPICH, Intel MPI and Slurm; Slurm alone.
_SIZES = "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"

#: Seconds in which a launcher has passed on what a process has written. MPICH's drops what is
#: still in the pipe when it hears of the end.
_FORWARDING = 0.5

_alone = World()
_joined: World | None = None


def joined() -> World:
    """Return the processes of the last `join`, or this one alone."""
    return _alone if _joined is None else _joined


def join() -> World:
    """Return the processes that a launcher started with this one, or this one alone.

    An error that nobody catches ends all of them. Those that share a machine divide its cores.

    Raises
    ------
    ImportError
        If there are several, and mpi4py is missing or finds another MPI than the launcher's.
    """
    global _joined
    if _joined is not None:
        return _joined
    size = next((int(os.environ[name]) for name in _SIZES if name in os.environ), 1)
    if size == 1:
        return _alone
    needed = f"{size} processes were started, which need mpi4py and the launcher's MPI"
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        cause = " ".join(str(error).split())  # of several lines, if there is no MPI
        raise ImportError(f"{needed}: pip install 'cnn-kernels[mpi]' ({cause})") from error
    if size != MPI.COMM_WORLD.size:
        library = MPI.Get_library_version().partition("\n")[0]
        raise ImportError(f"{needed}: mpi4py has found another one, {library}")
    neighbours = MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED)
    _divide_cores(neighbours)
    world = MpiWorld(MPI.COMM_WORLD, MPI.Exception, neighbours.rank)
    _end_together(world)
    _joined = world
    return world


class MpiWorld(World):
    """Several processes, joined by MPI; between GPUs, by NCCL.

    Parameters
    ----------
    communicator : mpi4py.MPI.Comm
        The processes.
    failure : type
        Class of mpi4py's exceptions.
    place : int
        The number of this process among those on its machine, from 0.
    """

    def __init__(self, communicator: Any, failure: type[Exception], place: int) -> None:
        self.rank, self.size = communicator.rank, communicator.size
        self._communicator, self._failure, self._place = communicator, failure, place
        self._on_host = Mpi(communicator)
        self._on_gpu: Link | None = None

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, by rank."""
        with self._connected():
            of_all: list[Any] = self._communicator.allgather(value)
            return of_all

    def use_gpu(self) -> None:
        """Make one of this machine's GPUs the current one; processes share them if too few."""
        import cupy

        cupy.cuda.Device(self._place % cupy.cuda.runtime.getDeviceCount()).use()

    def stop(self, status: int) -> None:
        """End all processes at once; ``mpiexec`` returns the status."""
        flush_streams()
        time.sleep(_FORWARDING)
        self._communicator.Abort(status)

    def _all_to_all(self, parts: Array) -> Array:
        with self._connected():
            return self._link(parts).all_to_all(parts)

    def _all_gather(self, piece: Array) -> Array:
        with self._connected():
            return self._link(piece).all_gather(piece)

    def _link(self, array: Array) -> Link:
        if isinstance(array, np.ndarray):
            return self._on_host
        if self._on_gpu is None:
            self._on_gpu = self._between_gpus()
        return self._on_gpu

    def _between_gpus(self) -> Link:
        """Return NCCL where every process has it and a GPU of its own, else a way around it."""
        gpus = self.gather(_gpu())
        if None in gpus or len({*gpus}) < self.size:
            return ThroughHost(self._on_host)
        from cupyx.distributed import init_process_group

        return Nccl(init_process_group(self.size, self.rank, use_mpi=True), self.size)

    @contextmanager
    def _connected(self) -> Iterator[None]:
        try:
            yield
        except self._failure as error:
            raise ConnectionError(
                f"process {self.rank} of {self.size} has lost another one: {error}"
            ) from error


def _gpu() -> tuple[str, str] | None:
    """Return what names this process's GPU among those of all machines; None without NCCL."""
    import cupy
    from cupy.cuda import nccl

    return (os.uname().nodename, cupy.cuda.Device().pci_bus_id) if nccl.available else None


def _divide_cores(neighbours: Any) -> None:
    """Leave this process its share of the cores, unless the launcher has done so.

    Parameters
    ----------
    neighbours : mpi4py.MPI.Comm
        The processes on this machine.
    """
    if not hasattr(os, "sched_getaffinity"):  # as on macOS, where processes are not bound
        return
    cores = sorted(os.sched_getaffinity(0))
    sharing = [rank for rank, of_it in enumerate(neighbours.allgather(cores)) if of_it == cores]
    place, count = sharing.index(neighbours.rank), len(sharing)
    own = cores[place * len(cores) // count : (place + 1) * len(cores) // count]
    os.sched_setaffinity(0, own or [cores[place % len(cores)]])


def _end_together(world: MpiWorld) -> None:
    """Let an error that ends this process end the others, which would wait for it for ever."""
    shown = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        shown(kind, error, trace)
        world.stop(1)

    sys.excepthook = show
