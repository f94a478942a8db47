"""Write the tables of the READMEs, and the figures, from bench/results.

python -m bench.report.tables
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.report import exchange, figures
from bench.report.bounds import bounds

BENCH = Path(__file__).resolve().parents[1]
RESULTS = BENCH / "results"
FOLDERS = (".", "bench", "cnn", "kernels/torch")
PAGES = [BENCH.parent / folder / "README.md" for folder in FOLDERS]  # those with tables
DEVICES = ("cpu", "cuda")
UNITS = {"arithmetic": "GFLOP/s", "memory": "GB/s"}
#: What is counted of a row beside CuPy: how it is called, the unit it is shown in, and the format.
COUNTED = {
    "launches": ("launches", 1, ",.0f"),
    "bytes": ("MB", 1e6, ",.2f"),
    "instructions": ("instructions, thousands", 1e3, ",.0f"),
    "bound": ("bound, µs", 1e-6, ",.1f"),
}
NOTHING = "Nothing is on record: `make bench && make report`.\n\n"

Document = dict[str, Any]


def main() -> None:
    for suite, draw in (("kernels", figures.roofline), ("training-peers", figures.training)):
        for document in recorded(suite, RESULTS):
            path = RESULTS / f"{suite}-{document['machine']['device']}.svg"
            draw(document, path)
            print(path)
    if figures.summary(RESULTS, RESULTS / "summary.svg"):
        print(RESULTS / "summary.svg")
    for page in PAGES:
        page.write_text(filled(page.read_text(), RESULTS))
        print(page)


def recorded(suite: str, results: Path) -> Iterator[Document]:
    """Yield what is on record of a suite, by kind of machine."""
    for device in DEVICES:
        path = results / f"{suite}-{device}.json"
        if path.exists():
            yield json.loads(path.read_text())


def filled(text: str, results: Path) -> str:
    """Return a text with each part between markers made anew; they look like this:

    <!-- name: where it comes from -->  ...  <!-- end of name -->
    """
    parts = re.findall(r"<!-- end of ([\w-]+) -->", text)
    for name in parts:
        pattern = rf"(<!-- {name}: .*?-->\n).*?(<!-- end of {name} -->)"
        assert re.search(pattern, text, re.DOTALL), f"the marker before the end of {name} is gone"
        made = PARTS[name](results) or NOTHING
        text = re.sub(pattern, lambda m, made=made: f"{m[1]}\n{made}{m[2]}", text, flags=re.DOTALL)
    return text


# One function a part, each returns Markdown


def recipes(results: Path) -> str:
    """Return the table of the recipes, from bench/networks/training.py."""
    path = results / "training-cpu.json"
    if not path.exists():
        return ""
    document = json.loads(path.read_text())
    machine = document["machine"]
    rows = []
    for name, recipe in document["recipes"].items():
        s, run = recipe["summary"], recipe["runs"][0]
        rows.append(
            [
                f"`{name}`",
                run["epochs"],
                f"{s['mean_test_accuracy']:.2%} ± {s['standard_deviation']:.2%} "
                f"({s['lowest_test_accuracy']:.2%}), {s['seeds']} seeds",
                f"{s['median_train_seconds']:.1f} s, {s['median_images_per_second']:,.0f} images/s",
                f"{s['peak_memory_mib']} MiB",
            ]
        )
    about = (
        f"Measured on {machine['threads']} cores ({machine['cpu']}), without a GPU, by\n"
        "`python -m bench.networks.training --recipe NAME --seeds 0 1 2 ...`;\n"
        "medians over the seeds.\n"
        "The clock covers the training steps, not compiling, loading data or evaluating.\n"
    )
    accuracy = "MNIST test accuracy, mean ± deviation (lowest)"
    return table(["recipe", "epochs", accuracy, "training", "memory"], rows) + about + "\n"


def speed(results: Path) -> str:
    """Return the summary for the README: each network beside PyTorch's best and the naive one."""
    rows, about = [], ""
    for document in (*recorded("training-peers", results), *recorded("inference", results)):
        what = "inference" if "inference" in document["rows"][0]["row"] else "training"
        most = max(row["threads"] for row in document["rows"])
        for row in document["rows"]:
            if (
                "accuracies" in row
                or row["threads"] != most
                or "PyTorch compiled" not in row["peers"]
            ):
                continue
            torch = {name: peer for name, peer in row["peers"].items() if "PyTorch" in name}
            best = min(torch, key=lambda name: torch[name]["seconds"])
            rows.append(
                [
                    f"{what}, {row['network']} network",
                    row["batch_size"],
                    f"**{row['images_per_second']:,.0f}** ±{row['noise']:.0%}",
                    beside(torch[best]),
                    best.removeprefix("PyTorch").strip() or "eager",
                    memory(row["memory_mib"]),
                ]
            )
        about = measured(document)
    head = ["", "batch", "images/s", "PyTorch, at its best", "which is", "memory, MiB"]
    return table(head, rows) + about if rows else ""


def training(results: Path) -> str:
    documents = recorded("training-peers", results)
    made = "".join(training_table(document, results) + measured(document) for document in documents)
    return made + figure("training-peers", "Training throughput", results, "results/")


def training_table(document: Document, results: Path) -> str:
    """Return the tables of throughput and of the whole recipe; on a GPU, beside the bounds."""
    throughput = [row for row in document["rows"] if "accuracies" not in row]
    least = bounds(document["machine"], results)
    at_most = {}
    for row in throughput:
        seconds = least.get(f"training step: {row['network']}, batch {row['batch_size']}")
        if seconds:
            at_most[row["row"]] = row["batch_size"] / seconds
    limited = [
        row | {"network": f"{row['network']}, {row['instructions']} only"}
        if "instructions" in row
        else row
        for row in throughput
    ]
    made = images_table(limited, ["network", "batch_size", "threads"], "training", at_most)
    for row in document["rows"]:
        if "accuracies" in row:
            made += accuracy_table(row)
    return made


def accuracy_table(row: dict[str, Any]) -> str:
    """Return a table of the time that a whole recipe takes, and the accuracy that it gives."""
    (ours, *_), seeds = row["accuracies"], row["rounds"]
    timed = {ours: row, **row["peers"]}
    rows = [
        [
            name,
            f"{timed[name]['seconds']:.2f} s ±{timed[name]['noise']:.0%}",
            f"{row['peers'][name]['ratio']:.2f}x" if name in row["peers"] else "",
            f"{statistics.mean(reached):.2%}",
            f"{row['memory_mib'][name]:,.0f} MiB",
        ]
        for name, reached in row["accuracies"].items()
    ]
    epochs = f"{row['epochs']} epoch{'s' * (row['epochs'] > 1)}"
    what = f"{row['network']} recipe, {epochs}, batch {row['batch_size']}"
    accuracy = f"test accuracy, mean of {seeds}"
    return table([what, "training", f"{ours} beside it", accuracy, "memory"], rows)


def inference_table(document: Document) -> str:
    return images_table(document["rows"], ["network", "batch_size"], "inference")


def figure(suite: str, title: str, results: Path, folder: str) -> str:
    """Return links to the figures there are of a suite, seen from a file beside `folder`."""
    names = [f"{suite}-{device}.svg" for device in DEVICES]
    links = [f"![{title}]({folder}{name})\n\n" for name in names if (results / name).exists()]
    return "".join(links)


def inference(results: Path) -> str:
    documents = recorded("inference", results)
    return "".join(inference_table(document) + measured(document) for document in documents)


def images_table(
    timed: list[dict[str, Any]], keys: list[str], what: str, at_most: dict[str, float] | None = None
) -> str:
    """Return a table of images/s: ours, and each peer's with how many times faster ours is.

    `at_most` has what ours cannot exceed, by the names of rows.
    """
    peers = list(dict.fromkeys(name for row in timed for name in row["peers"]))
    ours = [f"{what}, images/s", *["at most, by the bound"] * bool(at_most)]
    head = [*(key.replace("_size", "") for key in keys), *ours, *peers, "memory, MiB"]
    rows = [
        [
            *(row[key] for key in keys),
            f"**{row['images_per_second']:,.0f}** ±{row['noise']:.0%}",
            *([number(at_most.get(row["row"]), ",.0f")] if at_most else []),
            *(beside(row["peers"].get(name)) for name in peers),
            memory(row["memory_mib"]),
        ]
        for row in timed
    ]
    return table(head, rows)


def memory(mib: dict[str, float]) -> str:
    """Return our memory and that of the peer that needs least; the naive one is none here."""
    (_, ours), *others = mib.items()
    peers = [(value, name) for name, value in others if "naive" not in name]
    least = f" ({min(peers)[1]} {min(peers)[0]:,.0f})" if peers else ""
    return f"{ours:,.0f}{least}"


def beside(peer: dict[str, Any] | None) -> str:
    """Return a peer's images/s and how many times faster ours is."""
    return f"{peer['images_per_second']:,.0f} ({peer['ratio']:.2f}x)" if peer else ""


def operations(document: Document) -> str:
    """Return a table with the range over shapes of each operation of the kernel suite."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in document["rows"]:
        groups.setdefault(row["operation"], []).append(row)
    rows = [
        [
            f"`{operation}`",
            len(group),
            span([row["rate"] / 1e9 for row in group], "{:.0f}") + f" {unit(group[0])}",
            span([100 * row["part_of_peak"] for row in group], "{:.0f}") + "%",
            span([best_ratio(row) for row in group], "{:.2f}") + "x",
        ]
        for operation, group in groups.items()
    ]
    head = ["operation", "shapes", "rate", "of the measured peak", "beside the best peer"]
    return table(head, rows)


def kernels(results: Path) -> str:
    """Return the table of every row of the kernel suite."""
    made = ""
    for document in recorded("kernels", results):
        peers = list(dict.fromkeys(name for row in document["rows"] for name in row["peers"]))
        least = bounds(document["machine"], results)
        rows = [
            [
                f"`{row['operation']}`",
                row["shape"],
                "x".join(str(size) for size in row["sizes"].values()),
                f"{row['seconds'] * 1e6:,.0f} µs ±{row['noise']:.0%}",
                *([number(least.get(row["row"]), ",.1f", 1e-6)] if least else []),
                f"{row['rate'] / 1e9:,.1f} {unit(row)}",
                f"{row['part_of_peak']:.0%}",
                *(ratio(row["peers"].get(name)) for name in peers),
            ]
            for row in document["rows"]
        ]
        bound = ["bound, µs"] * bool(least)
        head = ["operation", "shape", "sizes", "time", *bound, "rate", "of peak", *peers]
        limits = {row["bound"]: row["peak_rate"] / 1e9 for row in document["rows"]}
        peaks = " and ".join(f"{limits[bound]:,.0f} {UNITS[bound]}" for bound in limits)
        about = f"Peaks: {peaks}. `2.00x` beside a peer: the kernel is twice as fast as that.\n"
        made += operations(document) + table(head, rows) + about + measured(document)
    return made + figure("kernels", "Roofline", results, "results/")


def overhead(results: Path) -> str:
    made = ""
    for document in recorded("overhead", results):
        rows = [
            [
                f"`{row['function']}`",
                f"{row['seconds'] * 1e6:.1f} µs ±{row['noise']:.0%}",
                f"{row['peers']['bare call']['seconds'] * 1e6:.2f} µs",
            ]
            for row in document["rows"]
        ]
        made += table(["function", "host time of a call", "bare call"], rows) + measured(document)
    return made


def accelerate(results: Path) -> str:
    """Return the table of PyTorch's networks, as they are and accelerated."""
    made = ""
    for document in recorded("accelerate", results):
        rows = [
            [
                row["network"],
                row["batch_size"],
                row["layout"],
                f"{row['peers']['PyTorch']['images_per_second']:,.0f}",
                f"**{row['images_per_second']:,.0f}** ±{row['noise']:.0%}",
                f"{row['peers']['PyTorch']['ratio']:.2f}x",
            ]
            for row in document["rows"]
            if "network" in row
        ]
        rates = ["PyTorch, images/s", "accelerated, images/s", ""]
        made += table(["training", "batch", "memory format", *rates], rows) + measured(document)
    return made


def accelerated_layers(results: Path) -> str:
    """Return the table of layers on both sides of the rules of `kernels.torch.accelerate`."""
    made = ""
    for document in recorded("accelerate", results):
        rows = [
            [
                f"`{row['layer']}`",
                ", ".join(map(str, row["arguments"])),
                "x".join(map(str, row["shape"])),
                row["layout"],
                f"{row['seconds'] * 1e6:,.0f} µs ±{row['noise']:.0%}",
                f"{row['peers']['PyTorch']['ratio']:.2f}x",
                "replaced" if row["replaced"] else "left",
            ]
            for row in document["rows"]
            if "layer" in row
        ]
        head = ["layer", "arguments", "input", "memory format", "kernels", "beside PyTorch", ""]
        made += table(head, rows) + measured(document)
    return made


def start(results: Path) -> str:
    """Return the table of bench/networks/start.py: what one waits for at first."""
    path = results / "start-cpu.json"
    if not path.exists():
        return "Nothing is on record: `make start && make report`.\n\n"
    document = json.loads(path.read_text())
    rows = []
    for state, name in (("cold", "`make train`, empty cache"), ("warm", "`make train`, again")):
        found = document["train"][state]
        spans = found["least_and_most"]
        times = [
            f"{found['median'][clock]:.1f} s ({span(spans[clock], '{:.1f}')})"
            for clock in ("setup_seconds", "train_seconds", "seconds")
        ]
        rows.append([name, found["median"]["libraries"] if state == "cold" else 0, *times])
    if "suite" in document:
        median = document["suite"]["median"]
        tests = f"`make test`, empty cache, {median['tests']:,} tests"
        rows.append([tests, median["libraries"], "", "", f"{median['seconds']:.0f} s"])
    head = ["", "libraries compiled", "set-up", "training steps", "from start to end"]
    machine, rounds = document["machine"], len(document["train"]["cold"]["rounds"])
    about = (
        f"Measured on {machine['threads']} cores ({machine['cpu']}) by `make start`; medians of "
        f"{rounds}\nrounds (least to most).\n\n"
    )
    return table(head, rows) + about


def naive(results: Path) -> str:
    """Return the tables of tests/gpu/profile_naive.py: counts of CuPy beside ours."""
    path = results / "naive-h100.json"
    if not path.exists():
        return "Nothing is on record: `make profile-naive && make report`.\n\n"
    document = json.loads(path.read_text())
    made = counted_table(document, "naive CuPy", "naive CuPy / ours")
    made += counted_table(document, "CuPy with cuBLAS", "CuPy with cuBLAS, at least / ours")
    return made + (
        f"Counted on an emulated {document['gpu']} by `make profile-naive`. Nothing was timed.\n\n"
    )


def processes(results: Path) -> str:
    """Return the table of what processes exchange in a step, from the profile of an H100."""
    rows = exchange.rows(results)
    return table(exchange.HEAD, rows) if rows else ""


def counted_table(document: Document, peer: str, title: str) -> str:
    """Return a table of what was counted of a peer and of ours, where there is that peer."""
    rows = [row for row in document["rows"] if peer in row["peers"]]
    keys = list(rows[0]["peers"][peer])
    cells = [
        [
            f"`{row['row'].partition(':')[0]}`",
            "x".join(map(str, row["sizes"].values())),
            *(fewer(row["peers"][peer][key], row["ours"][key], *COUNTED[key][1:]) for key in keys),
        ]
        for row in rows
    ]
    return table([title, "sizes", *(COUNTED[key][0] for key in keys)], cells)


def fewer(theirs: float, ours: float, unit: float, form: str) -> str:
    """Return two counts, and how many times more the first is."""
    times = theirs / ours
    more = f"{times:.1f}x" if times < 10 else f"{times:,.0f}x"
    return f"{theirs / unit:{form}} / {ours / unit:{form}} = **{more}**"


PARTS: dict[str, Callable[[Path], str]] = {
    "naive": naive,
    "processes": processes,
    "training": recipes,
    "speed": speed,
    "kernels": kernels,
    "training-peers": training,
    "inference": inference,
    "overhead": overhead,
    "accelerate": accelerate,
    "accelerated-layers": accelerated_layers,
    "start": start,
}


def table(head: list[str], rows: list[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(str, cells))} |\n" for cells in lines) + "\n"


def measured(document: Document) -> str:
    """Return on what and how a document was measured."""
    machine = document["machine"]
    versions = [f"{name} {machine[name]}" for name in ("torch", "onnxruntime") if name in machine]
    where = machine["cpu"] if machine["device"] == "cpu" else machine["GPU"]
    return (
        f"Measured on {where}, {machine['threads']} threads, at {document['commit']}; "
        f"{', '.join(['Python ' + machine['Python'], 'NumPy ' + machine['NumPy'], *versions])}; "
        f"{document['clock']}.\n\n"
    )


def unit(row: dict[str, Any]) -> str:
    return UNITS[row["bound"]]


def number(value: float | None, form: str, unit: float = 1.0) -> str:
    return "" if value is None else f"{value / unit:{form}}"


def ratio(peer: dict[str, Any] | None) -> str:
    return f"{peer['ratio']:.2f}x" if peer else ""


def best_ratio(row: dict[str, Any]) -> float:
    return row["peers"][row["best_peer"]]["ratio"]


def span(values: list[float], form: str) -> str:
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f"{low} to {high}"


if __name__ == "__main__":
    main()
