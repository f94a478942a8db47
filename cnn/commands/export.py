"""``cnn export``: write a saved model as an ONNX graph."""

from __future__ import annotations

import argparse

from .options import check_outputs, path, report, uninterrupted

HELP = "write a model as ONNX"
DESCRIPTION = """\
Write a saved model as an ONNX graph, for ONNX Runtime and others.

The graph takes any number of uint8 images (N, H, W) as they are, and normalises
them as the model does. Its arithmetic is float32."""
EXAMPLES = """\
  cnn export model.safetensors model.onnx
  cnn export model.safetensors model.onnx --input-type float32"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the two files and what the graph takes."""
    parser.add_argument("model", type=path, metavar="MODEL", help="one that train wrote")
    parser.add_argument("output", type=path, metavar="ONNX", help="file to write")
    parser.add_argument(
        "--input-type",
        choices=("uint8", "float32"),
        default="uint8",
        help="uint8: images as they are; float32: images already normalised (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    """Write the graph, then print what it takes and gives."""
    from ..files import write_whole
    from ..model import Sequential

    with uninterrupted():
        from ..formats.onnx import to_onnx
    check_outputs(options, [options.output], [options.model])
    model = Sequential.load(options.model, "cpu")
    proto = to_onnx(model, options.input_type)
    write_whole(options.output, proto.SerializeToString(deterministic=True))
    described = {entry.key: entry.value for entry in proto.metadata_props}
    opset = proto.opset_import[0].version
    graph = f"{described['input']}; {described['output']}; opset {opset}"
    report(f"{options.output}: {graph}", options.output)
    return 0
