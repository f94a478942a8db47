"""The length of a training, how it is cut into batches and shards, and how far it has come."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from . import checks
from .data.dataset import Dataset
from .host import digest, to_host
from .layers import BatchNorm
from .model import Sequential


@dataclass
class Course:
    """The length of a `fit`, and how far it has come.

    Attributes
    ----------
    epochs, batch_size : int
        As `fit` was given them.
    data : str
        Name of the data set.
    images : int
        Number of images in it.
    done : int
        Finished epochs.
    reached : int
        `Training.steps` at the end of the last finished epoch, -1 within the next one.
    shards : int
        Parts of each batch; see `Trainer`.
    labels : str
        Digest of the data set's labels in their order, by which another split of the same data is
        noticed; "" in checkpoints of before.
    pixels : str
        Digest of the images or, of more than four million pixels, of some images spread over all;
        "" in checkpoints of before.
    """

    epochs: int
    batch_size: int
    data: str
    images: int
    done: int = 0
    reached: int = 0
    shards: int = 1
    labels: str = ""
    pixels: str = ""

    @classmethod
    def of(
        cls, dataset: Dataset, epochs: int, batch_size: int, shards: int, reached: int = 0
    ) -> Course:
        """Return the course of a `fit` that begins."""
        labels = digest(to_host(dataset.labels).astype(np.int64))
        pixels = digest(dataset.images[:: 1 + dataset.images.size // 2**22])  # all would take long
        counts = dataset.name, len(dataset), 0, reached, shards
        return cls(epochs, batch_size, *counts, labels, pixels)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch; the last one may have fewer images."""
        return -(-self.images // self.batch_size)

    @property
    def sizes(self) -> list[int]:
        """The different numbers of images that shards have, largest first."""
        last = self.images - (self.steps_per_epoch - 1) * self.batch_size
        shards = [*self.cut(min(self.images, self.batch_size)), *self.cut(last)]
        return sorted({shard.stop - shard.start for shard in shards} - {0}, reverse=True)

    def cut(self, rows: int) -> list[slice]:
        """Return the shards of a batch of so many rows; they differ by at most one row.

        The first ones are the longer ones; the last ones are empty if there are too few rows.
        """
        ends = [-(-rows * shard // self.shards) for shard in range(self.shards + 1)]
        return [slice(begin, end) for begin, end in pairwise(ends)]

    @property
    def steps(self) -> int:
        """Steps of all epochs."""
        return self.epochs * self.steps_per_epoch

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self.done == self.epochs

    def check_continues(self, saved: Course) -> None:
        """Raise ValueError unless this `fit` can continue the saved one."""
        names = {
            "images": "the number of images",
            "labels": "the digest of the labels",
            "pixels": "the digest of the images",
        }
        for name in ("epochs", "batch_size", "data", "images", "shards", "labels", "pixels"):
            found, expected = getattr(self, name), getattr(saved, name)
            if found != expected != "":
                what = names.get(name, name)
                raise ValueError(
                    f"{what}: got {found!r}, expected {expected!r} as in the training restored"
                )

    def check_shards(self) -> None:
        """Raise ValueError unless batches, but for the last one, can be cut into equal shards."""
        checks.multiple("batch_size", self.batch_size, self.shards, "shards")
        if self.images < self.shards:
            raise ValueError(
                f"data: got {self.images} images, expected at least {self.shards}, one per shard"
            )

    def check_statistics(self, model: Sequential) -> None:
        """Raise ValueError if a step would give a `BatchNorm` one value per channel to train on."""
        shapes = [model.input_shape, *model.output_shapes]
        for position, (layer, shape) in enumerate(zip(model.layers, shapes, strict=False)):
            # Exact class only: a derived one may take its statistics from elsewhere.
            if type(layer) is BatchNorm and self.sizes[-1] * math.prod(shape[:-1]) == 1:
                part = "step" if self.shards == 1 else f"step with one of {self.shards} shards"
                raise ValueError(
                    f"batch_size: got {self.batch_size} for {self.images} images, expected no "
                    f"{part} of one image, since layer {position} (BatchNorm) trains on more than "
                    "one value per channel"
                )
