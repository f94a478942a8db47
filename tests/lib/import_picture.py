"""A picture of what imports what: ``python -m tests.lib.import_picture`` draws tests/imports.svg.

A box is a folder of a package, or a file outside of folders. It imports or includes only boxes of
lower rows, so it can be read without those above it. (`kernels.torch` stands low because it looks
up the public functions at run time.)
"""

import re
from collections.abc import Iterator
from html import escape
from pathlib import Path

from .import_graph import Graph, circles, import_graph

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "tests" / "imports.svg"

_WIDTH, _MARGIN, _GAP = 960, 14, 8  # pixels
_ROW, _BOX = 36, 26
_LETTER, _PADDING = 7.3, 10  # of a box: pixels per letter, and beside them
_COLOURS = {"cnn": "#dbe7fb", "kernels": "#dff0dc"}
_OPEN = {"formats"}  # a folder whose files are boxes: models are above one and below another
_INCLUDE = re.compile(r'^#include "(\w+)/', re.MULTILINE)


def boxes(package: str) -> Graph:
    """Return the boxes of a package, each with those that it imports or includes."""
    graph: Graph = {}
    for module, imported in import_graph(ROOT / package).items():
        if module.removeprefix(f"{package}.") in _OPEN:
            continue
        own = graph.setdefault(_box(module), set())
        own |= {_box(name) for name in imported} - {_box(module)}
    for family, header in _included(package):
        graph.setdefault(header, set())
        graph[family] |= {header} - {family}
    return graph


def _box(module: str) -> str:
    """Return the box that a module is drawn in: ``cnn.layers.pool`` in "layers"."""
    package, *path = module.split(".")
    if not path:
        return f"{package}: public names"
    return "/".join(path) if path[0] in _OPEN else path[0]


def _included(package: str) -> Iterator[tuple[str, str]]:
    """Yield (folder, folder) for each header that a CUDA source includes."""
    for path in sorted((ROOT / package).rglob("*.cu*")):
        if path.suffix in (".cu", ".cuh"):
            yield from ((path.parent.name, name) for name in _INCLUDE.findall(path.read_text()))


def rows(graph: Graph) -> list[list[str]]:
    """Return the boxes in rows, the lowest first: each is one above the highest that it imports."""
    assert circles(graph) == []
    height: dict[str, int] = {}
    while len(height) < len(graph):
        for box, imported in graph.items():
            if box not in height and imported <= height.keys():
                height[box] = 1 + max((height[name] for name in imported), default=-1)
    levels = range(max(height.values()) + 1)
    return [sorted(box for box in graph if height[box] == level) for level in levels]


def svg() -> str:
    """Return the picture: `cnn` above `kernels`, of which it imports the highest rows alone."""
    lines: list[str] = []
    y = _MARGIN
    for package in ("cnn", "kernels"):
        graph = boxes(package)
        for row in reversed(rows(graph)):
            widths = [len(box) * _LETTER + 2 * _PADDING for box in row]
            x = (_WIDTH - sum(widths) - _GAP * (len(row) - 1)) / 2
            assert x > 0, f"{len(row)} boxes are too many for a row"
            for box, width in zip(row, widths, strict=True):
                lines += _drawn(box, sorted(graph[box]), x, y, width, _COLOURS[package])
                x += width + _GAP
            y += _ROW
        y += _ROW // 2
    size = f'width="{_WIDTH}" height="{y}" viewBox="0 0 {_WIDTH} {y}"'
    style = 'font-family="DejaVu Sans Mono, monospace" font-size="12" text-anchor="middle"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *lines, "</svg>\n"])


def _drawn(box: str, imported: list[str], x: float, y: int, width: float, fill: str) -> list[str]:
    place = f'x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_BOX}" rx="4"'
    title = f"{box} imports {', '.join(imported) or 'no other box'}"
    return [
        f"<g><title>{escape(title)}</title>",
        f'<rect {place} fill="{fill}" stroke="#8a8a8a"/>',
        f'<text x="{x + width / 2:.1f}" y="{y + 17}">{escape(box)}</text></g>',
    ]


if __name__ == "__main__":
    PICTURE.write_text(svg())
    print(f"wrote {PICTURE}")
