"""Running statistics of batch normalisation, taken anew with the weights as they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.lowlevel import floating

from . import checks
from .data.dataset import finite
from .layers import BatchNorm
from .network import Network


def update_batch_norm(model: Network, images: Any, batch_size: int = 256) -> None:
    """Set running means and variances of `BatchNorm` to the means of those of batches of images.

    A training leaves averages over its last batches: of augmented images, which warps have blurred,
    and, with an `EMA`, of other weights than the model then has. Predictions are more often right
    if the statistics are of images such as those that they are for.

    Source: Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021 (PreciseBN); PyTorch's
    `torch.optim.swa_utils.update_bn`.

    Parameters
    ----------
    model : Sequential
        Changed in place, unless there is an error; a model without `BatchNorm` stays as it is.
    images : array (N, ...)
        As `predict` takes them, at least one.
    batch_size : int
        Images at a time, in an order that is random, but always the same: they may be sorted by
        class, and a batch of one class varies less than all images. The last ones, if they fill no
        batch, are left out.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, images are not finite, or a layer has one value per channel.
    """
    checks.instance("model", model, Network)
    batch_size = checks.count("batch_size", batch_size)
    # Arrays stay where they are: the device need only hold one batch of them.
    images = model.shaped(images if hasattr(images, "shape") else model.target.array(images))
    places = [place for place, layer in enumerate(model.layers) if isinstance(layer, BatchNorm)]
    if len(images) == 0:
        raise ValueError("images: got none, expected at least one")
    if not places:
        return
    layers = model.layers[: places[-1] + 1]
    normalising = [layer for layer in layers if isinstance(layer, BatchNorm)]
    momenta = [layer.momentum for layer in normalising]
    batch_size = min(batch_size, len(images))
    order = np.random.default_rng(0).permutation(len(images))
    with model.lock, model.target.on():
        before = model.state_buffer.copy()
        try:
            for number, start in enumerate(range(0, len(images) - batch_size + 1, batch_size)):
                for layer in normalising:
                    layer.momentum = 1 / (number + 1)  # the mean of all batches so far
                batch = model.target.array(images[order[start : start + batch_size]])
                x = model.prepare(batch)  # which refuses what does not fit
                if floating(batch.dtype) and not finite(batch, model.dtype):
                    raise ValueError(
                        f"images: hold NaN or infinity as {model.dtype}, expected finite values"
                    )
                for layer in layers:
                    x = layer.forward(x, training=True)
        except BaseException:
            model.state_buffer[...] = before
            raise
        finally:
            for layer, momentum in zip(normalising, momenta, strict=True):
                vars(layer)["momentum"] = momentum  # no checks, in which Ctrl-C could come
