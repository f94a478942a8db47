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
from tests.gpu.profile_naive import BLAS, NAIVE
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
    assert len(names) == 2


def test_what_is_counted():
    (normalize,) = pairs("normalize")
    ours, theirs = normalize.ours(normalize.sizes), normalize.peers(normalize.sizes)[NAIVE]
    pixels = 2 * 28 * 28  # bytes that become floats
    assert (ours["launches"], ours["bytes"]) == (1, pixels + 4 * pixels)
    # (images.astype(float32) - mean) / std: every operation reads and writes an array.
    assert (theirs["launches"], theirs["bytes"]) == (3, pixels + 5 * 4 * pixels)
    assert 0 < ours["instructions"] < theirs["instructions"]
    assert (ours["bound"], theirs["bound"]) == (LAUNCH, 3 * LAUNCH)


def test_both_gradients_are_one_launch_and_the_sum_of_its_parts():
    (both,) = pairs("conv2d gradients: speedrun 2")
    counts = both.ours(both.sizes)
    assert counts["launches"] == 2 and all(counts.values())


def test_a_line_has_the_units_of_its_heading():
    counts = {"launches": 2, "bytes": 3e6, "instructions": 4e6, "bound": 5e-6}
    row = {"row": "dense", "ours": counts, "peers": {NAIVE: {k: 2 * v for k, v in counts.items()}}}
    assert profile_naive.heading().split("  ")[-1].strip() == "bound, µs"
    assert profile_naive.line(row).replace(" / ", "/").split() == (
        ["dense", "4/2", "6.00/3.00", "8,000/4,000", "10.0/5.0"]
    )


@pytest.mark.parametrize("who", ["ours", "peers"])
def test_a_wrong_result_is_refused(monkeypatch, who):
    import kernels

    changed = kernels if who == "ours" else naive
    right = changed.dense
    monkeypatch.setattr(changed, "dense", lambda x, w, b: right(x, w, b) * 1.01)
    (dense,) = pairs("dense forward")
    with pytest.raises(WrongResult, match="^dense forward: speedrun 1: result 0 is"):
        getattr(dense, who)(dense.sizes)


def test_naive_is_counted_again_only_if_it_or_the_sizes_changed(tmp_path):
    path = tmp_path / "naive-h100.json"
    path.write_text('{"rows": [{"row": "another"}]}')
    counted = []

    def compare(size, ours, launches):
        """Return what the file has of ours and of naive CuPy, that launches so often an image."""

        def peers(sizes):
            counted.append(sizes["N"])
            return {NAIVE: {"launches": launches * sizes["N"]}}

        pair = profile_naive.Pair("row", {"N": size}, lambda sizes: {"launches": ours}, peers)
        assert profile_naive.compare(iter([pair]), path, "a GPU") == 1
        another, row = json.loads(path.read_text())["rows"]
        assert another == {"row": "another"}
        return row["ours"]["launches"], row["peers"][NAIVE]["launches"]

    assert compare(8, ours=1, launches=2) == (1, 16)
    assert compare(8, ours=3, launches=2) == (3, 16)
    assert compare(4, ours=3, launches=2) == (3, 8)
    assert compare(4, ours=3, launches=5) == (3, 20)
    assert counted == [1, 8, 1, 1, 4, 1, 4]


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
    ours, peers = step.ours(step.sizes), step.peers(step.sizes)
    assert set(peers) == {NAIVE, BLAS}
    assert all(0 < ours[key] < counts[key] for counts in peers.values() for key in counts)


def test_products_count_what_they_must_move():
    (dense,) = pairs("dense gradients")
    N, inputs, outputs = dense.sizes.values()
    counts = dense.peers(dense.sizes)[BLAS]
    x, w, dy = 4 * N * inputs, 4 * inputs * outputs, 4 * N * outputs
    # dx = dy @ w, dw = dy.T @ x; and CuPy's own kernel adds dy up.
    assert counts == {"launches": 3, "bytes": 2 * (dy + w + x) + dy + 4 * outputs}
