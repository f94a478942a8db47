"""Single layers of PyTorch's, or the kernels in their place: values and gradients.

python -m bench.peers.worker_layers KIND, with KIND "plain" or "kernels". Where the rules leave a
layer to PyTorch, one kernel is taken all the same.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

import kernels.torch
from bench.measure import seconds_of_call
from bench.peers.worker import serve
from kernels.torch import functional, rules
from kernels.torch.replacement import OURS

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
FUNCTIONS = ("conv2d", "conv2d_pool", "max_pool2d")
RULES = {name: getattr(rules, name) for name in (f"{function}_pays" for function in FUNCTIONS)}

state: Any = None


class Layer:
    """A layer with an input and the gradient of its output."""

    def __init__(self, kind: str, arguments: list[Any], shape: list[int], layout: str) -> None:
        torch.manual_seed(0)
        self.module = made(kind, arguments).to(memory_format=LAYOUTS[layout])
        x = torch.randn(shape).contiguous(memory_format=LAYOUTS[layout])
        # With so few channels it is the network's input, whose gradient nobody asks for.
        self.x = x.requires_grad_(kind == "MaxPool2d" or shape[1] > 3)
        follow(RULES)
        accelerated = kernels.torch.accelerate(copy.deepcopy(self.module))
        self.replaced = takes_kernels(accelerated, self.x)
        if kernels_alone and self.replaced:
            self.module = accelerated
        elif kernels_alone:
            follow(dict.fromkeys(RULES, lambda *_: True))
            self.module.__class__ = OURS[type(self.module)]
        self.inputs = [t for t in (self.x, *self.module.parameters()) if t.requires_grad]
        self.dy = torch.randn_like(self.module(self.x))

    def __call__(self) -> None:
        torch.autograd.backward(self.module(self.x), self.dy, inputs=self.inputs)
        for tensor in self.inputs:
            tensor.grad = None


def made(kind: str, arguments: list[Any]) -> nn.Module:
    if kind == "Conv2d + ReLU + MaxPool2d":
        return nn.Sequential(nn.Conv2d(*arguments), nn.ReLU(), nn.MaxPool2d(2))
    return getattr(nn, kind)(*arguments)


def takes_kernels(module: nn.Module, x: torch.Tensor) -> bool:
    """Return whether a module's convolution, or the pool that it is, calls our functions."""
    found = set()

    def counted(name: str, function: Any, *arguments: Any) -> Any:
        found.add(name)
        return function(*arguments)

    kept = {name: getattr(functional, name) for name in FUNCTIONS}
    for name, function in kept.items():
        setattr(functional, name, partial(counted, name, function))
    module(x)
    for name, function in kept.items():
        setattr(functional, name, function)
    return bool(found if isinstance(module, nn.MaxPool2d) else found - {"max_pool2d"})


def follow(rules_of: Mapping[str, Any]) -> None:
    """Let layers ask these rules whether a kernel is faster."""
    for name, rule in rules_of.items():
        setattr(rules, name, rule)


# Functions that the parent calls


def load(kind: str, arguments: list[Any], shape: list[int], layout: str) -> None:
    global state
    state = Layer(kind, arguments, shape, layout)


def replaced() -> bool:
    """Return whether the rules take a kernel."""
    return state.replaced


def norms() -> list[float]:
    """Return the norms of the result and of the gradients."""
    y = state.module(state.x)
    gradients = torch.autograd.grad(y, state.inputs, state.dy)
    return [tensor.double().norm().item() for tensor in (y.detach(), *gradients)]


def seconds() -> float:
    """Return the seconds of a call."""
    return seconds_of_call(state, lambda: None)


if __name__ == "__main__":
    kernels_alone = sys.argv[1] == "kernels"
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    serve(load, replaced, norms, seconds)
