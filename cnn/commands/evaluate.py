"""``cnn evaluate``: measure saved models, several of them also as one."""

from __future__ import annotations

import argparse
from typing import Any

from .options import (
    add_data,
    add_device,
    add_json,
    check_data,
    check_outputs,
    device,
    path,
    report,
    say,
    write_json,
)

HELP = "measure saved models"
DESCRIPTION = """\
Measure saved models on the test images: each of them and, if there are
several, the mean of their probabilities."""
EXAMPLES = """\
  cnn evaluate model.safetensors
  cnn evaluate runs/1/model.safetensors runs/2/model.safetensors
  cnn evaluate runs/mine/model.safetensors --dataset synthetic"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model, the data and where they go."""
    parser.add_argument(
        "models", type=path, nargs="+", metavar="MODEL", help="one that train wrote"
    )
    add_data(parser)
    add_device(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Print accuracy and loss, of each model and of all."""
    from .. import data
    from ..ensemble import Ensemble
    from ..evaluation import evaluate
    from ..model import Sequential

    check_data(options)
    check_outputs(options, [options.json], options.models)
    chosen = device(options.device, say)
    models = [Sequential.load(file, chosen) for file in options.models]
    together = models[0] if len(models) == 1 else Ensemble(models)
    _, test = data.load(options.dataset, options.data, say=say)

    def measured(model: Sequential | Ensemble) -> dict[str, float]:
        found = evaluate(model, test)
        return {"test_loss": found["loss"], "test_accuracy": found["accuracy"]}

    each: list[dict[str, Any]] = [
        {"model": str(file), "parameters": model.parameter_count, **measured(model)}
        for file, model in zip(options.models, models, strict=True)
    ]
    whole = each[0]
    if len(each) > 1:
        for one in each:
            report(f"{one['model']}: {_told(one)}", options.json)
        parameters = sum(model.parameter_count for model in models)
        whole = {"models": each, "parameters": parameters, **measured(together)}
    write_json(options.json, {"dataset": test.name, "device": chosen, **whole})
    of_all = f", mean of {len(each)} models" if len(each) > 1 else ""
    report(f"{test.name} {_told(whole)}{of_all}", options.json)
    return 0


def _told(results: dict[str, Any]) -> str:
    return f"test accuracy {results['test_accuracy']:.2%}, loss {results['test_loss']:.4f}"
