"""A float64 NumPy network and its training, from the oracle's functions and `cnn`'s own rules.

Each function takes a layer's settings from the layer itself and the numbers from the caller; it
returns the output and a function from dy to (dx, gradients by parameter name).
"""

import numpy as np

import cnn
from tests.lib import reference
from tests.lib.support import host


class Network:
    """The layers of a built model with float64 copies of its parameters and state."""

    def __init__(self, model):
        self.layers = model.layers
        self.parameters = [_float64(layer.parameters) for layer in model.layers]
        self.state = [_float64(layer.state) for layer in model.layers]

    def forward(self, x, training=False):
        self._backward = []
        for layer, parameters, state in zip(self.layers, self.parameters, self.state, strict=True):
            x, backward = FUNCTIONS[type(layer)](layer, parameters, state, x, training)
            self._backward.append(backward)
        return x

    def backward(self, dy):
        """Return dx and the gradients of each layer."""
        gradients = []
        for backward in reversed(self._backward):
            dy, of_layer = backward(dy)
            gradients.append(of_layer)
        return dy, gradients[::-1]

    def named_parameters(self):
        """Return the parameters by the names that a model gives them."""
        return {
            f"{position}.{name}": values
            for position, parameters in enumerate(self.parameters)
            for name, values in parameters.items()
        }


def train(network, data, optimizer, *, steps, batch_size, seed, factor):
    """Train as `Trainer.fit` does; return the loss of every step.

    `optimizer` has the settings; `factor` gives the schedule's factor of a step.
    """
    images, labels = data
    images = images.astype(np.float64)
    images = (images - images.mean()) / images.std()
    slots = [{name: {} for name in layer} for layer in network.parameters]
    losses, seen, order = [], 0, np.array([], int)
    for step in range(steps):
        if len(order) == 0:
            order = np.random.default_rng((seed, seen)).permutation(len(images))
        chosen, order = order[:batch_size], order[batch_size:]
        seen += len(chosen)
        logits = network.forward(images[chosen][..., None], training=True)
        loss, dlogits = reference.softmax_cross_entropy(logits, labels[chosen])
        losses.append(float(loss))
        _, gradients = network.backward(dlogits)
        for parameters, of_layer, slot in zip(network.parameters, gradients, slots, strict=True):
            for name in parameters:
                parameters[name] = _update(
                    optimizer, parameters[name], of_layer[name], slot[name], step, factor(step)
                )
    return losses


def _update(optimizer, parameter, gradient, slot, step, factor):
    lr, decay = optimizer.lr * factor, optimizer.weight_decay
    zeros = np.zeros_like(parameter)
    if isinstance(optimizer, cnn.Adam):
        parameter, slot["m"], slot["v"] = reference.adam_step(
            parameter,
            gradient,
            slot.get("m", zeros),
            slot.get("v", zeros),
            step=step + 1,
            lr=lr,
            betas=optimizer.betas,
            eps=optimizer.eps,
            weight_decay=decay,
            decoupled=isinstance(optimizer, cnn.AdamW),
        )
        return parameter
    velocity = slot.get("velocity", zeros) if optimizer.momentum else None
    parameter, slot["velocity"] = reference.sgd_step(
        parameter,
        gradient,
        velocity,
        lr=lr,
        momentum=optimizer.momentum,
        nesterov=optimizer.nesterov,
        weight_decay=decay,
    )
    return parameter


def _float64(arrays):
    return {name: host(array).astype(np.float64) for name, array in arrays.items()}


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


FUNCTIONS = {
    cnn.Conv2D: _conv2d,
    cnn.Dense: _dense,
    cnn.BatchNorm: _batch_norm,
    cnn.ReLU: _relu,
    cnn.Softmax: _softmax,
    cnn.MaxPool2D: _max_pool2d,
    cnn.AvgPool2D: _avg_pool2d,
    cnn.GlobalAvgPool2D: _global_avg_pool2d,
    cnn.Flatten: _flatten,
}
