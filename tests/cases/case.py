"""A function of `kernels`: its arguments, its oracle, and what else computes the same.

The gradient of a function is another one, named with ``_backward``, whose argument ``dy`` is the
gradient of the result. An oracle stands beside its case, or in ``tests/lib/reference.py`` if other
tests use it, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import kernels
from tests.lib.support import RTOL, host

Sizes = dict[str, Any]  #: of the arguments, by the field's letters

#: Arguments that are float32 when the others are float16 or bfloat16: saved statistics, and maps.
WIDE = {"mean", "inv_std", "matrix"}


@dataclass(frozen=True)
class Call:
    """A function of `kernels`, its array arguments (name -> value) and the others."""

    function: Callable[..., Any]
    arrays: dict[str, np.ndarray]
    options: dict[str, Any] = field(default_factory=dict)
    in_place: tuple[str, ...] = ()  #: arrays that it updates

    def arguments(self, target, dtype=None):
        """Return fresh keyword arguments on a target, floating arrays in `dtype`."""
        return {name: target.array(value) for name, value in self.cast(dtype).items()}

    def cast(self, dtype=None):
        """Return fresh arrays, floating ones in `dtype`, except those that are never 16-bit."""
        types = {name: value.dtype for name, value in self.arrays.items()}
        for name, kind in types.items():
            if dtype is not None and kind.kind not in "iu":
                types[name] = _accumulator(dtype) if name in WIDE else dtype
        return {name: value.astype(types[name]) for name, value in self.arrays.items()}

    def __call__(self, arguments):
        """Return every result, and every array updated in place, as NumPy arrays."""
        results = flat(self.function(**{**self.options, **arguments}))
        updated = [arguments[name] for name in self.in_place]
        return [host(array).copy() for array in (*results, *updated)]


@dataclass(frozen=True)
class Case:
    """A function of `kernels`, its oracle, its peers, and the sizes to call them with.

    Tests, sanitizers and benchmarks read it; a function with a case needs no tests of its own.

    Attributes
    ----------
    name : str
        The function's name in `kernels`.
    arguments : callable
        Returns the arguments for some sizes: arrays, floating ones in float64, and others.
    oracle : callable
        Obvious NumPy with the same arguments; the results are compared with it in float64.
    sizes : dict
        The sizes to test, by the reason for each. The first gives several blocks on every target,
        with a tail, and is small: tests of all functions use it.
    small : dict
        Sizes for finite differences, and for timing the host's part of a call.
    differences : list
        More sizes for finite differences.
    in_place : tuple of str
        Arrays that it updates; the oracle returns them after the results.
    results : int, optional
        How many of the results PyTorch gives, too; those after them are saved for the gradient.
    rounding : float
        The error allowed, as a multiple of the type's tolerance in `tests.lib.support.RTOL`.
    coarsest : str
        A type that some of the work is done in whatever the arrays' type: its tolerance is allowed.
    gradients : tuple of str
        For a gradient: the forward function's arguments that its results are the gradients of.
    images : bool
        Arrays of four dimensions are images (N, H, W, C) or filters: PyTorch's are (N, C, H, W).
    functional : callable, optional
        Called with `torch.nn.functional`, or with `kernels.torch` if that has the function, and
        with the arguments, arrays as tensors: calls PyTorch's function.
    pytorch : callable, optional
        If there is no such function, or it takes other arguments: called with `torch` and the
        arguments, returns what to call.
    in_pytorch : callable, optional
        Whether PyTorch takes some sizes; if it does not take all.
    numpy : callable, optional
        A function faster than the oracle, to time, with arrays of NumPy or CuPy.
    called : callable, optional
        Calls the function if it does not take the arrays as they are, but tuples of them.
    refused : list
        What it refuses with a ValueError, besides what every function refuses: arguments that
        replace those of the first sizes, and the message's beginning.
    mistyped : list
        The same with a TypeError.
    row : str
        Its name in the benchmark.
    timed : dict
        The sizes to time, by the shapes' names in the benchmark.
    read_twice : tuple of str
        Arrays that must be read twice, since results depend on sums over them.
    operations : callable, optional
        Returns the floating-point operations for some sizes, where these bound the time: elsewhere
        memory does.
    """

    name: str
    arguments: Callable[..., dict[str, Any]]
    oracle: Callable[..., Any]
    sizes: dict[str, Sizes]
    small: Sizes
    differences: Sequence[Sizes] = ()
    in_place: tuple[str, ...] = ()
    results: int | None = None
    rounding: float = 1
    coarsest: str = "float64"
    gradients: tuple[str, ...] = ()
    images: bool = False
    functional: Callable[..., Any] | None = None
    pytorch: Callable[..., Callable[[], Any]] | None = None
    in_pytorch: Callable[..., bool] | None = None
    numpy: Callable[..., Any] | None = None
    called: Callable[..., Any] | None = None
    refused: Sequence[tuple[dict[str, Any], str]] = ()
    mistyped: Sequence[tuple[dict[str, Any], str]] = ()
    row: str = ""
    timed: dict[str, Sizes] = field(default_factory=dict)
    read_twice: tuple[str, ...] = ()
    operations: Callable[..., int] | None = None

    @property
    def function(self) -> Callable[..., Any]:
        """The function to call, with the arrays and options by name."""
        return self.called or getattr(kernels, self.name)

    def call(self, sizes: Sizes | None = None) -> Call:
        """Return a call with some sizes, or the first."""
        chosen = next(iter(self.sizes.values())) if sizes is None else sizes
        arrays, options = {}, {}
        for name, value in self.arguments(**chosen).items():
            (arrays if isinstance(value, np.ndarray) else options)[name] = value
        updated = tuple(name for name in self.in_place if name in arrays)
        return Call(self.function, arrays, options, updated)

    def expected(self, call: Call, dtype: Any = None, **changed: np.ndarray) -> list[np.ndarray]:
        """Return what the oracle gives in float64 for a call with arrays in `dtype`."""
        wide = {
            name: array if array.dtype.kind in "iu" else array.astype(np.float64)
            for name, array in (call.cast(dtype) | changed).items()
        }
        with np.errstate(invalid="ignore"):
            return flat(self.oracle(**wide, **call.options))

    def tolerance(self, dtype: Any) -> float:
        """Return the error allowed, relative to the largest value."""
        return self.rounding * max(RTOL[np.dtype(dtype).name], RTOL[self.coarsest])

    def beside_pytorch(self) -> dict[str, Sizes]:
        """Return the sizes that PyTorch computes, too, by their reasons."""
        if self.functional is None and self.pytorch is None:
            return {}
        taken = self.in_pytorch or (lambda **sizes: True)
        return {why: sizes for why, sizes in self.sizes.items() if taken(**sizes)}

    def peer(
        self,
        torch: Any,
        arrays: dict[str, Any],
        options: dict[str, Any],
        layout: str = "channels_last",
    ) -> tuple[Callable[[], Any], Callable[[Any], list[np.ndarray]]]:
        """Return PyTorch's call on copies of arrays, and how to read its results as ours.

        `layout` is PyTorch's memory format of images: "channels_last", which is ours, or
        "contiguous".
        """
        arguments = dict(options)
        for name, array in arrays.items():
            tensor = torch.from_dlpack(array).clone()
            if self.images and tensor.ndim == 4:
                planes = layout == "contiguous"
                form = torch.contiguous_format if planes else torch.preserve_format
                tensor = tensor.movedim(-1, 1).clone(memory_format=form)
            arguments[name] = tensor

        def read(results: Any) -> list[np.ndarray]:
            results = results if isinstance(results, (tuple, list)) else (results,)
            given = [tensor for tensor in results if tensor is not None][: self.results]
            found = [tensor.detach() for tensor in given]
            if self.images:
                found = [each.movedim(1, -1) if each.ndim == 4 else each for each in found]
            return [each.cpu().numpy() for each in found]

        if self.pytorch is not None:
            return self.pytorch(torch, **arguments), read
        return lambda: self.functional(torch.nn.functional, **arguments), read


def _accumulator(dtype):
    """Return the type that arrays of `dtype` are added up in."""
    return np.float64 if np.dtype(dtype) == np.float64 else np.float32


def images(N: int, H: int, W: int, C: int, **others: Any) -> Sizes:
    """Return sizes of images, and others."""
    return {"N": N, "H": H, "W": W, "C": C, **others}


def zeros(*shape, dtype=np.float32):
    """Return an array of the wrong shape."""
    return np.zeros(shape, dtype)


def axes(lengths: int | tuple[int, ...]) -> tuple[int, ...]:
    """Return several lengths as they are, and one as a tuple."""
    return (lengths,) if isinstance(lengths, int) else lengths


def flat(results):
    """Return the arrays in a result, which may be None, an array or nested tuples of them."""
    if isinstance(results, tuple):
        return [array for result in results for array in flat(result)]
    return [results] if hasattr(results, "dtype") else []
