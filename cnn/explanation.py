"""What a model's layers see in images, and which pixels decide."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np

from kernels.lowlevel import Array, check_unmasked

from .evaluation import check_outputs
from .host import to_host
from .layers import (
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dropout,
    Layer,
    LayerNorm,
    MaxPool2D,
    ReLU,
)
from .model import Sequential

# What may stand between a convolution and the ReLU that belongs to it.
_BEFORE_RELU = (AvgPool2D, BatchNorm, Dropout, LayerNorm, MaxPool2D)


class Explanation(NamedTuple):
    """What `explain` returns: arrays on the model's device."""

    feature_maps: list[Array]  # of each convolution, (N, H, W, F)
    gradient: Array  # (N, *input_shape)


def explain(model: Sequential, images: Any, classes: Any) -> Explanation:
    """Return the feature maps of each convolution, and the gradients of scores by the inputs.

    Feature maps are taken after the ReLU that follows the convolution, perhaps with normalisation
    or pooling between them; without one, they are what the convolution returns.

    A class's score is its output before softmax. Its gradient shows which pixels would raise or
    lower it: Simonyan, Vedaldi and Zisserman, "Deep inside convolutional networks: visualising
    image classification models and saliency maps" (2014).

    Parameters
    ----------
    model : Sequential
        Its parameters, gradients and state stay as they are.
    images : array (N, H, W) or (N, *input_shape)
        As `Sequential.predict` takes them.
    classes : array (N,)
        Whole numbers: the class of each image whose score is explained.

    Returns
    -------
    Explanation
        Its gradient is that by the prepared inputs (`Network.prepare`).

    Raises
    ------
    TypeError, ValueError
        If images or classes do not fit the model, or its outputs are not one number per class.
    """
    check_outputs(model)
    check_unmasked("classes", classes)
    layers = [_copied(layer) for layer in model.layers]
    if model.ends_with_softmax:
        layers.pop()
    identity, labels = np.eye(*model.output_shape, dtype=np.float32), to_host(classes)
    shown, feature_maps = _shown(layers), []
    with model.lock, model.target.on():
        x = model.prepare(images)
        whole = labels.dtype.kind in "iu" or labels.size == 0
        fits = whole and labels.shape == (len(x),)
        if not fits or not ((labels >= 0) & (labels < len(identity))).all():
            raise ValueError(
                f"classes: got {classes!r} for {len(x)} images, expected a whole number from 0 to "
                f"{len(identity) - 1} for each"
            )
        for position, layer in enumerate(layers):
            x = layer.forward(x)
            if position in shown:
                feature_maps.append(x)
        dx = model.target.array(identity[labels.astype(np.int64)], model.dtype)
        for layer in reversed(layers):
            dx = layer.backward(dx)
    return Explanation(feature_maps, dx)


def _copied(layer: Layer) -> Layer:
    """Return a layer with the same parameters, which returns dx, and has gradients of its own."""
    other = copy.copy(layer)
    gradients = {name: array.copy() for name, array in layer.gradients.items()}
    vars(other).update(need_dx=True, gradients=gradients)
    return other


def _shown(layers: list[Layer]) -> list[int]:
    """Return the positions of the layers whose outputs are the feature maps."""
    found = []
    for position, layer in enumerate(layers):
        if isinstance(layer, Conv2D):
            end = position + 1
            while end < len(layers) and isinstance(layers[end], _BEFORE_RELU):
                end += 1
            relu = end < len(layers) and isinstance(layers[end], ReLU)
            found.append(end if relu else position)
    return found
