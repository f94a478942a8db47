"""What goes between processes: by MPI, by NCCL, or through the host.

NCCL needs a GPU for each process: a stand-in takes its place, with the methods and parameters of
CuPy's.
"""

import inspect
import sys
import threading
import types
import warnings

import numpy as np
import pytest

from cnn import SGD, Sequential, Trainer
from cnn.parallel import mpi
from cnn.parallel.links import Mpi, Nccl, ThroughHost
from tests.lib.planned import bits, noise, normalised
from tests.lib.support import host
from tests.lib.thread_world import in_threads


class StandIn:
    """What `Nccl` calls of CuPy's NCCLBackend, among threads."""

    def __init__(self, world):
        self._world = world

    def all_to_all(self, in_array, out_array, stream=None):
        assert out_array.shape == in_array.shape and len(in_array) == self._world.size
        for row, theirs in zip(out_array, self._world.gather(in_array.copy()), strict=True):
            row[...] = theirs[self._world.rank]

    def all_gather(self, in_array, out_array, count, stream=None):
        assert count == in_array.size and out_array.size == self._world.size * count
        for row, theirs in zip(out_array, self._world.gather(in_array.copy()), strict=True):
            row[...] = theirs


class Communicator:
    """What `Mpi` and `MpiWorld` call of mpi4py's, among threads."""

    def __init__(self, world):
        self._world, self.rank, self.size = world, world.rank, world.size

    def allgather(self, value):
        return self._world.gather(value)

    def Alltoall(self, sent, received):  # noqa: N802
        StandIn(self._world).all_to_all(sent, received)

    def Allgather(self, sent, received):  # noqa: N802
        StandIn(self._world).all_gather(sent, received, sent.size)


LINKS = {
    "cpu": (lambda world: Mpi(Communicator(world)),),
    "cuda": (
        lambda world: Nccl(StandIn(world), world.size),
        lambda world: ThroughHost(Mpi(Communicator(world))),
    ),
}


def parts(target, rank, size):
    return target.array(np.arange(size * 10, dtype=np.float32).reshape(size, 2, 5) + 100 * rank)


@pytest.mark.parametrize("size", [2, 3])
def test_every_process_gets_its_piece_of_each(size, target):
    for make in LINKS[target.name]:
        check(make, size, target)


def check(make, size, target):
    def work(world):
        link, own = make(world), parts(target, world.rank, size)
        received, gathered = link.all_to_all(own), link.all_gather(own[0, 0])
        assert type(received) is type(gathered) is type(own)
        return host(received), host(gathered)

    of_all = [host(parts(target, rank, size)) for rank in range(size)]
    for rank, (received, gathered) in enumerate(in_threads(size, work)):
        np.testing.assert_array_equal(received, [theirs[rank] for theirs in of_all])
        np.testing.assert_array_equal(gathered, [theirs[0, 0] for theirs in of_all])


def test_nccl_has_the_methods_of_the_stand_in(monkeypatch):
    pytest.importorskip("cupy")
    monkeypatch.setitem(sys.modules, "mpi4py", None)  # CuPy would start MPI in this process
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NCCL is not installed
        from cupyx.distributed import NCCLBackend, init_process_group
    for name in ("all_to_all", "all_gather"):
        assert inspect.signature(getattr(StandIn, name)) == inspect.signature(
            getattr(NCCLBackend, name)
        )
    assert {"n_devices", "rank", "use_mpi"} <= {*inspect.signature(init_process_group).parameters}


def trained(target, world=None):
    model = Sequential(normalised(), (8, 7, 2), target.name, seed=1)
    trainer = Trainer(model, SGD(0.1, momentum=0.9), seed=3, shards=2, world=world)
    trainer.fit(noise(13), epochs=2, batch_size=4, validation=noise(5))
    assert trainer.planned
    return bits(model), [record["train_loss"] for record in trainer.history]


@pytest.mark.parametrize(
    ("gpus", "link"),
    [
        (["01:00.0", "02:00.0"], Nccl),
        (["01:00.0", "01:00.0"], ThroughHost),  # NCCL refuses two processes on one GPU
        ([None, "02:00.0"], ThroughHost),  # which has no NCCL
    ],
)
def test_a_training_on_gpus(cuda, gpus, link, monkeypatch):
    here, used = threading.local(), []

    def init_process_group(n_devices, rank, *, use_mpi):
        assert (n_devices, rank, use_mpi) == (2, here.world.rank, True)
        return StandIn(here.world)

    monkeypatch.setattr(mpi, "_gpu", lambda: gpus[here.world.rank])
    distributed = types.SimpleNamespace(init_process_group=init_process_group)
    monkeypatch.setitem(sys.modules, "cupyx.distributed", distributed)

    def work(world):
        here.world = world
        joined = mpi.MpiWorld(Communicator(world), RuntimeError, world.rank)
        found = trained(cuda, joined)
        used.append(type(joined._on_gpu))
        return found

    assert in_threads(2, work) == [trained(cuda)] * 2
    assert used == [link, link]
