"""``mpiexec -n 2 cnn train``: the bits of one process, and an end if one of them ends."""

import json
import os
import re
import sys
import types

import pytest

from cnn.__main__ import main
from cnn.parallel import joined, mpi
from tests.cnn.test_known_data import made_up
from tests.lib import mpiexec
from tests.lib.small_runs import digest, history
from tests.lib.tiny_mnist import fill

TRAIN = ["-m", "cnn", "train", "--device", "cpu"]
#: Ends at a step as if the machine had failed.
KILLED = """
import os, signal, sys
from cnn.__main__ import main
from cnn.trainer import Trainer
count = Trainer._count
def counted(trainer, *numbers):
    count(trainer, *numbers)
    if trainer.steps == 8 and trainer.world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
Trainer._count = counted
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Three epochs of five steps, with batch-norm and augmentation."""
    monkeypatch.chdir(tmp_path)
    data = fill(tmp_path / "data", made_up(train=300, test=100))
    return ["--data", data, "--recipe", "default", "--epochs", 3, "--batch-size", 64]


@mpiexec.needs_mpi
def test_two_processes_give_the_bits_of_one(settings, tmp_path, capsys):
    """One of them is killed, and the training resumed."""
    words = ["train", "--device", "cpu", "--quiet", *settings, "--shards", 2, "--run", "one"]
    assert main(list(map(str, words))) == 0
    says = capsys.readouterr().out.partition(";")[0]
    one, two = tmp_path / "runs" / "one", tmp_path / "runs" / "two"

    killed = ["-c", KILLED, *TRAIN[2:], *settings, "--quiet", "--run", "two"]
    status, out, err = mpiexec.run(killed, killed, cwd=tmp_path)
    assert (status, out.strip()) != (0, "") and "Killed" in err + out  # as mpiexec says
    names = [path.name for path in (two / "checkpoints").iterdir()]
    assert max(names) == "epoch-0001.safetensors" and not (two / "results.json").exists()

    resume = [*TRAIN, "--resume", two]
    status, out, err = mpiexec.run(resume, resume, cwd=tmp_path)
    assert status == 0, err
    assert out.partition(";")[0] == says and out.count("\n") == 1
    assert err.count("on cpu, 2 processes; see ") == 1
    assert re.findall(r"epoch (./.): ", err) == ["2/3", "3/3"]  # and no line twice
    assert digest(two / "model.safetensors") == digest(one / "model.safetensors")
    assert history(two) == history(one)
    results = json.loads((two / "results.json").read_text())
    assert (results["processes"], results["shards"]) == (2, 2)
    assert (one / "settings.toml").read_text() == (two / "settings.toml").read_text()


@mpiexec.needs_mpi
def test_processes_that_disagree_end_with_one_sentence(settings, tmp_path):
    programs = [[*TRAIN, *settings, "--quiet", "--seed", seed] for seed in (0, 1)]
    status, out, err = mpiexec.run(*programs, cwd=tmp_path)
    assert status != 0 and out.count("test accuracy") == 0
    own = [line for line in err.splitlines() if line.startswith("cnn: ")]
    assert own == ["cnn: error: seed: process 1 has 1, expected 0 as in process 0"]
    assert "Traceback" not in err and not list((tmp_path / "runs").iterdir())


@mpiexec.needs_mpi
def test_an_error_in_one_process_ends_the_other(settings, tmp_path):
    programs = [[*TRAIN, *settings, "--quiet"], [*TRAIN, "--quiet", "--data", tmp_path]]
    status, _, err = mpiexec.run(*programs, cwd=tmp_path)
    assert status != 0
    own = [line for line in err.splitlines() if line.startswith("cnn: ")]
    assert len(own) == 1 and own[0].startswith("cnn: error: the data set is incomplete: looked in")
    assert own[0].endswith(" (process 1 of 2)")


# What `join` needs


@pytest.fixture(params=["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"])
def two_started(request, monkeypatch):
    for name in mpi._SIZES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(request.param, "2")


def refused(capsys):
    assert main(["train", "--quiet"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_mpi4py_is_missing(two_started, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    assert refused(capsys).startswith(
        "cnn: error: 2 processes were started, which need mpi4py and the launcher's MPI: "
        "pip install 'cnn-kernels[mpi]' ("
    )


def test_mpi4py_has_another_mpi(two_started, monkeypatch, capsys):
    """Then each process would believe that it is alone, and train for itself."""
    stand_in = types.ModuleType("mpi4py")
    stand_in.MPI = types.SimpleNamespace(
        COMM_WORLD=types.SimpleNamespace(size=1), Get_library_version=lambda: "Some MPI 1.0\nmore"
    )
    monkeypatch.setitem(sys.modules, "mpi4py", stand_in)
    assert refused(capsys) == (
        "cnn: error: 2 processes were started, which need mpi4py and the launcher's MPI: mpi4py "
        "has found another one, Some MPI 1.0"
    )
    assert joined().size == 1


@pytest.mark.parametrize(
    ("cores", "of_all", "own"),
    [
        ({0, 1, 2, 3}, [[0, 1, 2, 3]] * 2, [{0, 1}, {2, 3}]),
        ({0, 1, 2}, [[0, 1, 2]] * 2, [{0}, {1, 2}]),
        ({4}, [[4]] * 3, [{4}, {4}, {4}]),  # more processes than cores
        ({0, 1}, [[0, 1], [2, 3]], [{0, 1}]),  # as a launcher has divided them
    ],
)
def test_processes_of_a_machine_divide_its_cores(cores, of_all, own, monkeypatch):
    chosen = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: cores)
    monkeypatch.setattr(os, "sched_setaffinity", lambda process, cores: chosen.append({*cores}))
    for rank in range(len(own)):
        mpi._divide_cores(types.SimpleNamespace(rank=rank, allgather=lambda cores: of_all))
    assert chosen == own
