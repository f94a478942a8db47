"""Mixed precision: layers that compute in 16 bits, on rounded copies of float32 parameters.

Source: Micikevicius et al., "Mixed precision training", 2018.
"""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import Any

import numpy as np

from kernels.lowlevel import Array, cast

from .layers import Layer
from .network import Network
from .recordable import own

#: The type of activations, gradients and copies, by the precision of a training.
_TYPES = {"bf16": "bfloat16", "fp16": "float16"}


class NarrowNetwork(Network):
    """The layers of a network in a 16-bit type.

    Its parameters are copies of the network's, and its gradients have their type. Layers without
    parameters are the network's own, and so are running statistics, which 16 bits would lose.

    Parameters
    ----------
    network : Network
        Of float32.
    dtype : str
        "bfloat16" or "float16".
    """

    def __init__(self, network: Network, dtype: str) -> None:
        vars(self).update(vars(network))
        self._network = network
        self.dtype = np.dtype(dtype)
        size = network.parameter_buffer.size
        self.parameter_buffer = self.target.zeros((size,), self.dtype)
        self.gradient_buffer = self.target.zeros((size,), self.dtype)
        self.parameters = self._views(self.parameter_buffer)
        self.gradients = self._views(self.gradient_buffer)
        self.layers = tuple(self._narrowed(*item) for item in enumerate(network.layers))

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the network; `refresh` makes the copies of its parameters anew."""
        return NarrowNetwork, (self._network, self.dtype.name)

    def refresh(self) -> None:
        """Copy the network's pixel statistics, its layers' settings, and its parameters, rounded.

        In later steps the optimizer writes the rounded parameters.
        """
        self.pixel_mean, self.pixel_std = self._network.pixel_mean, self._network.pixel_std
        for layer, narrow in zip(self._network.layers, self.layers, strict=True):
            for field in fields(layer):
                setattr(narrow, field.name, getattr(layer, field.name))
        cast(self._network.parameter_buffer, self.dtype, out=self.parameter_buffer)

    def _views(self, buffer: Array) -> dict[str, Array]:
        """Return views of a buffer at the places of the network's parameters in its own buffer."""
        address, wide = self.target.address, self._network.parameter_buffer
        views = {}
        for name, array in self._network.parameters.items():
            start = (address(array) - address(wide)) // wide.itemsize
            views[name] = buffer[start : start + array.size].reshape(array.shape)
        return views

    def _narrowed(self, position: int, layer: Layer) -> Layer:
        if not layer.parameters:
            return layer
        narrow = copy.copy(layer)
        names = {name: f"{position}.{name}" for name in layer.parameters}
        vars(narrow).update(
            parameters={name: self.parameters[key] for name, key in names.items()},
            gradients={name: self.gradients[key] for name, key in names.items()},
        )
        return narrow


def network_of_steps(network: Network, precision: str, *others: Any) -> Network:
    """Return the network that the steps of a training run at a precision.

    At "bf16" and "fp16" it is a `NarrowNetwork`, if the target has the type, and all layers and the
    `others` (loss and optimizer) are from this package: a user's may not support the type.
    """
    dtype = _TYPES.get(precision)
    if dtype is None or dtype not in network.target.dtypes:
        return network
    return NarrowNetwork(network, dtype) if all(map(own, (*network.layers, *others))) else network
