"""Write the README's table from bench/results, between its markers.

python bench/report.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path

HERE = Path(__file__).parent
README = HERE.parent / "README.md"


def main() -> None:
    text = README.read_text()
    found = re.search(r"(<!-- training:.*?-->\n).*?(<!-- end of training -->)", text, re.DOTALL)
    assert found, "README.md has lost its markers"
    README.write_text(text[: found.start()] + found[1] + table() + found[2] + text[found.end() :])


def table() -> str:
    document = json.loads((HERE / "results" / "training-cpu.json").read_text())
    machine = document["machine"]
    lines = [
        "| recipe | epochs | MNIST test accuracy, mean ± deviation (lowest) | training | memory |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, recipe in document["recipes"].items():
        s, run = recipe["summary"], recipe["runs"][0]
        lines.append(
            f"| `{name}` | {run['epochs']} | {s['mean_test_accuracy']:.2%} ± "
            f"{s['standard_deviation']:.2%} ({s['lowest_test_accuracy']:.2%}), "
            f"{s['seeds']} seeds | {s['median_train_seconds']:.1f} s, "
            f"{s['median_images_per_second']:,.0f} images/s | {s['peak_memory_mib']} MiB |"
        )
    about = (
        f"Measured on {machine['threads']} cores ({machine['cpu']}), without a GPU, by\n"
        "`python bench/training.py --recipe NAME --seeds 0 1 2 ...`; medians over the seeds.\n"
        "The clock covers the training steps, not compiling, loading data or evaluating.\n"
    )
    return "\n".join(["", *lines, "", about, ""])


if __name__ == "__main__":
    main()
