"""Loading a data set by its name."""

from __future__ import annotations

import os
from collections.abc import Callable

from . import mnist, synthetic
from .dataset import Dataset


def load(
    name: str = "auto",
    directory: str | os.PathLike[str] | None = None,
    *,
    say: Callable[[str], None] = print,
) -> tuple[Dataset, Dataset]:
    """Return the training and the test set called `name`.

    Parameters
    ----------
    name : {"auto", "mnist", "synthetic"}
        "auto" is MNIST, or synthetic digits where MNIST is neither here nor to be downloaded.
    directory : path, optional
        Folder with the MNIST files, see `mnist.load_mnist`; "synthetic" does not look at it.
    say : callable
        Called once, with one sentence, when "auto" had to take synthetic digits.

    Raises
    ------
    ValueError
        If `name` is none of the three.
    DataError
        If MNIST was wanted and is not to be had; with "auto" only if files are there but damaged,
        or if a folder was named that lacks them.
    """
    if name not in ("auto", "mnist", "synthetic"):
        raise ValueError(f'name must be "auto", "mnist" or "synthetic", got {name!r}')
    if name != "synthetic":
        try:
            return mnist.load_mnist(directory)
        except mnist.DataNotFoundError as error:
            if name == "mnist":
                raise
            say(
                f"MNIST is not here and could not be downloaded ({error.reason}); "
                "training on synthetic digits instead"
            )
    return synthetic.synthetic_digits()
