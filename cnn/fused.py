"""Fused layers for training: each computes several layers in one pass over the data."""

from __future__ import annotations

from typing import Any

import kernels
from kernels.lowlevel import (
    Array,
    Moments,
    Pool,
    Progress,
    Rectified,
    as_array,
    batch_norm_pool,
    batch_norm_pool_backward,
    batch_norm_relu,
    conv2d_gradients,
    conv2d_pool,
    conv2d_pool_backward,
    conv2d_pool_rectified,
    conv2d_with_moments,
    dense_cross_entropy,
    dense_gradients,
)

from .layers import BatchNorm, Conv2D, Dense, Flatten, Layer, MaxPool2D
from .losses import SoftmaxCrossEntropy


class Rectifying(Layer):
    """A layer that ends with a ReLU, or with a pool and a ReLU.

    Attributes
    ----------
    passed : bool
        Whether the next layer passes the gradient back through the ReLU (and pool): `backward` then
        gets the gradient of their input. The next layer is an `AfterReLU` whose `before` is this.
    """

    passed = False

    def rectified(self) -> Rectified:
        """Return the last output, and the argmax and windows of a pool, for `AfterReLU`."""
        raise NotImplementedError


class AfterReLU(Layer):
    """A layer whose kernels can pass its input's gradient back through the ReLU that made it.

    Attributes
    ----------
    before : Rectifying, optional
        The layer with that ReLU, if the gradient is passed through it.
    """

    before: Rectifying | None = None

    def past(self) -> Rectified | None:
        """Return the last input, if its gradient is passed through the ReLU that made it."""
        return None if self.before is None else self.before.rectified()

    def gradients_of(self, layer: Conv2D | Dense, x: Array, dy: Array) -> Array:
        """Store the gradients of a layer with input x; return dx, passed through `before`."""
        weight = layer.parameters["weight"]
        arrays = (dy, x, weight, layer.gradients["weight"], layer.gradients.get("bias"))
        options: dict[str, Any] = {"need_dx": layer.need_dx, "past": self.past()}
        target = as_array("x", x)[0]
        if isinstance(layer, Dense):
            return dense_gradients(target, *arrays, **options)
        return conv2d_gradients(target, *arrays, layer.window, layer.groups, **options)


class Reshaped(Layer):
    """A `Flatten` whose gradient already has the shape of its input."""

    recordable = True

    def __init__(self, flatten: Flatten) -> None:
        self.flatten = flatten

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return a view of x."""
        return self.flatten.forward(x, training)

    def backward(self, dy: Array) -> Array:
        """Return dy."""
        return dy


class DenseLoss(AfterReLU):
    """The last dense layer, with softmax and cross-entropy."""

    recordable = True

    def __init__(self, dense: Dense, loss: SoftmaxCrossEntropy) -> None:
        self.dense = dense
        self.loss = loss
        self.parameters = dense.parameters

    def loss_gradient(self, x: Array, labels: Array, progress: Progress) -> Array:
        """Add losses and hits to `progress`; return the gradient by the logits (N, units)."""
        self._x = x
        weight, bias = self.parameters["weight"], self.parameters.get("bias")
        smoothing = self.loss.label_smoothing
        return dense_cross_entropy(x, weight, bias, labels, smoothing, progress)[2]

    def backward(self, dy: Array) -> Array:
        """Return dx (N, in); see `gradients_of`."""
        return self.gradients_of(self.dense, self._x, dy)


class WithReLU(Rectifying, AfterReLU):
    """A convolution or dense layer followed by a ReLU."""

    recordable = True

    def __init__(self, layer: Conv2D | Dense) -> None:
        self.layer = layer
        self.parameters = layer.parameters

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return y of the layer's output shape."""
        self._x = x
        self._y = y = self.layer.forward(x, training, relu=True)
        return y

    def rectified(self) -> Rectified:
        """Return y, as `AfterReLU` needs it."""
        return Rectified(self._y)

    def backward(self, dy: Array) -> Array:
        """Return dx of x's shape; see `gradients_of`."""
        dy = dy if self.passed else kernels.relu_backward(dy, self._y)
        return self.gradients_of(self.layer, self._x, dy)


class ConvPool(Rectifying, AfterReLU):
    """A convolution followed by max-pooling and a ReLU, in either order."""

    recordable = True

    def __init__(self, conv: Conv2D, pool: Pool) -> None:
        self.conv = conv
        self.pool = pool
        self.parameters = conv.parameters

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return y (N, PH, PW, F)."""
        conv = self.conv
        weight, bias = conv.parameters["weight"], conv.parameters.get("bias")
        self._x = x
        y, argmax = conv2d_pool(x, weight, bias, conv.window, self.pool)
        self._y, self._argmax = y, argmax
        return y

    def rectified(self) -> Rectified:
        """Return y, as `AfterReLU` needs it."""
        return conv2d_pool_rectified(self._y, self._argmax, self.conv.window, self.pool)

    def backward(self, dy: Array) -> Array:
        """Return dx (N, H, W, C); see `gradients_of`."""
        conv = self.conv
        if self.passed:
            return self.gradients_of(conv, self._x, dy)
        saved = (dy, self._y, self._argmax)
        geometry = (conv.window, self.pool)
        dw, db = conv.gradients["weight"], conv.gradients.get("bias")
        arrays = (*saved, self._x, conv.parameters["weight"], dw, db)
        return conv2d_pool_backward(*arrays, *geometry, need_dx=conv.need_dx, past=self.past())


class Norm(Layer):
    """A batch normalisation followed by a ReLU, max-pooling, both in either order, or neither.

    Parameters
    ----------
    norm : BatchNorm
        Its parameters and state are used.
    relu : bool
        Whether there is a ReLU.
    pool : MaxPool2D, optional
        Of windows that do not overlap and leave no gaps.
    """

    recordable = True

    def __init__(self, norm: BatchNorm, relu: bool, pool: MaxPool2D | None) -> None:
        self.norm = norm
        self.relu = relu
        self.pool = pool
        self.parameters = norm.parameters

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return y (N, H, W, C), or (N, PH, PW, C) with a pool."""
        return self._forward(x, None, training)

    def _forward(self, x: Array, moments: Moments | None, training: bool) -> Array:
        norm = self.norm
        self._x = x
        gamma, beta = norm.parameters.values()
        arrays = (x, gamma, beta, norm.state["running_mean"], norm.state["running_var"])
        options: dict[str, Any] = {
            "training": training,
            "momentum": norm.momentum,
            "eps": norm.eps,
            "relu": self.relu,
            "moments": moments,
        }
        if self.pool is None:
            y, self._saved = batch_norm_relu(*arrays, **options)
        else:
            options["window"] = self.pool.window
            y, self._argmax, self._saved = batch_norm_pool(*arrays, **options)
        self._y = y
        return y

    def backward(self, dy: Array) -> Array:
        """Return dx of x's shape."""
        gamma = self.norm.parameters["gamma"]
        dgamma, dbeta = (self.norm.gradients[name] for name in ("gamma", "beta"))
        if self.pool is None:
            options = {"relu": self.relu, "y": self._y, "out_dgamma": dgamma, "out_dbeta": dbeta}
            return kernels.batch_norm_backward(dy, self._x, gamma, self._saved, **options)[0]
        arrays = (dy, self._x, self._y, self._argmax, gamma, self._saved, dgamma, dbeta)
        return batch_norm_pool_backward(*arrays, self.pool.window, self.relu)


class ConvNorm(Norm):
    """A convolution followed by a `Norm`; the convolution's kernel computes the statistics, too."""

    recordable = True

    def __init__(self, conv: Conv2D, norm: Norm) -> None:
        super().__init__(norm.norm, norm.relu, norm.pool)
        self.conv = conv
        self.parameters = conv.parameters | norm.parameters

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return y (N, OH, OW, F), or (N, PH, PW, F) with a pool."""
        conv = self.conv
        weight, bias = conv.parameters["weight"], conv.parameters.get("bias")
        self._images = x
        return self._forward(*conv2d_with_moments(x, weight, bias, **conv.options), training)

    def backward(self, dy: Array) -> Array:
        """Return dx (N, H, W, C)."""
        dy = super().backward(dy)
        del self._x, self._y  # a planned step reuses their memory for dx
        return self.conv.backward_of(self._images, dy)
