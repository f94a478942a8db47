"""The figures: a summary, the kernels' roofline, and training throughput by batch size."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

Document = dict[str, Any]
OURS = {"color": "#d1495b", "zorder": 3}
PEERS = ["#30638e", "#edae49", "#00798c", "#8d96a3", "#5f0f40", "#9a8c98"]


def summary(results: Path, path: Path) -> bool:
    """Draw training on a CPU beside PyTorch, and a step beside naive CuPy, if both are on record.

    The first is timed, the second counted on an emulated GPU; the titles say so.
    """
    timed, counted = (results / f"{name}.json" for name in ("training-peers-cpu", "naive-h100"))
    if not (timed.exists() and counted.exists()):
        return False
    row = next(
        row
        for row in json.loads(timed.read_text())["rows"]
        if "PyTorch compiled" in row["peers"] and row["network"] == "speedrun"
    )
    figure, (left, right) = _axes(2, height=2.6)
    rates = {name: peer["images_per_second"] for name, peer in row["peers"].items()}
    rates = {"cnn": row["images_per_second"], **dict(sorted(rates.items(), key=lambda it: -it[1]))}
    _bars(left, rates, "{:,.0f}", ours=["cnn"])
    left.set_title(f"Training on {row['threads']} CPU cores, images/s: timed", loc="left")

    step = next(
        row for row in json.loads(counted.read_text())["rows"] if "training step" in row["row"]
    )
    naive = step["peers"]["naive CuPy"]
    less = {key: naive[key] / step["ours"][key] for key in ("launches", "bytes", "instructions")}
    _bars(right, less, "{:,.0f}x fewer", ours=less)
    right.set_title("GPU training step beside naive CuPy: counted", loc="left")
    _save(figure, path)
    return True


def _bars(axes: Any, values: dict[str, float], text: str, ours: Collection[str]) -> None:
    """Draw horizontal bars from the top down; ours are red."""
    colors = [OURS["color"] if name in ours else PEERS[0] for name in values]
    bars = axes.barh(list(values), list(values.values()), color=colors, zorder=3)
    axes.bar_label(bars, [text.format(value) for value in values.values()], padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.25)
    axes.tick_params(left=False, bottom=False, labelbottom=False)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)


def roofline(document: Document, path: Path) -> None:
    """Draw GFLOP/s by operations per byte, under the measured peaks."""
    rows = [row for row in document["rows"] if row["bound"] == "arithmetic"]
    bandwidth = next(
        (row["peak_rate"] for row in document["rows"] if row["bound"] == "memory"), None
    )
    figure, (axes,) = _axes(1)
    intensity = [row["operations"] / row["bytes"] for row in rows]
    peak = max(row["peak_rate"] for row in rows)
    left, right = min(intensity) / 2, max(intensity) * 2
    if bandwidth:
        ridge = peak / bandwidth
        roof = [(left, left * bandwidth / 1e9), (ridge, peak / 1e9), (right, peak / 1e9)]
    else:
        roof = [(left, peak / 1e9), (right, peak / 1e9)]
    axes.plot(*zip(*roof, strict=True), color="black", label="measured peaks")
    best = [row["peers"].get(row.get("best_peer"), row)["seconds"] for row in rows]
    rates = [row["operations"] / seconds / 1e9 for row, seconds in zip(rows, best, strict=True)]
    axes.scatter(intensity, rates, facecolors="none", edgecolors=PEERS[0], label="best peer")
    axes.scatter(intensity, [row["rate"] / 1e9 for row in rows], label="kernels", **OURS)
    axes.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel="GFLOP/s")
    axes.set_title("Convolutions and dense layers")
    axes.legend()
    _save(figure, path)


def training(document: Document, path: Path) -> None:
    """Draw images/s by batch size, a panel for each network."""
    most = max(row["threads"] for row in document["rows"])
    other = {"accuracies", "instructions"}  # whole recipes, limited instruction sets
    rows = [row for row in document["rows"] if row["threads"] == most and not other & row.keys()]
    networks = list(dict.fromkeys(row["network"] for row in rows))
    figure, panels = _axes(len(networks))
    peers = list(dict.fromkeys(name for row in rows for name in row["peers"]))
    colors = dict(zip(peers, PEERS, strict=False))
    for axes, network in zip(panels, networks, strict=True):
        points = sorted(
            (row for row in rows if row["network"] == network), key=lambda row: row["batch_size"]
        )
        sizes = [row["batch_size"] for row in points]
        ours = [row["images_per_second"] for row in points]
        axes.plot(sizes, ours, marker="o", label="cnn", **OURS)
        for name in peers:
            theirs = [
                (row["batch_size"], row["peers"][name]["images_per_second"])
                for row in points
                if name in row["peers"]
            ]
            if theirs:
                columns = zip(*theirs, strict=True)
                axes.plot(*columns, marker="o", label=name, color=colors[name])
        axes.set(xlabel="batch size", ylabel="images/s", title=f"Training, {network} network")
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, map(str, sizes))
        axes.set_ylim(bottom=0)
    panels[0].legend(fontsize="small", framealpha=0.5)
    _save(figure, path)


def _axes(count: int, height: float = 4) -> tuple[Any, list[Any]]:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "cnn-kernels"  # the same figures give the same file
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(
        1, count, figsize=(5.5 * count, height), layout="constrained", squeeze=False
    )
    for axes in panels[0]:
        axes.grid(alpha=0.3, which="both")
        axes.spines[["top", "right"]].set_visible(False)
    return figure, list(panels[0])


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
