"""The two figures: the kernels' roofline, and training throughput by batch size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Document = dict[str, Any]
OURS = {"color": "#d1495b", "zorder": 3}
PEERS = ["#30638e", "#edae49", "#00798c", "#8d96a3", "#5f0f40", "#9a8c98"]


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
    rows = [row for row in document["rows"] if row["threads"] == most and "accuracies" not in row]
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


def _axes(count: int) -> tuple[Any, list[Any]]:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "cnn-kernels"  # the same figures give the same file
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(
        1, count, figsize=(5.5 * count, 4), layout="constrained", squeeze=False
    )
    for axes in panels[0]:
        axes.grid(alpha=0.3, which="both")
        axes.spines[["top", "right"]].set_visible(False)
    return figure, list(panels[0])


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
