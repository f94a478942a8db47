"""Replacing the layers of a module by those that the kernels compute faster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from . import layers, rules
from .layers import THEIRS, Pooled, has_own_forward, parts, theirs

#: Why PyTorch computes a layer, by its class; None where the kernels may be faster.
RULES: dict[type[nn.Module], Callable[[Any], str | None]] = {
    nn.Conv2d: rules.conv2d,
    nn.MaxPool2d: rules.max_pool2d,
}
#: Layers that have kernels, at which PyTorch is as fast.
AS_FAST = (
    nn.Linear,
    nn.ReLU,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.LayerNorm,
    nn.CrossEntropyLoss,
    nn.AvgPool2d,
)
#: The classes that take the place of PyTorch's, by these.
OURS = {replaced: ours for ours, replaced in THEIRS.items()}
_PARAMETRIZATIONS = "parametrizations"  # a child of each module that has any


class Layer(NamedTuple):
    """A layer of a module, and what `accelerate` does with it."""

    name: str
    kind: str
    reason: str | None  #: why PyTorch computes it; None for one that is replaced
    together: tuple[str, ...] = ()  #: the layers that one kernel may compute

    def __str__(self) -> str:
        """Return a line of text."""
        what = f"left: {self.reason}"
        if self.reason is None:
            together = " ".join(self.together)
            what = f"replaced, one kernel for {together}" if together else "replaced"
        return f"{self.name or 'the module itself'} ({self.kind}): {what}"


class Explanation(tuple[Layer, ...]):
    """What `accelerate` does with each layer of a module; printed, a line for each."""

    def __str__(self) -> str:
        """Return the lines."""
        return "\n".join(map(str, self))


def accelerate(module: Any) -> Any:
    """Let the kernels compute the layers of a module that they are faster at; return the module.

    The module is changed in place: layers get classes derived from their own. Parameters, buffers,
    hooks, names and `state_dict` stay, and results are equal up to rounding. The kernels are taken
    for float32 on a CPU and batches that are large enough; all else (other types, autocast, a GPU,
    `torch.export`, forward mode, `torch.func`) goes to PyTorch as before. Lost are gradients of
    gradients, `torch.jit.script`, and tools that look for PyTorch's own classes (`torch.fx`'s
    fusion, eager quantization). About pixels that are not finite, see `kernels.conv2d`.

    Parameters
    ----------
    module : torch.nn.Module
        Any, before or after it was moved, loaded, or given to an optimizer.

    Returns
    -------
    torch.nn.Module
        The same.

    Raises
    ------
    TypeError
        If the module is none of PyTorch's.

    See Also
    --------
    explain : tells which layers are replaced, and why the others are not.
    """
    _check(module)
    for layer in list(module.modules()):
        if _pooled(layer):
            layer.__class__ = layers.Sequential
        elif _is_fast(layer):
            layer.__class__ = OURS[type(layer)]
    return module


def explain(module: Any) -> Explanation:
    """Return what `accelerate` does with each layer of a module, or has done.

    Parameters
    ----------
    module : torch.nn.Module
        Any.

    Returns
    -------
    tuple of Layer
        For each module that has no others within, except parametrizations: its name, kind and,
        unless it is replaced, the reason. Printed, a line for each.

    Raises
    ------
    TypeError
        If the module is none of PyTorch's.
    """
    _check(module)
    names = {layer: name for name, layer in module.named_modules()}
    together = {
        layer: tuple(names[each] for each in part)
        for parent in names
        for part in _pooled(parent)
        if _parameters(part.conv) is None
        for layer in part
    }
    return Explanation(
        Layer(name, type(layer).__name__, None, together[layer])
        if layer in together
        else Layer(name, type(layer).__name__, _reason(layer))
        for layer, name in names.items()
        if {child for child, _ in layer.named_children()} <= {_PARAMETRIZATIONS}
        and _PARAMETRIZATIONS not in name.split(".")
    )


def _check(module: Any) -> None:
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: got {type(module).__name__}, expected a torch.nn.Module")


def _is_fast(layer: nn.Module) -> bool:
    """Return whether the kernels may be faster at a layer, once it is float32 on a CPU."""
    rule = RULES.get(type(layer))
    return rule is not None and not has_own_forward(layer) and rule(layer) is None


def _pooled(layer: nn.Module) -> list[Pooled]:
    """Return the layers of a container that one kernel may compute, likewise."""
    if theirs(type(layer)) is not nn.Sequential or has_own_forward(layer):
        return []
    return [
        part
        for part in parts(layer)
        if isinstance(part, Pooled)
        and not any(map(has_own_forward, part))
        and rules.conv2d_pool(part.conv, part.pool) is None
    ]


def _reason(layer: nn.Module) -> str | None:
    before = type_before_parametrizations(layer)
    kind = theirs(before)
    if has_own_forward(layer):
        return "its forward is its own"
    if before in RULES and type(layer) is not before:
        return "it is parametrized, and was not replaced before"
    if kind in RULES:
        return _parameters(layer) or RULES[kind](layer)
    if kind in AS_FAST:
        return "PyTorch is as fast"
    derived = next((base for base in RULES if isinstance(layer, base)), None)
    if derived is not None:
        return f"it is a kind of {derived.__name__} of its own"
    return "there is no kernel for it"


def _parameters(layer: nn.Module) -> str | None:
    """Return why PyTorch computes a layer with such parameters, or None."""
    for parameter in layer.parameters():
        if parameter.dtype != torch.float32 or parameter.device.type != "cpu":
            found = f"{parameter.dtype} on {parameter.device}"
            return f"the kernels are known to be faster with torch.float32 on cpu, not {found}"
    return None
