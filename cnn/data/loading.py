"""Loading a data set by its name."""

from __future__ import annotations

import os
from collections.abc import Callable

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
        "auto" is MNIST, or synthetic digits if MNIST is not found and cannot be downloaded.
    directory : path, optional
        Folder with the MNIST files, see `mnist.load_mnist`; "synthetic" ignores it.
    say : callable
        Called with one sentence if "auto" takes synthetic digits.

    Raises
    ------
    ValueError
        If `name` is none of the three.
    DataError
        If MNIST is asked for by name and cannot be loaded; with "auto", if files of MNIST are
        damaged, or are missing in a folder that the user named.
    """
    if name not in ("auto", "mnist", "synthetic"):
        raise ValueError(f"name: got {name!r}, expected 'auto', 'mnist' or 'synthetic'")
    from . import mnist, synthetic  # here, so that a program with its own data starts faster

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
