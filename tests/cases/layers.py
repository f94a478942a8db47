"""The table of layers, which tests read: how to make each, inputs, oracle and PyTorch's module.

An oracle reads the settings from the layer and takes the arrays from its caller; it returns the
output and a function from dy to (dx, gradients by parameter name).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import cnn
from cnn import (
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
from tests.cases import norm
from tests.lib import reference


class LayerCase(NamedTuple):
    """How to make a layer, and the shapes of an input and of the output, with the batch axis.

    `pytorch` is called with `torch.nn` and makes the module whose `state_dict` is the layer's. The
    layer's class has its oracle in `ORACLES`.
    """

    make: Callable[[], Layer]
    input: tuple[int, ...]
    output: tuple[int, ...]
    pytorch: Callable[[Any], Any] | None = None


LAYERS = {
    "conv": LayerCase(
        lambda: Conv2D(3, 3), (2, 5, 6, 2), (2, 3, 4, 3), lambda nn: nn.Conv2d(2, 3, 3)
    ),
    "conv of one pixel": LayerCase(lambda: Conv2D(1, 1), (1, 1, 1, 1), (1, 1, 1, 1)),
    "conv, same": LayerCase(
        lambda: Conv2D(2, 4, padding="same", bias=False), (2, 5, 4, 3), (2, 5, 4, 2)
    ),
    "conv, strided": LayerCase(
        lambda: Conv2D(4, (3, 2), stride=(2, 3)), (3, 7, 8, 1), (3, 3, 3, 4)
    ),
    "conv, one side padded": LayerCase(
        lambda: Conv2D(2, 3, padding=((2, 0), (0, 1))),
        (1, 4, 4, 1),
        (1, 4, 3, 2),
    ),
    "conv, dilated groups": LayerCase(
        lambda: Conv2D(4, 2, dilation=(2, 3), groups=2),
        (2, 5, 6, 4),
        (2, 3, 3, 4),
    ),
    "dense": LayerCase(lambda: Dense(3), (4, 5), (4, 3), lambda nn: nn.Linear(5, 3)),
    "dense, one unit": LayerCase(
        lambda: Dense(1, bias=False), (1, 7), (1, 1), lambda nn: nn.Linear(7, 1, bias=False)
    ),
    "batch-norm of images": LayerCase(
        lambda: BatchNorm(), (3, 4, 5, 2), (3, 4, 5, 2), lambda nn: nn.BatchNorm2d(2)
    ),
    "batch-norm of rows": LayerCase(
        lambda: BatchNorm(momentum=0.3, eps=0.1),
        (7, 3),
        (7, 3),
        lambda nn: nn.BatchNorm1d(3, eps=0.1),
    ),
    "layer-norm of images": LayerCase(lambda: LayerNorm(), (2, 3, 4, 5), (2, 3, 4, 5)),
    "layer-norm of rows": LayerCase(
        lambda: LayerNorm(eps=0.1), (4, 7), (4, 7), lambda nn: nn.LayerNorm(7, eps=0.1)
    ),
    "relu": LayerCase(lambda: ReLU(), (2, 3, 3, 5), (2, 3, 3, 5)),
    "softmax": LayerCase(lambda: Softmax(), (4, 6), (4, 6)),
    "max-pool": LayerCase(lambda: MaxPool2D(2), (2, 5, 4, 3), (2, 2, 2, 3)),
    "max-pool, overlapping": LayerCase(
        lambda: MaxPool2D(3, stride=2, padding=1),
        (2, 6, 5, 2),
        (2, 3, 3, 2),
    ),
    "max-pool, rounded up": LayerCase(
        lambda: MaxPool2D((2, 3), dilation=(2, 1), ceil_mode=True),
        (1, 6, 7, 2),
        (1, 3, 3, 2),
    ),
    "average pool": LayerCase(lambda: AvgPool2D(2, stride=1), (2, 4, 3, 3), (2, 3, 2, 3)),
    "average pool, padding not counted": LayerCase(
        lambda: AvgPool2D(3, padding=(1, 0), ceil_mode=True, count_include_pad=False),
        (1, 5, 7, 2),
        (1, 2, 3, 2),
    ),
    "global average pool": LayerCase(lambda: GlobalAvgPool2D(), (3, 4, 5, 2), (3, 2)),
    "flatten": LayerCase(lambda: Flatten(), (3, 2, 4, 5), (3, 40)),
    "dropout": LayerCase(lambda: Dropout(0.4), (5, 6, 2), (5, 6, 2)),
    "dropout of nothing": LayerCase(lambda: Dropout(0.0), (5, 6), (5, 6)),
}


def _conv2d(layer, parameters, state, x, training):
    options = {k: getattr(layer, k) for k in ("stride", "padding", "dilation", "groups")}
    weight = parameters["weight"]

    def backward(dy):
        dx, dw, db = reference.conv2d_backward(dy, x, weight, **options)
        return dx, {"weight": dw, "bias": db}

    return reference.conv2d(x, weight, parameters.get("bias"), **options), backward


def _dense(layer, parameters, state, x, training):
    weight = parameters["weight"].T  # the oracle's is (in, out)

    def backward(dy):
        dx, dw, db = reference.dense_backward(dy, x, weight)
        return dx, {"weight": dw.T, "bias": db}

    return reference.dense(x, weight, parameters.get("bias")), backward


def _batch_norm(layer, parameters, state, x, training):
    gamma, beta = parameters["gamma"], parameters["beta"]
    running = state["running_mean"], state["running_var"]
    y, state["running_mean"], state["running_var"] = reference.batch_norm(
        x, gamma, beta, *running, training=training, momentum=layer.momentum, eps=layer.eps
    )

    def backward(dy):
        dx, dgamma, dbeta = reference.batch_norm_backward(
            dy, x, gamma, beta, *running, training=training, eps=layer.eps
        )
        return dx, {"gamma": dgamma, "beta": dbeta}

    return y, backward


def _layer_norm(layer, parameters, state, x, training):
    gamma = parameters["gamma"]
    y, *saved = norm.layer_norm(x, gamma, parameters["beta"], layer.eps)

    def backward(dy):
        dx, dgamma, dbeta = norm.layer_norm_backward(dy, x, gamma, *saved)
        return dx, {"gamma": dgamma, "beta": dbeta}

    return y, backward


def _relu(layer, parameters, state, x, training):
    y = reference.relu(x)
    return y, lambda dy: (reference.relu_backward(dy, y), {})


def _softmax(layer, parameters, state, x, training):
    y = reference.softmax(x)
    return y, lambda dy: (reference.softmax_backward(dy, y), {})


def _max_pool2d(layer, parameters, state, x, training):
    options = layer.settings()
    y, argmax = reference.max_pool2d(x, **options)
    return y, lambda dy: (reference.max_pool2d_backward(dy, argmax, x.shape, **options), {})


def _avg_pool2d(layer, parameters, state, x, training):
    options = layer.settings()
    y = reference.avg_pool2d(x, **options)
    return y, lambda dy: (reference.avg_pool2d_backward(dy, x.shape, **options), {})


def _global_avg_pool2d(layer, parameters, state, x, training):
    y = reference.global_avg_pool2d(x)
    return y, lambda dy: (reference.global_avg_pool2d_backward(dy, x.shape), {})


def _flatten(layer, parameters, state, x, training):
    return x.reshape(len(x), -1), lambda dy: (dy.reshape(x.shape), {})


ORACLES = {
    cnn.Conv2D: _conv2d,
    cnn.Dense: _dense,
    cnn.BatchNorm: _batch_norm,
    cnn.LayerNorm: _layer_norm,
    cnn.ReLU: _relu,
    cnn.Softmax: _softmax,
    cnn.MaxPool2D: _max_pool2d,
    cnn.AvgPool2D: _avg_pool2d,
    cnn.GlobalAvgPool2D: _global_avg_pool2d,
    cnn.Flatten: _flatten,
}
