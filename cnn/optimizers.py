"""Optimizers: hyperparameters, state in flat arrays, and one kernel launch per step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from kernels.lowlevel import (
    Array,
    PendingSums,
    Scalars,
    Shape,
    adam_scalars,
    adam_update,
    as_array,
    sgd_scalars,
    sgd_update,
)

from . import checks


@dataclass
class Optimizer(ABC):
    """Updates all parameters at once.

    Attributes
    ----------
    lr : float
        Learning rate, before the schedule's factor.
    state : dict of str to array
        Arrays of the parameters' shape, made by `begin` and updated in place.
    steps : int
        Steps taken.
    """

    lr: float
    state: dict[str, Array] = field(default_factory=dict, init=False, repr=False, compare=False)
    steps: int = field(default=0, init=False, repr=False, compare=False)
    _parameters: Array | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the settings."""
        checks.settle(self, lr=checks.number(0))

    def __getstate__(self) -> dict[str, Any]:
        """Copy and pickle the state, and not whose it is: a copy goes with another model."""
        state = {name: array.copy() for name, array in self.state.items()}
        return {**vars(self), "state": state, "_parameters": None}

    def step(
        self,
        parameters: Array,
        gradients: Array,
        factor: float = 1.0,
        unscale: Array | None = None,
        copy: Array | None = None,
    ) -> None:
        """Update `parameters` in place with the learning rate lr * factor; see `update`."""
        self.begin(parameters)
        self.steps += 1
        options = {} if copy is None else {"copy": copy}  # a user's optimizer may lack it
        scalars = self.scalars(self.steps, factor)
        self.update(parameters, gradients, scalars, unscale, **options)

    def begin(self, parameters: Array) -> None:
        """Allocate missing arrays of the state, filled with zeros.

        Raises
        ------
        ValueError
            If there is a state of other parameters.
        """
        if self.state and self._is_of_others(parameters):
            raise ValueError(
                "optimizer: its state is that of another model's parameters, expected a new one"
            )
        self._parameters = parameters  # so that no others come to lie there
        for name in self.slots():
            if name not in self.state:
                self.state[name] = parameters.copy()
                self.state[name].fill(0)

    def begin_anew(self, parameters: Array) -> None:
        """Allocate the state, filled with zeros: in place if it is of these parameters."""
        if self._is_of_others(parameters):
            self.state, self._parameters = {}, None
        self.begin(parameters)
        for array in self.state.values():
            array[...] = 0

    def _is_of_others(self, parameters: Array) -> bool:
        """Return whether the state is known to be that of other parameters."""
        own = self._parameters
        if own is None or own is parameters:
            return False
        return _place(own) != _place(parameters)

    @abstractmethod
    def slots(self) -> tuple[str, ...]:
        """Return the names of the state's arrays."""

    @abstractmethod
    def scalars(self, step: int, factor: float) -> tuple[float, ...]:
        """Return the numbers that `update` needs at a step, from 1, with the rate lr * factor."""

    @abstractmethod
    def update(
        self,
        parameters: Array,
        gradients: Array,
        scalars: Scalars,
        unscale: Array | None = None,
        copy: Array | None = None,
        pending: PendingSums | None = None,
    ) -> None:
        """Launch the update of `parameters`, with the scalars of one step or a table of them.

        Gradients are multiplied by `unscale`, an array (1,), if it is given; 0 skips the step. If a
        `copy` of the gradients' narrower dtype is given, the parameters are written there, too.
        Gradients that are still `pending` sums are added up. `begin` must have been called.
        """


@dataclass
class SGD(Optimizer):
    """Stochastic gradient descent with momentum; see `kernels.sgd_step`."""

    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    recordable = True

    def __post_init__(self) -> None:
        """Check the settings, most of them as the kernel does."""
        super().__post_init__()
        checks.settle(self, nesterov=checks.flag)
        self.scalars(1, 1.0)

    def slots(self) -> tuple[str, ...]:
        """Return the names of the state's arrays."""
        return ("velocity",) if self.momentum else ()

    def scalars(self, step: int, factor: float) -> tuple[float, ...]:
        """Return what `update` needs at a step, counted from 1, with the rate lr * factor."""
        return sgd_scalars(self.lr * factor, self.momentum, self.nesterov, self.weight_decay)

    def update(
        self,
        parameters: Array,
        gradients: Array,
        scalars: Scalars,
        unscale: Array | None = None,
        copy: Array | None = None,
        pending: PendingSums | None = None,
    ) -> None:
        """Launch the update, by the scalars of one step or a table of them."""
        velocity = self.state["velocity"] if self.momentum else None
        sgd_update(scalars, parameters, gradients, velocity, unscale, copy, pending)


@dataclass
class Adam(Optimizer):
    """Adam with the decay added to the gradient; see `kernels.adam_step`."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    recordable = True
    decoupled = False

    def __post_init__(self) -> None:
        """Check the settings, most of them as the kernel does."""
        super().__post_init__()
        checks.settle(self, betas=checks.tuples)
        self.scalars(1, 1.0)

    def slots(self) -> tuple[str, ...]:
        """Return the names of the state's arrays."""
        return ("m", "v")

    def scalars(self, step: int, factor: float) -> tuple[float, ...]:
        """Return what `update` needs at a step, counted from 1, with the rate lr * factor."""
        return adam_scalars(
            step, self.lr * factor, self.betas, self.eps, self.weight_decay, self.decoupled
        )

    def update(
        self,
        parameters: Array,
        gradients: Array,
        scalars: Scalars,
        unscale: Array | None = None,
        copy: Array | None = None,
        pending: PendingSums | None = None,
    ) -> None:
        """Launch the update, by the scalars of one step or a table of them."""
        m, v = self.state["m"], self.state["v"]
        adam_update(scalars, parameters, gradients, m, v, unscale, copy, pending)


@dataclass
class AdamW(Adam):
    """Adam with decay decoupled from the gradient."""

    weight_decay: float = 1e-2

    recordable = True
    decoupled = True


def _place(array: Array) -> tuple[int, Shape, str]:
    """Return what two arrays have in common if they are views of the same elements."""
    target, array = as_array("parameters", array)
    return target.address(array), array.shape, array.dtype.name
