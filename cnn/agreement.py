"""What all processes of a training must have in common."""

from __future__ import annotations

from dataclasses import replace

from .course import Course
from .data.dataset import Dataset
from .host import digest
from .parallel.world import World
from .training import Training
from .training_state import settings


def check_agreement(
    world: World, training: Training, course: Course, train: Dataset, held_out: Dataset | None
) -> None:
    """Raise ValueError unless settings, weights and data are those of the other processes."""
    if world.size == 1:
        return
    sets = {"training_data": train, "validation_data": held_out}
    facts = {
        name: None if data is None else digest(data.images, data.labels)
        for name, data in sets.items()
    }
    world.agree(
        **vars(replace(course, labels="", pixels="")),  # all training data tell more
        **settings(training),
        **facts,
        architecture=training.model.architecture(),
        weights=digest(training.model.parameter_buffer, training.model.state_buffer),
    )


def check_weights(world: World, training: Training) -> None:
    """Raise ValueError unless the weights after an epoch have the bits of the other processes.

    Processors of different kinds may round differently.
    """
    if world.size > 1:
        world.agree(weights_of_this_epoch=digest(training.model.parameter_buffer))
