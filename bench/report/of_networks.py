"""The tables of networks: training, inference, and the first start. One function a part."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from bench.report import exchange
from bench.report.bounds import bounds
from bench.report.markdown import (
    Document,
    beside,
    figure,
    measured,
    memory,
    number,
    recorded,
    span,
    table,
)


def recipes(results: Path) -> str:
    """Return the table of the recipes, from bench/networks/training.py."""
    path = results / "training-cpu.json"
    if not path.exists():
        return ""
    rows, machines = [], {}
    for name, recipe in json.loads(path.read_text())["recipes"].items():
        s, run, machine = recipe["summary"], recipe["runs"][0], recipe["machine"]
        where = f"{machine['threads']} cores ({machine['cpu']})"
        machines.setdefault(where, []).append(f"`{name}`")
        together = s.get("ensemble_test_accuracy")
        rows.append(
            [
                f"`{name}`",
                run["epochs"],
                f"{s['mean_test_accuracy']:.2%} ± {s['standard_deviation']:.2%} "
                f"({s['lowest_test_accuracy']:.2%}), {s['seeds']} seeds",
                "" if together is None else f"{together:.2%}",
                f"{s['median_train_seconds']:.1f} s, {s['median_images_per_second']:,.0f} images/s",
                f"{s['peak_memory_mib']} MiB",
            ]
        )
    places = (
        where if len(machines) == 1 else f"{where}: {', '.join(names)}"
        for where, names in machines.items()
    )
    about = (
        f"Measured without a GPU, on {'; '.join(places)}; by\n"
        "`python -m bench.networks.training --recipe NAME --seeds 0 1 2 ...`;\n"
        "medians over the seeds. All as one: the mean of all seeds' probabilities.\n"
        "The clock covers the training steps, not compiling, loading data or evaluating.\n"
    )
    accuracy = "MNIST test accuracy, mean ± deviation (lowest)"
    head = ["recipe", "epochs", accuracy, "all as one", "training", "memory"]
    return table(head, rows) + about + "\n"


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
    return made + figure("training-peers", "Training throughput", results)


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


def inference(results: Path) -> str:
    documents = recorded("inference", results)
    return "".join(inference_table(document) + measured(document) for document in documents)


def inference_table(document: Document) -> str:
    return images_table(document["rows"], ["network", "batch_size"], "inference")


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


def processes(results: Path) -> str:
    """Return the table of what processes exchange in a step, from the profile of an H100."""
    rows = exchange.rows(results)
    return table(exchange.HEAD, rows) if rows else ""
