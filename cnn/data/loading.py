"""Loading a data set by its name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from .dataset import DataError, Dataset

#: The data sets that `load` knows by name.
NAMES = ("mnist", "fashion-mnist", "kmnist", "emnist-digits", "synthetic")


def load(
    name: str = "auto",
    directory: str | os.PathLike[str] | None = None,
    *,
    say: Callable[[str], None] = print,
) -> tuple[Dataset, Dataset]:
    """Return the training and the test set called `name`.

    Parameters
    ----------
    name : {"auto", "mnist", "fashion-mnist", "kmnist", "emnist-digits", "synthetic"}
        "auto" is what `directory` has, whether known or not, see `known.load_folder`. Without a
        directory it is MNIST, or synthetic digits if MNIST is not found and cannot be downloaded.
    directory : path, optional
        Folder with four IDX files; "synthetic" ignores it. MNIST alone is found without one.
    say : callable
        Called with one sentence if "auto" takes synthetic digits.

    Raises
    ------
    ValueError
        If `name` is none of these.
    DataError
        If a set is asked for by name and cannot be loaded; with "auto", if files are damaged, or
        are missing in a folder that the user named.
    """
    if name not in ("auto", *NAMES):
        expected = ", ".join(map(repr, NAMES))
        raise ValueError(f"name: got {name!r}, expected 'auto' or one of {expected}")
    # Here, so that a program with its own data starts faster.
    from . import known, mnist, synthetic

    if name in known.PUBLISHED_MD5 and directory is None:
        raise DataError(f"{name} is not downloaded: name the folder of its four files with --data")
    if directory is not None and name not in ("mnist", "synthetic"):
        return known.load_folder(Path(os.path.expanduser(directory)), name)
    if name != "synthetic":
        try:
            return mnist.load_mnist(directory)
        except mnist.DataNotFoundError as error:
            if name == "mnist":
                raise
            say(
                f"MNIST is not here and could not be downloaded ({error.reason}); "
                "taking synthetic digits instead"
            )
    return synthetic.synthetic_digits()
