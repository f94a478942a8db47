"""Models as ONNX graphs, which ONNX Runtime and others run without this project.

In a graph, activations are channels-first as ONNX has them: (N, C, H, W) for the model's
(N, H, W, C). Where ONNX or its runtimes differ from the layers (windows beyond the padding with
`ceil_mode`, dilated averages), the graph uses other operators.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np

from kernels.lowlevel import Shape, Window

from .. import checks
from ..host import to_host
from ..layers import (
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    Layer,
    LayerNorm,
    MaxPool2D,
    ReLU,
    Softmax,
)
from ..model import Sequential

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError as error:
    raise ImportError("exporting needs onnx: pip install 'cnn-kernels[onnx]'") from error

#: From 2020: current runtimes support it, and it has all operators needed here.
OPSET, IR_VERSION = 13, 7
WITH_LAYER_NORM = 17, 8  # the first that have LayerNormalization

_INPUT_TYPES = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}


def to_onnx(model: Sequential, input_type: str = "uint8") -> onnx.ModelProto:
    """Return a model as an ONNX graph for inference, checked by ONNX's checker.

    The input is "images" (N, H, W) or, with several channels, (N, H, W, C); for a model of anything
    else it is "inputs" (N, ...). The output is "probabilities" if the model ends with `Softmax`,
    else "logits". N is any number. All arithmetic is float32, whatever the model's dtype:
    runtimes have no float64 convolutions.

    Parameters
    ----------
    model : Sequential
        Its layers must be classes of this package.
    input_type : {"uint8", "float32"}
        As in `Sequential.predict`, uint8 images are normalised by the model's statistics, and
        float32 images are taken as they are.

    Raises
    ------
    TypeError
        If `model` is no model, or has a layer that is not from this package.
    ValueError
        If `input_type` is neither.
    """
    checks.instance("model", model, Sequential)
    if input_type not in _INPUT_TYPES:
        raise ValueError(f"input_type: got {input_type!r}, expected 'uint8' or 'float32'")
    graph = _Graph("input.")
    source = "images" if len(model.input_shape) == 3 else "inputs"
    shape = model.output_shape
    with model.lock:
        x = _layers(graph, model, _input(graph, source, model, input_type))
    if _channels_last(graph, x, shape) == source:
        graph.add("Identity", source)  # a graph needs a node to name its output
    result = "probabilities" if model.ends_with_softmax else "logits"
    graph.nodes[-1].output[0] = result

    grey = len(model.input_shape) == 3 and model.input_shape[-1] == 1
    input_shape = model.input_shape[:-1] if grey else model.input_shape
    normalised = any(node.op_type == "LayerNormalization" for node in graph.nodes)
    opset, ir_version = WITH_LAYER_NORM if normalised else (OPSET, IR_VERSION)
    proto = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "cnn",
            [helper.make_tensor_value_info(source, _INPUT_TYPES[input_type], ["N", *input_shape])],
            [helper.make_tensor_value_info(result, TensorProto.FLOAT, ["N", *shape])],
            graph.initializers,
        ),
        producer_name="cnn-kernels",
        producer_version=_version(),
        model_version=1,
        ir_version=ir_version,
        opset_imports=[helper.make_opsetid("", opset)],
    )
    described = {
        "input": f"{source}: {input_type} (N, {', '.join(map(str, input_shape))}), "
        + ("as they are: normalised in the graph" if input_type == "uint8" else "normalised"),
        "output": f"{result}: float32 (N, {', '.join(map(str, shape))})",
        "classes": str(shape[-1]),
        "pixel_mean": str(float(model.pixel_mean)),
        "pixel_std": str(float(model.pixel_std)),
    }
    helper.set_model_props(proto, described)
    proto = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _version() -> str:
    try:
        return metadata.version("cnn-kernels")
    except metadata.PackageNotFoundError:
        return ""  # a checkout, not installed


class _Graph:
    """Collects nodes and constants; their names begin with the scope, such as "3." for layer 3."""

    def __init__(self, scope: str) -> None:
        self.scope = scope
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        name = f"{self.scope}{op}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, values: Any, dtype: Any = np.float32) -> str:
        """Add a constant, from an array of any device, and return its name."""
        name = f"{self.scope}{name}"
        self.initializers.append(numpy_helper.from_array(to_host(values).astype(dtype), name))
        return name


def _input(graph: _Graph, x: str, model: Sequential, input_type: str) -> str:
    """Return the input channels-first and normalised, as `Sequential.prepare` does."""
    if len(model.input_shape) == 3 and model.input_shape[-1] == 1:
        x = graph.add("Unsqueeze", x, graph.constant("channel_axis", [1], np.int64))
    else:
        x = _channels_first(graph, x, model.input_shape)
    if input_type == "uint8":
        x = graph.add("Cast", x, to=TensorProto.FLOAT)
        x = graph.add("Sub", x, graph.constant("pixel_mean", model.pixel_mean))
        x = graph.add("Mul", x, graph.constant("inverse_pixel_std", 1 / model.pixel_std))
    return x


def _layers(graph: _Graph, model: Sequential, x: str) -> str:
    """Return the output of the last layer, channels-first."""
    shapes = [model.input_shape, *model.output_shapes]
    for position, (layer, shape) in enumerate(zip(model.layers, shapes[:-1], strict=True)):
        write = _WRITERS.get(type(layer))
        if write is None:
            raise TypeError(
                f"layers: got {type(layer).__name__} at position {position}, which has no ONNX "
                f"form, expected one of {', '.join(kind.__name__ for kind in _WRITERS)}"
            )
        graph.scope = f"{position}."
        x = write(graph, layer, x, shape)
    graph.scope = "output."
    return x


def _channels_first(graph: _Graph, x: str, shape: Shape) -> str:
    """Return x (N, ..., C) as (N, C, ...); (N, C) stays as it is."""
    axes = len(shape)
    return x if axes < 2 else graph.add("Transpose", x, perm=[0, axes, *range(1, axes)])


def _channels_last(graph: _Graph, x: str, shape: Shape) -> str:
    """Return x (N, C, ...) as (N, ..., C), for the model's `shape` (..., C)."""
    axes = len(shape)
    return x if axes < 2 else graph.add("Transpose", x, perm=[0, *range(2, axes + 1), 1])


def _conv2d(graph: _Graph, layer: Conv2D, x: str, shape: Shape) -> str:
    g = layer.window
    arrays = [graph.constant("weight", layer.parameters["weight"].transpose(0, 3, 1, 2))]
    if layer.bias:
        arrays.append(graph.constant("bias", layer.parameters["bias"]))
    dilations = [g.DH, g.DW]
    return graph.add("Conv", x, *arrays, group=layer.groups, dilations=dilations, **_sizes(g))


def _max_pool2d(graph: _Graph, layer: MaxPool2D, x: str, shape: Shape) -> str:
    g = layer.window
    sizes = _sizes(g)
    top, left, bottom, right = sizes["pads"]
    if max(top, bottom) >= g.KH or max(left, right) >= g.KW:
        # Runtimes refuse pads as large as the kernel, which dilated windows may have.
        pads = graph.constant("pads", [0, 0, top, left, 0, 0, bottom, right], np.int64)
        x = graph.add("Pad", x, pads, graph.constant("lowest", -math.inf))
        sizes["pads"] = [0, 0, 0, 0]
    return graph.add("MaxPool", x, dilations=[g.DH, g.DW], **sizes)


def _avg_pool2d(graph: _Graph, layer: AvgPool2D, x: str, shape: Shape) -> str:
    g, padding = layer.window, layer.pads
    if not layer.count_include_pad:
        padding = (0, 0), (0, 0)
    sizes = _sizes(g)
    ends = (padding[0][1], padding[1][1])
    hangs_over = any(reach > end for reach, end in zip(sizes["pads"][2:], ends, strict=True))
    if (g.DH, g.DW) == (1, 1) and not (layer.count_include_pad and hangs_over):
        return graph.add("AveragePool", x, count_include_pad=int(layer.count_include_pad), **sizes)
    # ONNX has dilated averages only from opset 19 on, and some runtimes count cells beyond the
    # padding. So a convolution sums up, and the sums are multiplied by 1 / the number of cells.
    C = shape[2]
    ones = graph.constant("ones", np.ones((C, 1, g.KH, g.KW)))
    sums = graph.add("Conv", x, ones, group=C, dilations=[g.DH, g.DW], **sizes)
    rows = _cells(g.OH, g.KH, g.SH, g.DH, g.PH, g.H, padding[0])
    columns = _cells(g.OW, g.KW, g.SW, g.DW, g.PW, g.W, padding[1])
    share = 1 / np.maximum(np.outer(rows, columns), 1)
    return graph.add("Mul", sums, graph.constant("share", share))


def _global_avg_pool2d(graph: _Graph, layer: GlobalAvgPool2D, x: str, shape: Shape) -> str:
    return graph.add("Flatten", graph.add("GlobalAveragePool", x))


def _batch_norm(graph: _Graph, layer: BatchNorm, x: str, shape: Shape) -> str:
    names = ("gamma", "beta", "running_mean", "running_var")
    arrays = layer.parameters | layer.state
    constants = [graph.constant(name, arrays[name]) for name in names]
    return graph.add("BatchNormalization", x, *constants, epsilon=layer.eps)


def _layer_norm(graph: _Graph, layer: LayerNorm, x: str, shape: Shape) -> str:
    constants = [graph.constant(name, values) for name, values in layer.parameters.items()]
    x = _channels_last(graph, x, shape)
    y = graph.add("LayerNormalization", x, *constants, axis=-1, epsilon=layer.eps)
    graph.scope += "back."  # a name of its own for the second Transpose
    return _channels_first(graph, y, shape)


def _dense(graph: _Graph, layer: Dense, x: str, shape: Shape) -> str:
    arrays = [graph.constant("weight", layer.parameters["weight"])]
    if layer.bias:
        arrays.append(graph.constant("bias", layer.parameters["bias"]))
    return graph.add("Gemm", x, *arrays, transB=1)


def _flatten(graph: _Graph, layer: Flatten, x: str, shape: Shape) -> str:
    return graph.add("Flatten", _channels_last(graph, x, shape))


def _relu(graph: _Graph, layer: ReLU, x: str, shape: Shape) -> str:
    return graph.add("Relu", x)


def _softmax(graph: _Graph, layer: Softmax, x: str, shape: Shape) -> str:
    return graph.add("Softmax", x, axis=1)  # of channels


def _dropout(graph: _Graph, layer: Dropout, x: str, shape: Shape) -> str:
    return x


_WRITERS: dict[type[Layer], Callable[[_Graph, Any, str, Shape], str]] = {
    Conv2D: _conv2d,
    Dense: _dense,
    BatchNorm: _batch_norm,
    LayerNorm: _layer_norm,
    ReLU: _relu,
    Softmax: _softmax,
    MaxPool2D: _max_pool2d,
    AvgPool2D: _avg_pool2d,
    GlobalAvgPool2D: _global_avg_pool2d,
    Dropout: _dropout,
    Flatten: _flatten,
}


def _sizes(g: Window) -> dict[str, list[int]]:
    """Return attributes that give OH x OW windows without ONNX's ceil_mode.

    With ceil_mode, some runtimes let windows start in the padding at the end. Here that padding is
    as large as the last window needs.
    """
    rows, columns = g.reach
    pads = [g.PH, g.PW, max(0, rows - g.PH - g.H), max(0, columns - g.PW - g.W)]
    return {"kernel_shape": [g.KH, g.KW], "strides": [g.SH, g.SW], "pads": pads}


def _cells(
    outputs: int,
    taps: int,
    stride: int,
    dilation: int,
    start: int,
    length: int,
    padding: tuple[int, int],
) -> np.ndarray[Any, Any]:
    """Return the number of cells of each window, along one axis, in the image or its padding."""
    first = np.arange(outputs)[:, None] * stride - start
    cells = first + np.arange(taps) * dilation
    counted = (cells >= -padding[0]) & (cells < length + padding[1])
    return np.asarray(counted.sum(axis=1))
