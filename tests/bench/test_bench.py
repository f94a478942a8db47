"""The benchmarks: wrong rows are refused, reports are made from the files alone."""

import importlib.util
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import cnn
import kernels
from bench.kernels import compare, peak
from bench.kernels.rows import rows
from bench.measure import WrongResult, verify
from bench.networks import start
from bench.networks.definitions import INPUT_SHAPE, NETWORKS, describe, restore
from bench.peers import naive, numpy_calls
from bench.report import condense, exchange, figures, of_kernels, of_networks
from bench.report import tables as report
from cnn import SGD, Sequential, Trainer
from cnn.course import Course
from cnn.exchange import Exchange
from cnn.parallel import World
from tests.lib.comparison import assert_close
from tests.lib.fresh_python import REPOSITORY
from tests.lib.support import normal

BENCH = REPOSITORY / "bench"
EMPTY = BENCH / "results" / "recipes"
MACHINE = {"device": "cpu", "cpu": "a cpu", "threads": "2", "Python": "3", "NumPy": "2"}


@pytest.fixture(autouse=True)
def naive_on_numpy(monkeypatch):
    """The naive network runs on NumPy, also where rows for a GPU were made before."""
    for module in (naive, numpy_calls):
        monkeypatch.setattr(module, "xp", np)


def run_suites(tmp_path, *options, plugin=""):
    """Run the suites on tiny sizes as `make bench` does; return the exit and the raw JSON."""
    (tmp_path / "plugin.py").write_text(plugin)
    path = os.pathsep.join(map(str, (tmp_path, REPOSITORY)))
    words = ["bench", "--smoke", "-p", "plugin", "--benchmark-quiet", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *words, f"--benchmark-json={tmp_path}/raw.json"]
    # pytest-benchmark measures nothing where it finds itself in a process of pytest-xdist.
    kept = {name: v for name, v in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    done = subprocess.run(
        [*command, *options],
        cwd=REPOSITORY,
        env=kept | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    return done, json.loads((tmp_path / "raw.json").read_text())


# From the suites to the reports


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    """Some rows of every suite, of one network: every peer of a row is a process of its own."""
    training = "speedrun and (batch-1- or throughput) or accuracy"
    accelerated = "MLP and contiguous or test_layers and MaxPool2d"
    chosen = f"odd or sgd or (overhead and relu) or {training} or {accelerated}"
    done, raw = run_suites(tmp_path_factory.mktemp("suites"), "-k", chosen)
    assert done.returncode == 0, done.stdout + done.stderr
    return condense.condense(raw, MACHINE)


@pytest.fixture
def results(documents, tmp_path):
    for suite, document in documents.items():
        (tmp_path / f"{suite}-cpu.json").write_text(json.dumps(document))
    recipes = (BENCH / "results" / "training-cpu.json").read_text()
    (tmp_path / "training-cpu.json").write_text(recipes)
    return tmp_path


@pytest.mark.slow
def test_every_suite_gives_rows(documents):
    absent = set() if importlib.util.find_spec("torch") else {"accelerate"}
    assert set(documents) == set(condense.SUITES.values()) - absent
    for document in documents.values():
        assert document["machine"] == MACHINE and document["commit"] and document["clock"]
        for row in document["rows"]:
            assert row["rounds"] >= 1 and row["seconds"] > 0
            assert row.get("best_peer") in (row["peers"] or {None})
        # Training has peers where PyTorch is installed.
        assert any(row["peers"] for row in document["rows"])


@pytest.mark.slow
def test_rows_hold_what_their_tables_need(documents):
    for row in documents["kernels"]["rows"]:
        counted = row["operations"] if row["bound"] == "arithmetic" else row["bytes"]
        assert row["rate"] == pytest.approx(counted / row["seconds"])
        assert row["part_of_peak"] > 0
    for row in documents["training-peers"]["rows"]:
        assert row["images_per_second"] == pytest.approx(row["images"] / row["seconds"])
        # A process that trains has more than Python and NumPy, and less than the data in float64.
        assert all(20 < mib < 4096 for mib in row["memory_mib"].values())


@pytest.mark.slow
@pytest.mark.parametrize("page", report.PAGES, ids=lambda page: page.parent.name)
def test_tables_are_made_between_the_markers(results, page):
    text = page.read_text()
    made = report.filled(text, results)
    assert report.filled(made, results) == made
    assert outside_markers(made) == outside_markers(text)


@pytest.mark.slow
@pytest.mark.parametrize("page", [REPOSITORY / "README.md", BENCH / "README.md"])
def test_tables_have_what_was_measured(results, page):
    text = page.read_text()
    made = report.filled(text, results)
    assert len(made) > len(report.filled(text, EMPTY)) + 500


def outside_markers(text):
    return re.sub(r"(<!-- ([\w-]+): .*?-->).*?<!-- end of \2 -->", "", text, flags=re.DOTALL)


@pytest.mark.slow
def test_every_row_is_in_a_table(documents, results):
    made = "".join(report.filled(page.read_text(), results) for page in report.PAGES)
    for row in documents.get("accelerate", {"rows": []})["rows"]:
        assert f" | {row['peers']['PyTorch']['ratio']:.2f}x |" in made
        time = f"{row['seconds'] * 1e6:,.0f} µs" if "layer" in row else row["network"]
        assert f"| {time} " in made
    for row in documents["kernels"]["rows"] + documents["overhead"]["rows"]:
        assert f"| `{row.get('operation') or row['function']}` |" in made
        digits = ",.0f" if "operation" in row else ".1f"
        assert f"| {row['seconds'] * 1e6:{digits}} µs ±{row['noise']:.0%} |" in made
    for row in documents["training-peers"]["rows"] + documents["inference"]["rows"]:
        if "accuracies" in row:
            assert f"| cnn | {row['seconds']:.2f} s ±{row['noise']:.0%} |" in made
            continue
        assert f"| **{row['images_per_second']:,.0f}** ±{row['noise']:.0%} |" in made
        for peer in row["peers"].values():
            assert f"| {peer['images_per_second']:,.0f} ({peer['ratio']:.2f}x) |" in made


def test_a_suite_that_was_not_run_says_so(tmp_path):
    made = report.filled((BENCH / "README.md").read_text(), tmp_path)
    assert made.count(report.NOTHING.strip()) == 5


def test_the_first_minute_has_a_table(tmp_path):
    clocks = [
        {"setup_seconds": 6.5 + late, "train_seconds": 1.25, "seconds": 8.0 + late, "libraries": 24}
        for late in (0.0, 1.0, 0.5)
    ]
    trained = start.summarise(clocks)
    whole = start.summarise([{"seconds": 400.0, "tests": 6890, "libraries": 300}])
    document = {"train": {"cold": trained, "warm": trained}, "suite": whole, "machine": MACHINE}
    (tmp_path / "start-cpu.json").write_text(json.dumps(document))
    made = report.filled((BENCH / "README.md").read_text(), tmp_path)
    assert "| 24 | 7.0 s (6.5 to 7.5) | 1.2 s (1.2) | 8.5 s (8.0 to 9.0) |" in made
    assert "| `make test`, empty cache, 6,890 tests | 300 |  |  | 400 s |" in made


@pytest.mark.slow
def test_times_on_a_gpu_stand_beside_their_bounds(documents, tmp_path):
    def row(name, *launches):
        return {"row": name, "launches": [launch(kernel) for kernel in launches], "bytes": {}}

    def launch(read):
        figures = {"global_load_sectors": read // 32, "global_load_requests": read // 128}
        of_all = {"figures": figures, "least": {}, "tensor": {}, "longest_warp": 1}
        return of_all | {"grid": [1, 1, 1], "bytes": {"read": read, "written": 0}}

    gigabyte = 10**9  # 3.352 TB/s, and 50 MiB may be in L2 before
    profile = [
        row("conv2d weight gradient: odd sizes", gigabyte),
        row("conv2d input gradient: odd sizes", gigabyte, 2 * gigabyte),
        {**row("sgd: 16M", gigabyte), "scaled": {"count": [2, 1]}},
        row("training step: speedrun, batch 32", gigabyte),
    ]
    (tmp_path / "profile-h100.json").write_text(json.dumps({"rows": profile}))
    machine = MACHINE | {"device": "cuda", "GPU": "NVIDIA H100 80GB HBM3, 80 GiB"}
    for suite in ("kernels", "training-peers"):
        document = documents[suite] | {"machine": machine}
        (tmp_path / f"{suite}-cuda.json").write_text(json.dumps(document))
    made = of_kernels.kernels(tmp_path) + of_networks.training(tmp_path)
    assert "| time | bound, µs | rate |" in made and "images/s | at most, by the bound |" in made
    (weights, dx, sgd) = (
        re.search(rf"\| `{name}` \| {shape} \|.*? ±\d+% \| (.*?) \|", made)[1]
        for name, shape in (
            ("conv2d weight gradient", "odd sizes"),
            ("conv2d input gradient", "odd sizes"),
            ("sgd", "16M"),
        )
    )
    seconds = (gigabyte - 50 * 2**20) / 3.352e12
    assert (weights, sgd) == (f"{seconds * 1e6:.1f}", "")
    assert dx == f"{(2 * gigabyte - 50 * 2**20) / 3.352e12 * 1e6:.1f}"
    assert f"| {32 / seconds:,.0f} |" in made


def test_rows_of_a_limited_instruction_set_are_named_and_not_drawn(tmp_path):
    recorded = json.loads((BENCH / "results" / "training-peers-cpu.json").read_text())
    recorded["rows"] = [row for row in recorded["rows"] if "instructions" not in row]
    figures.training(recorded, tmp_path / "all.svg")
    limited = recorded["rows"][0] | {"instructions": "AVX2"}
    more = recorded | {"rows": [*recorded["rows"], limited]}
    made = of_networks.training_table(more, tmp_path)
    assert f"| {limited['network']}, AVX2 only | {limited['batch_size']} |" in made
    figures.training(more, tmp_path / "same.svg")
    assert (tmp_path / "same.svg").read_bytes() == (tmp_path / "all.svg").read_bytes()


def test_naive_cupy_has_a_table(tmp_path):
    ours = {"launches": 1, "bytes": 120_000, "instructions": 5000, "bound": 5e-7}
    theirs = {"launches": 3, "bytes": 5_870_000, "instructions": 6_264_000, "bound": 1.5e-6}
    row = {"row": "conv2d forward: speedrun 1", "sizes": {"N": 2, "K": 5}}
    peers = {"naive CuPy": theirs, "CuPy with cuBLAS": {"launches": 5, "bytes": 90_000}}
    document = {"gpu": "a GPU", "rows": [{**row, "ours": ours, "peers": peers}]}
    (tmp_path / "naive-h100.json").write_text(json.dumps(document))
    made = report.filled((REPOSITORY / "README.md").read_text(), tmp_path)
    cells = ["3 / 1 = **3.0x**", "5.87 / 0.12 = **49x**", "6,264 / 5 = **1,253x**"]
    assert f"| `conv2d forward` | 2x5 | {' | '.join(cells)} | 1.5 / 0.5 = **3.0x** |" in made
    assert "| `conv2d forward` | 2x5 | 5 / 1 = **5.0x** | 0.09 / 0.12 = **0.8x** |" in made
    assert "Counted on an emulated a GPU by `make profile-naive`" in made


@pytest.mark.slow
def test_a_lost_marker_is_noticed(results):
    with pytest.raises(AssertionError, match="the marker before the end of kernels is gone"):
        report.filled("# Title\n<!-- end of kernels -->\n", results)


@pytest.mark.slow
def test_figures_are_a_function_of_the_files(documents, tmp_path):
    for suite, draw in (("kernels", figures.roofline), ("training-peers", figures.training)):
        for name in ("one", "two"):
            draw(documents[suite], tmp_path / f"{name}.svg")
        one, two = ((tmp_path / f"{name}.svg").read_bytes() for name in ("one", "two"))
        assert one == two and b"<svg" in one and len(one) > 5000


# Wrong results


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plugin", "culprit"),
    [
        (
            "import kernels\nright = kernels.relu\nkernels.relu = lambda x: right(x) * 1.01",
            "kernels",
        ),
        # A peer that leaves the last image out.
        (
            "from bench.peers import naive\nright = naive.conv2d\n"
            "def conv2d(x, w, b, **o):\n    y = right(x, w, b, **o)\n    y[-1] = 0\n    return y\n"
            "naive.conv2d = conv2d",
            "naive NumPy",
        ),
    ],
    ids=["ours", "a peer"],
)
def test_a_wrong_row_is_refused(tmp_path, plugin, culprit):
    chosen = "relu and 16M and not gradient or forward and odd and conv2d"
    done, raw = run_suites(tmp_path, "-k", chosen, plugin=plugin)
    assert done.returncode == 1 and "1 failed, 1 passed" in done.stdout
    assert f"WrongResult: {culprit}: result 0 is" in done.stdout
    assert [len(row["stats"]["data"]) for row in raw["benchmarks"]] == [2]  # the other row's


@pytest.mark.parametrize(
    "wrong",
    [
        [np.array([1.0, 2.0, 3.001])],
        [np.array([1.0, 2.0, np.nan])],
        [np.zeros(3)],
        [np.array([[1.0, 2.0, 3.0]])],
        [],
        [np.array([1.0, 2.0, 3.0])] * 2,
    ],
)
def test_what_verify_refuses(wrong):
    right = [np.array([1.0, 2.0, 3.0])]
    verify("it", [right[0] + 2e-4], right, rtol=1e-4)
    with pytest.raises(WrongResult, match="^it: "):
        verify("it", wrong, right, rtol=1e-4)


# The arithmetic of a row


def test_ratios_are_those_of_one_round():
    # A machine half as fast from the second round on: the ratio does not change.
    ours, theirs, peak = [1.0, 2.0, 2.0], [3.0, 6.0, 6.0], [0.5, 1.0, 1.0]
    info = {"samples": {"peer": theirs, "peak": peak}, "peak_work": 100, "row": "a row"}
    row = condense.row(ours, info | {"bound": "arithmetic", "operations": 50, "bytes": 7})
    assert row["seconds"] == 2 and row["rate"] == 25 and row["peak_rate"] == 100
    assert row["part_of_peak"] == 0.25
    assert row["peers"]["peer"]["ratio"] == 3 and row["peers"]["peer"]["ratio_noise"] == 0
    assert row["noise"] == pytest.approx(0.125)  # quartiles 1.5 and 2
    assert "3.00x peer" in condense.line(row) and "25% of peak" in condense.line(row)


def test_what_the_peaks_measure(target):
    """In `make test`, unlike the suites, since it is the kernels' headers that change."""
    x, dtype = target.array(normal(4099).astype(np.float32)), np.dtype(np.float32)
    y = target.zeros(x.shape, dtype)
    copy = peak._SOURCE.kernel("copy", target, dtype)
    copy(target.stride_grid(x.size), target.threads, x, y, x.size)
    assert bool((x == y).all())

    operations = target.zeros((2,), np.int64)
    room = target.zeros((2 * peak._CHAINS * peak._LARGEST_REGISTER,), dtype)
    peak._SOURCE.kernel("fma_peak", target, dtype)((2, 1, 1), 1, room, operations, 3, 0.5)
    done = operations if isinstance(operations, np.ndarray) else operations.get()
    lanes = done / (2 * peak._CHAINS * 3)
    assert lanes[0] == lanes[1] and lanes[0] in (1, 4, 8, 16)


def test_names_of_rows_are_unique():
    names = [row.name for row in rows()]
    assert len(set(names)) == len(names) == len(list(rows(smoke=True)))


# Two trees


@pytest.mark.slow
def test_a_tree_beside_itself():
    name = "dense forward: odd sizes"
    before, after = compare.timed(name, REPOSITORY, rounds=2)
    assert len(before) == len(after) == 2 and min(before + after) > 0
    assert name in compare.line(name, before, after)


@pytest.mark.parametrize(
    ("after", "verdict"), [([1.0] * 5, "="), ([0.5] * 5, "faster"), ([2.0] * 5, "slower")]
)
def test_a_difference_is_told_from_noise(after, verdict):
    assert compare.line("row", [0.99, 1.0, 1.0, 1.0, 1.01], after).endswith(verdict)


@pytest.mark.parametrize("base", ["", "no such branch"])
def test_a_base_that_git_does_not_have_is_one_sentence(base, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["compare.py", base, "softmax"])
    with pytest.raises(SystemExit, match="2"):
        compare.main()
    sentence = f"argument base: got {base!r}, expected a commit, branch or tag\n"
    assert capsys.readouterr().err.endswith(sentence)


@pytest.mark.slow
def test_another_trees_kernels_are_refused(tmp_path):
    with pytest.raises(RuntimeError, match="bench.kernels.worker_kernels ended in prepare"):
        compare.timed("dense forward: odd sizes", tmp_path, rounds=1)


# The naive network


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("size", [7, 8])  # with stride 2, one leaves a row out
def test_naive_convolution_is_the_kernels(size, stride, padding):
    x, w, b = normal(0, 2, size, size + 1, 3), normal(1, 4, 3, 3, 3), normal(2, 4)
    window = {"stride": stride, "padding": padding}
    y = kernels.conv2d(x, w, b, **window)
    assert_close(naive.conv2d(x, w, b, **window), y, rtol=1e-12)
    dy = normal(3, *y.shape)
    dx, dw, db = kernels.conv2d_backward(dy, x, w, **window)
    assert_close(naive.conv2d_input_gradient(dy, x, w, **window), dx, rtol=1e-12)
    for found, expected in zip(
        naive.conv2d_weight_gradient(dy, x, w, **window), (dw, db), strict=True
    ):
        assert_close(found, expected, rtol=1e-12)


def test_naive_pool_and_loss_are_the_kernels():
    x, dy = normal(0, 2, 6, 4, 3), normal(1, 2, 3, 2, 3)
    y, argmax = kernels.max_pool2d(x, 2)
    found, mask = naive.max_pool2d(x, 2)
    assert_close(found, y, rtol=0)
    dx = kernels.max_pool2d_backward(dy, argmax, x.shape, 2)
    assert_close(naive.max_pool2d_backward(dy, mask), dx, rtol=0)
    logits, labels = normal(2, 5, 7), np.arange(5)
    for found, expected in zip(
        naive.softmax_cross_entropy(logits, labels, smoothing=0.1),
        kernels.softmax_cross_entropy(logits, labels, label_smoothing=0.1),
        strict=True,
    ):
        assert_close(found, expected, rtol=1e-12)


@pytest.mark.parametrize("products", [naive, numpy_calls], ids=["naive", "with BLAS"])
def test_the_naive_network_trains_like_ours(tmp_path, products):
    described = describe("speedrun", tmp_path)
    model = restore(described, "cpu")
    kind, settings = described["optimizer"]
    smoothing = described["label_smoothing"]
    network = naive.Network(described["layers"], dict(np.load(described["weights"])), products)
    images, labels = normal(0, 6, 28, 28, 1, dtype=np.float32), np.arange(6)
    loss = cnn.SoftmaxCrossEntropy(smoothing)
    trainer = cnn.Trainer(model, getattr(cnn, kind)(**settings), loss)
    history = trainer.fit((images, labels), epochs=3, batch_size=6)
    losses = [
        network.step(images, labels, settings["lr"], settings["momentum"], smoothing)
        for _ in range(3)
    ]
    assert_close(losses, [record["train_loss"] for record in history], rtol=1e-4)
    for name, parameter in model.parameters.items():
        assert_close(network.parameters[name], parameter, rtol=1e-4)


def test_the_batch_norm_network_is_what_it_is_called():
    layers = NETWORKS["batch-norm"].layers()
    convolutions = [layer for layer in layers if isinstance(layer, cnn.Conv2D)]
    assert [c.filters for c in convolutions] == sorted(c.filters for c in convolutions)
    assert {(c.kernel, c.padding) for c in convolutions} == {(3, "same")}
    assert convolutions[0].filters == 16 and convolutions[-1].filters == 96


def test_what_processes_send_is_on_record():
    """The table's bytes are those of the vector that `Exchange` sends."""
    model = Sequential(NETWORKS["batch-norm"].layers(), INPUT_SHAPE, "cpu")
    course = Course(1, 8, "data", 8, shards=2)
    vectors = Exchange(Trainer(model, SGD(0.1)), World(), course)._parts
    assert vectors.dtype == np.float32
    assert vectors.nbytes == 2 * exchange.vector_bytes("batch-norm")
    assert exchange.sent(1000, 2) == 1000 and exchange.sent(1000, 4) == 1500
    made = report.filled((REPOSITORY / "cnn" / "README.md").read_text(), report.RESULTS)
    rows = exchange.rows(report.RESULTS)
    assert len(rows) >= 5 and all(f"| {' | '.join(row)} |" in made for row in rows)
