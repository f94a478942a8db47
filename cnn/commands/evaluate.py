"""``cnn evaluate``: measure a saved model."""

from __future__ import annotations

import argparse

from .options import add_data, add_device, add_json, check_outputs, device, path, say, write_json

HELP = "measure a saved model"
DESCRIPTION = "Measure a saved model on the test images."
EXAMPLES = """\
  cnn evaluate model.safetensors
  cnn evaluate runs/mine/model.safetensors --dataset synthetic"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model, the data and where they go."""
    parser.add_argument("model", type=path, metavar="MODEL", help="one that train wrote")
    add_data(parser)
    add_device(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Print accuracy and loss."""
    from .. import data
    from ..evaluation import evaluate
    from ..model import Sequential

    check_outputs(options, [options.json], [options.model])
    chosen = device(options.device, say)
    model = Sequential.load(options.model, chosen)
    _, test = data.load(options.dataset, options.data, say=say)
    found = evaluate(model, test)
    results = {
        "dataset": test.name,
        "device": chosen,
        "model": str(options.model),
        "parameters": model.parameter_count,
        "test_loss": found["loss"],
        "test_accuracy": found["accuracy"],
    }
    write_json(options.json, results)
    print(f"{test.name} test accuracy {found['accuracy']:.2%}, loss {found['loss']:.4f}")
    return 0
