"""Which modules of a package import which, read from their text.

All imports count: those within functions, and those for the type checker alone.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

Graph = dict[str, set[str]]


def import_graph(package: Path) -> Graph:
    """Return the names of a package's modules, each with those that it imports.

    ``from . import name`` imports the module of that name if there is one, else the package. The
    implicit imports of a module's own packages are left out.
    """
    modules = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        modules[".".join(parts).removesuffix(".__init__")] = path
    return {
        module: {name for name in _imported(module, path, modules) if name in modules}
        for module, path in modules.items()
    }


def _imported(module: str, path: Path, modules: dict[str, Path]) -> Iterator[str]:
    parts = [*module.split("."), "__init__"] if path.stem == "__init__" else module.split(".")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            inside = parts[: len(parts) - node.level] if node.level else []
            source = ".".join([*inside, *([node.module] if node.module else [])])
            for alias in node.names:
                name = f"{source}.{alias.name}"
                yield name if name in modules else source


def circles(graph: Graph) -> list[list[str]]:
    """Return the largest sets of modules that all import each other, directly or by others."""
    reached = {module: _reached(graph, module) for module in graph}
    found = {
        tuple(sorted(other for other in reached[module] if module in reached[other]))
        for module in graph
        if module in reached[module]
    }
    return sorted(map(list, found))


def _reached(graph: Graph, start: str) -> set[str]:
    """Return the modules that one imports, directly or not; itself only if in a circle."""
    reached: set[str] = set()
    left = [start]
    while left:
        for module in graph[left.pop()] - reached:
            reached.add(module)
            left.append(module)
    return reached
