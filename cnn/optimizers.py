"""Optimizers: hyperparameters, flat state, and one kernel launch a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import kernels
from kernels.runtime import Array


@dataclass
class Optimizer(ABC):
    """Updates all parameters at once.

    Attributes
    ----------
    lr : float
        Learning rate, before the schedule's factor.
    state : dict of str to array
        Arrays of the parameters' shape, made at the first step.
    steps : int
        Steps taken.
    """

    lr: float
    state: dict[str, Array] = field(default_factory=dict, init=False, repr=False)
    steps: int = field(default=0, init=False, repr=False)

    @abstractmethod
    def step(self, parameters: Array, gradients: Array, factor: float = 1.0) -> None:
        """Update `parameters` in place with the learning rate lr * factor."""

    def _state(self, name: str, parameters: Array) -> Array:
        if name not in self.state:
            self.state[name] = parameters * 0
        return self.state[name]


@dataclass
class SGD(Optimizer):
    """Stochastic gradient descent with momentum; see `kernels.sgd_step`."""

    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def step(self, parameters: Array, gradients: Array, factor: float = 1.0) -> None:
        """Update `parameters` in place with the learning rate lr * factor."""
        self.steps += 1
        kernels.sgd_step(
            parameters,
            gradients,
            self._state("velocity", parameters) if self.momentum else None,
            lr=self.lr * factor,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
        )


@dataclass
class Adam(Optimizer):
    """Adam with the decay added to the gradient; see `kernels.adam_step`."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    decoupled = False

    def step(self, parameters: Array, gradients: Array, factor: float = 1.0) -> None:
        """Update `parameters` in place with the learning rate lr * factor."""
        self.steps += 1
        kernels.adam_step(
            parameters,
            gradients,
            self._state("m", parameters),
            self._state("v", parameters),
            step=self.steps,
            lr=self.lr * factor,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
            decoupled=self.decoupled,
        )


@dataclass
class AdamW(Adam):
    """Adam with decay decoupled from the gradient."""

    weight_decay: float = 1e-2

    decoupled = True
