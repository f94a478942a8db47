"""Modules of a package do not import each other in a circle."""

from pathlib import Path

import pytest

from import_graph import circles, import_graph

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("package", ["kernels", "cnn"])
def test_no_circle_of_imports(package):
    graph = import_graph(ROOT / package)
    assert len(graph) > 30 and sum(map(len, graph.values())) > 100
    assert circles(graph) == []


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
