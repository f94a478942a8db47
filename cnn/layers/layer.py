"""The base class of layers."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from kernels.lowlevel import Array, Shape, Target, as_array

from .. import checks
from ..initializers import Initializer
from ..recordable import own
from ..views import Views


class Layer:
    """Base class of layers; a subclass is a dataclass whose fields are its settings.

    Attributes
    ----------
    parameters, gradients, state : dict of str to array
        Trained arrays, their gradients from the last `backward`, and arrays that are saved but not
        trained; empty until the layer is built.
    need_dx : bool
        Whether `backward` must return dx; false for the first layer of a model.
    seed, draws : int
        Seed of the layer's random numbers, and the number of draws so far.
    recordable : bool
        Whether `forward` and `backward` only launch kernels, on the same arrays every time. A
        `Trainer` then records the launches and replays them without calling the methods again. Not
        inherited: each class sets it in its own body.
    built_with : tuple of str
        Names of the settings that `build` uses: they cannot be changed after it.
    built : bool
        Whether the arrays are allocated: the layer is part of a model or has been used alone.
    """

    need_dx = True
    seed = 0
    draws = 0
    recordable = False
    built_with: tuple[str, ...] = ()
    built = False

    def __setattr__(self, name: str, value: Any) -> None:
        if self.built and not name.startswith("_"):  # as what `forward` keeps begins
            value = self._checked(name, value)
        super().__setattr__(name, value)

    def _checked(self, name: str, value: Any) -> Any:
        """Return a value to set in a layer that is built, or raise an error."""
        held = vars(self).get(name)
        if isinstance(held, Views) and value is not held:
            raise AttributeError(f"{name}: got another object, expected values set in place")
        if name in self.built_with and value != held:
            expected = f"{held!r}, with which {type(self).__name__} was built"
            raise AttributeError(f"{name}: got {value!r}, expected {expected}")
        if is_dataclass(self) and name in self.__dataclass_fields__ and own(self):
            return getattr(replace(self, **{name: value}), name)
        return value

    @cached_property
    def parameters(self) -> dict[str, Array]:
        """Trained arrays by name."""
        return {}

    @cached_property
    def gradients(self) -> dict[str, Array]:
        """Gradients by the names of the parameters."""
        return {}

    @cached_property
    def state(self) -> dict[str, Array]:
        """Arrays that are saved but not trained, by name."""
        return {}

    @cached_property
    def declared(self) -> dict[str, tuple[Shape, Initializer, bool]]:
        """Shape, initializer and whether it is trained, for each array that `build` declared."""
        return {}

    def declare(
        self, name: str, shape: Shape, initializer: Initializer, trained: bool = True
    ) -> None:
        """Declare an array; called by `build`."""
        self.declared[name] = (shape, initializer, trained)

    def build(self, shape: Shape) -> Shape:
        """Declare arrays for inputs of `shape`, without the batch axis; return the output's.

        Raises
        ------
        ValueError
            If the layer cannot take inputs of that shape.
        """
        return shape

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return the layer's output for x (N, ...).

        Attributes keep what `backward` needs. Another thread's forward overwrites them, so the
        result must not be read back from one.
        """
        raise NotImplementedError(f"{type(self).__name__}: has no method `forward`")

    def backward(self, dy: Array) -> Array:
        """Store the gradients of the parameters and return dx, for the last forward's x."""
        raise NotImplementedError(f"{type(self).__name__}: has no method `backward`")

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments, by name: the fields of a dataclass.

        A file holds them as JSON: numbers, strings, lists of them, dicts from strings to them,
        True, False or None. Tuples become lists there.

        Raises
        ------
        TypeError
            If the class is no dataclass. It may return its arguments by a method of its own.
        """
        if not is_dataclass(self):
            raise TypeError(
                f"{type(self).__name__}: is no dataclass, expected one whose fields are its "
                "settings, or a method `settings` of its own that returns them; see "
                "`Layer.settings`"
            )
        return {f.name: checks.plain(getattr(self, f.name)) for f in fields(self) if f.init}

    def ready(self, x: Any) -> Array:
        """Return x as an array; build the layer first if it is used without a model."""
        target, x = as_array("x", x)
        if not self.built:
            self.build(x.shape[1:])
            self.allocate(target, x.dtype, np.random.default_rng(self.seed))
        return x

    def allocate(self, target: Target, dtype: Any, generator: np.random.Generator) -> None:
        """Allocate each declared array; a model hands out views of its flat buffers instead."""
        for name, (shape, initializer, trained) in self.declared.items():
            values = target.array(initial(name, shape, initializer, generator).astype(dtype))
            (self.parameters if trained else self.state)[name] = values
            if trained:
                self.gradients[name] = target.zeros(shape, dtype)
        self.built = True


def initial(
    name: str, shape: Shape, initializer: Initializer, generator: np.random.Generator
) -> np.ndarray[Any, Any]:
    """Return the initial values of a declared array, or raise ValueError for another shape."""
    values = initializer(generator, shape)
    found = getattr(values, "shape", None)
    if found != tuple(shape):
        got = checks.shown(values) if found is None else f"an array of shape {found}"
        raise ValueError(f"{name}: got {got} of its initializer, expected one of shape {shape}")
    return values


def image_size(layer: Layer, shape: Shape) -> tuple[int, int, int]:
    """Return the shape (H, W, C) of a layer's inputs, or raise ValueError if they are no images."""
    if len(shape) != 3:
        name = type(layer).__name__
        raise ValueError(f"{name}: got inputs of shape {shape}, expected images (H, W, C)")
    H, W, C = shape
    return H, W, C
