"""What the tables of the READMEs are made of: tables, their cells, and what was measured where."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DEVICES = ("cpu", "cuda")
UNITS = {"arithmetic": "GFLOP/s", "memory": "GB/s"}

Document = dict[str, Any]


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


def recorded(suite: str, results: Path) -> Iterator[Document]:
    """Yield what is on record of a suite, by kind of machine."""
    for device in DEVICES:
        path = results / f"{suite}-{device}.json"
        if path.exists():
            yield json.loads(path.read_text())


def figure(suite: str, title: str, results: Path) -> str:
    """Return links to the figures there are of a suite, seen from a file beside `results/`."""
    names = [f"{suite}-{device}.svg" for device in DEVICES]
    links = [f"![{title}](results/{name})\n\n" for name in names if (results / name).exists()]
    return "".join(links)


def unit(row: dict[str, Any]) -> str:
    return UNITS[row["bound"]]


def number(value: float | None, form: str, unit: float = 1.0) -> str:
    return "" if value is None else f"{value / unit:{form}}"


def ratio(peer: dict[str, Any] | None) -> str:
    return f"{peer['ratio']:.2f}x" if peer else ""


def best_ratio(row: dict[str, Any]) -> float:
    return row["peers"][row["best_peer"]]["ratio"]


def beside(peer: dict[str, Any] | None) -> str:
    """Return a peer's images/s and how many times faster ours is."""
    return f"{peer['images_per_second']:,.0f} ({peer['ratio']:.2f}x)" if peer else ""


def span(values: list[float], form: str) -> str:
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f"{low} to {high}"


def memory(mib: dict[str, float]) -> str:
    """Return our memory and that of the peer that needs least; the naive one is none here."""
    (_, ours), *others = mib.items()
    peers = [(value, name) for name, value in others if "naive" not in name]
    least = f" ({min(peers)[1]} {min(peers)[0]:,.0f})" if peers else ""
    return f"{ours:,.0f}{least}"


def fewer(theirs: float, ours: float, unit: float, form: str) -> str:
    """Return two counts, and how many times more the first is."""
    times = theirs / ours
    more = f"{times:.1f}x" if times < 10 else f"{times:,.0f}x"
    return f"{theirs / unit:{form}} / {ours / unit:{form}} = **{more}**"
