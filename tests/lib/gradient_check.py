"""A check of any layer's gradients against finite differences."""

import copy

import numpy as np

from kernels.runtime import as_array
from tests.lib.comparison import assert_close
from tests.lib.reference import finite_difference
from tests.lib.support import host


def check_gradients(layer, x, *, training=True, rtol=1e-7):
    """Assert that `backward` gives the gradients of `forward`, by x and by every parameter.

    x is a float64 array on any target; the layer is used alone, and built here if necessary. Every
    forward runs on a copy of the layer, so that one that draws random numbers repeats them.
    """
    target, x = as_array("x", x)
    layer.forward(x, training)
    start = copy.deepcopy(layer)
    weights = np.random.default_rng(1).normal(size=host(start.forward(x, training)).shape)

    def loss(values, name=None):
        probe = copy.deepcopy(layer)
        if name is not None:
            probe.parameters[name][...] = target.array(values)
        y = probe.forward(target.array(values) if name is None else x, training)
        return (host(y) * weights).sum()

    dx = start.backward(target.array(weights))
    assert dx.dtype == x.dtype
    assert_close(dx, finite_difference(loss, host(x)), rtol=rtol)
    assert start.gradients.keys() == start.parameters.keys()
    for name, gradient in start.gradients.items():
        slopes = finite_difference(lambda v, name=name: loss(v, name), host(layer.parameters[name]))
        assert_close(gradient, slopes, rtol=rtol)
