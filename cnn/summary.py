"""The table that `Sequential.summary` returns: layers, operations and memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kernels.lowlevel import Shape

from .layers import Conv2D, Dense, Flatten, Layer
from .network import Network

_HEADER = ("layer", "output", "parameters", "FLOP", "bytes")


def summary(model: Network, batch_size: int) -> str:
    """Return the table; see `Sequential.summary`."""
    item = model.dtype.itemsize
    inputs = math.prod(model.input_shape) * item
    rows: list[Sequence[str]] = [_HEADER, ("input", str(model.input_shape), "", "", f"{inputs:,}")]
    operations = outputs = 0
    for position, (layer, shape) in enumerate(zip(model.layers, model.output_shapes, strict=True)):
        parameters = sum(math.prod(array.shape) for array in layer.parameters.values())
        flop = forward_flop(layer, shape)
        # Flatten gives a view.
        size = 0 if isinstance(layer, Flatten) else math.prod(shape) * item
        counts = (f"{count:,}" for count in (parameters, flop, size))
        rows.append((f"{position} {type(layer).__name__}", str(shape), *counts))
        operations += flop
        outputs += size
    counts = (f"{count:,}" for count in (model.parameter_count, operations, inputs + outputs))
    rows.append(("total", "", *counts))
    parameter_bytes = model.parameter_count * item
    training = 2 * parameter_bytes + batch_size * (inputs + outputs)
    return f"""{_aligned(rows)}
FLOP: forward, per image; a multiply-add of Conv2D or Dense is 2, all else is 0
bytes: activations, {model.dtype}, per image; the parameters take {parameter_bytes:,}
training in batches of {batch_size:,}: {training:,} bytes of activations, parameters, gradients"""


def forward_flop(layer: Layer, shape: Shape) -> int:
    """Return the operations of a layer's forward for one output of `shape`.

    A multiply-add of `Conv2D` or `Dense` counts as 2; biases and other layers count as 0.
    """
    if not isinstance(layer, (Conv2D, Dense)):
        return 0
    weights: int = math.prod(layer.parameters["weight"].shape)
    return 2 * math.prod(shape[:-1]) * weights  # every weight is used once at each position


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return a line per row, with names aligned to the left and counts to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        + [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        for row in rows
    )
    return "\n".join("  ".join(line) for line in lines)
