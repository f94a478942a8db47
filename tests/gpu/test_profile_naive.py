"""`make profile-naive` on a few small shapes, and naive CuPy against NumPy."""

import json

import numpy as np
import pytest

from bench.measure import WrongResult
from bench.networks.definitions import describe
from bench.peers import naive, numpy_calls
from tests.gpu import device, profile_naive
from tests.gpu.bound import LAUNCH
from tests.gpu.gpus import GPUS
from tests.lib.comparison import assert_close
from tests.lib.support import normal

GPU = GPUS["h100"]
SMALL = {"N": 2, "count": 1000}


@pytest.fixture(autouse=True)
def emulated_gpu(cupy, monkeypatch):
    if device.real_gpu():
        pytest.skip("the GPU is a real one")
    for module in (naive, numpy_calls):
        monkeypatch.setattr(module, "xp", cupy)
    return cupy


def pairs(only):
    return list(profile_naive.pairs(GPU, only, SMALL))


def test_every_row_is_one_of_the_benchmark():
    names = [pair.name for pair in profile_naive.pairs(GPU, "gradient: speedrun", SMALL)]
    assert names == [name for name in profile_naive.ROWS if "gradient: speedrun" in name]
    assert len(names) == 4


def test_what_is_counted():
    (relu,) = pairs("relu gradient")
    assert relu.sizes == {"count": 1000}
    ours, theirs = relu.ours(), relu.naive()
    assert (ours["launches"], ours["bytes"]) == (1, 12_000)
    # dy * (y > 0) writes and reads a mask of bytes, too, in sectors of 32.
    assert (theirs["launches"], theirs["bytes"]) == (2, 12_000 + 2 * 1024)
    assert 0 < ours["instructions"] < theirs["instructions"]
    assert (ours["bound"], theirs["bound"]) == (LAUNCH, 2 * LAUNCH)


def test_what_is_taken_off_is_not_counted():
    (weights,) = pairs("conv2d weight gradient: speedrun 2")
    (input_,) = pairs("conv2d input gradient: speedrun 2")
    counts = input_.ours()
    assert 1 <= counts["launches"] <= 2 and all(counts.values())
    assert weights.ours()["launches"] >= 2


@pytest.mark.parametrize("who", ["ours", "naive"])
def test_a_wrong_result_is_refused(monkeypatch, who):
    import kernels

    changed, name = (kernels, "dense") if who == "ours" else (naive, "dense")
    right = getattr(changed, name)
    monkeypatch.setattr(changed, name, lambda x, w, b: right(x, w, b) * 1.01)
    (dense,) = pairs("dense forward")
    with pytest.raises(WrongResult, match="^dense forward: speedrun 1: result 0 is"):
        getattr(dense, who)()


def test_naive_is_counted_again_only_if_it_or_the_sizes_changed(tmp_path, monkeypatch):
    path = tmp_path / "naive-h100.json"
    path.write_text('{"rows": [{"row": "another"}]}')
    counted = []

    def compare(sizes, ours, theirs):
        def count_naive():
            counted.append(theirs)
            return {"launches": theirs}

        pair = profile_naive.Pair("row", sizes, lambda: {"launches": ours}, count_naive)
        profile_naive.compare(iter([pair]), path, "a GPU")
        another, row = json.loads(path.read_text())["rows"]
        assert another == {"row": "another"}
        return row["ours"]["launches"], row["naive"]["launches"]

    assert compare({"N": 1}, 1, 5) == (1, 5)
    assert compare({"N": 1}, 2, 6) == (2, 5)
    assert compare({"N": 3}, 2, 7) == (2, 7)
    monkeypatch.setattr(profile_naive, "made_of", lambda: "others")
    assert compare({"N": 3}, 2, 8) == (2, 8)
    assert counted == [5, 7, 8]


@pytest.mark.parametrize(
    ("subscripts", "a", "b"),
    [
        ("nhwijc,fijc->nhwf", (2, 3, 4, 2, 3, 5), (6, 2, 3, 5)),
        ("nhwf,nhwijc->fijc", (2, 3, 4, 6), (2, 3, 4, 2, 3, 5)),
        ("nhwijf,fijc->nhwc", (2, 3, 4, 2, 3, 6), (6, 2, 3, 5)),
        ("ncd,nd->nc", (4, 3, 5), (4, 5)),
        ("no,oi->ni", (4, 3), (3, 5)),
        ("no,ni->oi", (4, 3), (4, 5)),
    ],
)
def test_einsum_without_blas(emulated_gpu, subscripts, a, b):
    a, b = normal(0, *a), normal(1, *b)
    found = naive.einsum(subscripts, emulated_gpu.asarray(a), emulated_gpu.asarray(b))
    assert_close(found.get(), np.einsum(subscripts, a, b), rtol=1e-12)


def test_a_naive_step_on_a_gpu_is_that_of_numpy(emulated_gpu, monkeypatch, tmp_path):
    described = describe("speedrun", tmp_path)
    images, labels = normal(0, 2, 28, 28, 1, dtype=np.float32), np.arange(2)
    stepped = []
    for module in (emulated_gpu, np):
        monkeypatch.setattr(naive, "xp", module)
        network = naive.Network(described["layers"], dict(np.load(described["weights"])))
        loss = network.step(module.asarray(images), module.asarray(labels), 0.1, 0.9, 0.1)
        parameters = network.parameters
        stepped.append({"loss": loss, **parameters})
    found, expected = stepped
    for name, value in expected.items():
        assert_close(found[name].get(), value, rtol=1e-4)


def test_steps_are_counted():
    (step,) = pairs("training step")
    ours, theirs = step.ours(), step.naive()
    assert all(0 < ours[key] < theirs[key] for key in ours)
