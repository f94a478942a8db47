"""Evaluating a model on a data set."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.lowlevel import accumulator, floating

from . import checks
from .data.dataset import Dataset, as_dataset, finite
from .ensemble import Ensemble
from .losses import CrossEntropy, Loss, SoftmaxCrossEntropy
from .model import Sequential
from .network import Network
from .parallel.world import World

#: Images per forward pass.
BATCH_SIZE = 1024


def default_loss(model: Network | Ensemble) -> Loss:
    """Return `CrossEntropy` if the outputs are probabilities, else `SoftmaxCrossEntropy`.

    They are if the model ends with `Softmax`, or is an ensemble.
    """
    if isinstance(model, Ensemble):
        return CrossEntropy()
    return CrossEntropy() if model.ends_with_softmax else SoftmaxCrossEntropy()


def loss_of(model: Network | Ensemble, loss: Loss | None) -> Loss:
    """Return a loss that was given for a model, or the `default_loss`.

    Raises
    ------
    TypeError
        If it cannot be called.
    ValueError
        If it applies a softmax to probabilities, which nearly equal each other then.
    """
    expected = default_loss(model)
    if loss is None:
        return expected
    # Exact class only: a derived one may compute something else.
    if type(loss) is SoftmaxCrossEntropy and isinstance(expected, CrossEntropy):
        raise ValueError(
            "loss: got SoftmaxCrossEntropy for outputs that are probabilities already, expected "
            "CrossEntropy"
        )
    found: Loss = checks.function("loss", loss)
    return found


def evaluate(
    model: Sequential | Ensemble,
    data: Any,
    loss: Loss | None = None,
    batch_size: int = BATCH_SIZE,
    world: World | None = None,
) -> dict[str, float]:
    """Return {"loss": mean loss, "accuracy": fraction of right classes} of a model.

    Parameters
    ----------
    model : Sequential or Ensemble
        Used with its current weights.
    data : Dataset or pair (images, labels)
        As in `Trainer.fit`.
    loss : Loss, optional
        `default_loss` of the model by default.
    batch_size : int
        Images per forward pass.
    world : World, optional
        Processes that share the work; each gives the same model and data.

    Raises
    ------
    TypeError, ValueError
        If the data do not fit the model, its outputs are not one number per class, another argument
        is invalid, or processes disagree about the number of images or `batch_size`.
    """
    if not isinstance(model, Ensemble):
        checks.instance("model", model, Sequential)
    check_outputs(model)
    measure = loss_of(model, loss)
    batch_size = checks.count("batch_size", batch_size)
    dataset = checked(model, "data", data)
    world = World() if world is None else world
    world.agree(images=len(dataset), batch_size=batch_size)  # else images are left out or doubled
    found: list[tuple[int, float, int]] = []  # of each batch: its start, its losses and hits
    with model.target.on():
        labels = model.target.array(dataset.labels, np.int64)
        for start in range(0, len(dataset), batch_size)[world.rank :: world.size]:
            stop = start + batch_size
            outputs = model.predict(dataset.images[start:stop], batch_size)
            expected = labels[start:stop]
            losses = _mean_loss(measure(outputs, expected, grad=False)) * len(expected)
            # CuPy has no argmax of bfloat16.
            widened = outputs.astype(accumulator(outputs.dtype), copy=False)
            found.append((start, losses, int((widened.argmax(axis=-1) == expected).sum())))
    # The losses are added up in one order, whatever the number of processes.
    of_all = sorted(batch for batches in world.gather(found) for batch in batches)
    loss_sum, hits = (sum(batch[index] for batch in of_all) for index in (1, 2))
    return {"loss": loss_sum / len(dataset), "accuracy": hits / len(dataset)}


def _mean_loss(found: Any) -> float:
    """Return the loss among what a loss returned, or raise ValueError if there is none."""
    parts = found if isinstance(found, (tuple, list)) else ()
    if not parts or getattr(parts[0], "shape", ()) != ():
        shapes = [getattr(part, "shape", checks.shown(part)) for part in parts or (found,)]
        raise ValueError(
            f"loss: returned {', '.join(map(str, shapes))}, expected the mean loss, an array of "
            "shape (), and its gradient, which may be None here"
        )
    return float(parts[0])


def check_outputs(model: Network | Ensemble) -> None:
    """Raise ValueError unless a model's outputs are one number per class."""
    if len(model.output_shape) != 1:
        raise ValueError(f"model: gives outputs of shape {model.output_shape}, expected (classes,)")


def checked(model: Network | Ensemble, name: str, data: Any) -> Dataset:
    """Return data as a Dataset that fits the model; errors begin with `name`."""
    dataset = as_dataset(data, name)
    if len(dataset) == 0:
        raise ValueError(f"{name}: got no images, expected at least one")
    with model.target.on():
        models = model.models if isinstance(model, Ensemble) else [model]
        for dtype in {one.dtype for one in models} if floating(dataset.images.dtype) else ():
            if not finite(dataset.images, dtype):
                raise ValueError(
                    f"{name}: images hold NaN or infinity as {dtype}, expected finite values"
                )
        try:
            models[0].shaped(dataset.images)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        if len(model.output_shape) == 1:
            dataset.check_labels(model.output_shape[0], name)
    return dataset
