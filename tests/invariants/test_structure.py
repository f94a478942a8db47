"""Modules do not import each other in a circle; `cnn` imports what `kernels` offers it."""

import ast
from pathlib import Path

import pytest

import kernels
import kernels.lowlevel
from tests.lib import import_picture
from tests.lib.import_graph import circles, import_graph

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("package", ["kernels", "cnn"])
def test_no_circle_of_imports(package):
    graph = import_graph(ROOT / package)
    assert len(graph) > 30 and sum(map(len, graph.values())) > 100
    assert circles(graph) == []


def test_no_wrapper_asks_for_a_targets_name():
    """Launch shapes, shared memory and bodies are asked of the target: see runtime/target.py."""
    asking = {
        path.relative_to(ROOT / "kernels").parts[0]
        for path in (ROOT / "kernels").rglob("*.py")
        if "target.name" in path.read_text()
    }
    assert asking <= {"runtime"}


def test_the_picture_of_the_imports_is_up_to_date():
    drawn = import_picture.PICTURE.read_text()
    assert drawn == import_picture.svg(), "it is not: make imports draws it"


def test_a_box_is_drawn_above_all_that_it_imports():
    graph = {"a": {"b"}, "b": {"c"}, "c": set(), "d": {"c"}, "e": {"a", "d"}}
    assert import_picture.rows(graph) == [["c"], ["b", "d"], ["a"], ["e"]]


def test_cnn_uses_the_public_functions_and_the_level_below_them_alone():
    """Each name that `kernels.lowlevel` lists is used, too."""
    found = {
        (module, name)
        for path in (ROOT / "cnn").rglob("*.py")
        for module, name in imported_from_kernels(ast.parse(path.read_text()))
    }
    assert {module for module, _ in found} == {"kernels", "kernels.lowlevel"}
    used = {name for module, name in found if module == "kernels.lowlevel"}
    assert used == set(kernels.lowlevel.__all__)
    public = {name for module, name in found if module == "kernels"}
    assert public <= {*kernels.__all__, "lowlevel"}


def imported_from_kernels(tree):
    """Yield (module, name) for each name imported from `kernels` and each attribute of it used."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "kernels":
                    assert alias.asname is None
                    yield alias.name, "relu"  # a public name: those used are the attributes below
        elif isinstance(node, ast.ImportFrom) and not node.level:
            if node.module.split(".")[0] == "kernels":
                yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "kernels":
                yield "kernels", node.attr
            elif node.value.id == "lowlevel":
                yield "kernels.lowlevel", node.attr


CHAIN = {
    "__init__": "from .a import x",
    "a": "from . import b",
    "b": "from .inner import c",
    "inner/__init__": "",
    "inner/c": "import json",
}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, []),
        ({"inner/c": "from ..a import x"}, [["p.a", "p.b", "p.inner.c"]]),
        ({"inner/c": "from .. import b"}, [["p.b", "p.inner.c"]]),
        ({"inner/c": "import p.b"}, [["p.b", "p.inner.c"]]),
        ({"inner/c": "from p.b import x"}, [["p.b", "p.inner.c"]]),
        ({"inner/c": "def f():\n    from ..b import x"}, [["p.b", "p.inner.c"]]),
        ({"inner/c": "if TYPE_CHECKING:\n    from ..b import x"}, [["p.b", "p.inner.c"]]),
        ({"b": "from . import x"}, [["p", "p.a", "p.b"]]),  # of the package itself
        (
            {"inner/__init__": "from .c import x", "inner/c": "from . import x"},
            [["p.inner", "p.inner.c"]],
        ),
        ({"b": "from .b import x"}, [["p.b"]]),
    ],
)
def test_a_circle_is_found_wherever_it_is_closed(changed, expected, tmp_path):
    for name, text in (CHAIN | changed).items():
        path = tmp_path / "p" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert circles(import_graph(tmp_path / "p")) == expected
