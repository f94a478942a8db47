"""Write the tables of the READMEs, and the figures, from bench/results.

python -m bench.report.tables
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from bench.report import figures, of_kernels, of_networks
from bench.report.markdown import recorded

BENCH = Path(__file__).resolve().parents[1]
RESULTS = BENCH / "results"
FOLDERS = (".", "bench", "cnn", "kernels/torch")
PAGES = [BENCH.parent / folder / "README.md" for folder in FOLDERS]  # those with tables
NOTHING = "Nothing is on record: `make bench && make report`.\n\n"

#: Each part's Markdown, by the name in its markers.
PARTS: dict[str, Callable[[Path], str]] = {
    "naive": of_kernels.naive,
    "processes": of_networks.processes,
    "training": of_networks.recipes,
    "speed": of_networks.speed,
    "kernels": of_kernels.kernels,
    "training-peers": of_networks.training,
    "inference": of_networks.inference,
    "overhead": of_kernels.overhead,
    "accelerate": of_kernels.accelerate,
    "accelerated-layers": of_kernels.accelerated_layers,
    "start": of_networks.start,
}


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


if __name__ == "__main__":
    main()
