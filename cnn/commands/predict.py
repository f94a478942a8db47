"""``cnn predict``: classify pictures of digits."""

from __future__ import annotations

import argparse
from typing import Any

from .options import (
    add_device,
    add_json,
    check_outputs,
    device,
    path,
    positive,
    report,
    say,
    write_json,
)

HELP = "classify pictures of digits"
DESCRIPTION = """\
Classify pictures of one digit each: PNG or JPEG, of any size, light on dark or
dark on light. They are scaled and centred as MNIST's are."""
EXAMPLES = """\
  cnn predict model.safetensors seven.png
  cnn predict model.safetensors *.jpg --top 1 --json answers.json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model, the pictures, and what is shown and written."""
    parser.add_argument("model", type=path, metavar="MODEL", help="one that train wrote")
    parser.add_argument("images", type=path, nargs="+", metavar="IMAGE", help="PNG or JPEG file")
    parser.add_argument(
        "--top",
        type=positive,
        default=3,
        metavar="N",
        help="show the N most probable classes (default: %(default)s)",
    )
    add_device(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Print the most probable classes of each picture; return 1 if one could not be used."""
    import numpy as np

    from .. import picture
    from ..model import Sequential

    check_outputs(options, [options.json], [options.model, *options.images])
    model = Sequential.load(options.model, device(options.device, say))
    size = picture.image_size(model)
    answers: list[dict[str, Any]] = []
    digits = []
    for image in options.images:
        answers.append({"image": str(image)})
        try:
            digits.append(picture.centre(picture.read(image), size))
        except picture.PictureError as error:
            say(f"cnn: error: {image}: {error}")
            answers[-1]["error"] = str(error)
    usable = [answer for answer in answers if "error" not in answer]
    found = picture.probabilities(model, np.array(digits, np.uint8).reshape(-1, *size))
    for answer, of_classes in zip(usable, found, strict=True):
        ranked = (-of_classes).argsort(kind="stable")  # of equal ones the first, as evaluate
        answer["class"] = int(ranked[0])
        answer["probabilities"] = of_classes.tolist()
        best = (f"{index} ({of_classes[index]:.1%})" for index in ranked[: options.top])
        report(f"{answer['image']}: {', '.join(best)}", options.json)
    write_json(options.json, {"model": str(options.model), "images": answers})
    return 0 if len(usable) == len(answers) else 1
