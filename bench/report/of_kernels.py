"""The tables of single kernels and layers, beside their peers. One function a part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.report.bounds import bounds
from bench.report.markdown import (
    UNITS,
    Document,
    best_ratio,
    fewer,
    figure,
    measured,
    number,
    ratio,
    recorded,
    span,
    table,
    unit,
)

#: What is counted of a row beside CuPy: how it is called, the unit it is shown in, and the format.
COUNTED = {
    "launches": ("launches", 1, ",.0f"),
    "bytes": ("MB", 1e6, ",.2f"),
    "instructions": ("instructions, thousands", 1e3, ",.0f"),
    "bound": ("bound, µs", 1e-6, ",.1f"),
}


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
    return made + figure("kernels", "Roofline", results)


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
