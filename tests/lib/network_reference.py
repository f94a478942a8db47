"""A float64 NumPy network and its training, from the oracles of layers and `cnn`'s own rules."""

import numpy as np

import cnn
from tests.cases.layers import ORACLES
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
            x, backward = ORACLES[type(layer)](layer, parameters, state, x, training)
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
