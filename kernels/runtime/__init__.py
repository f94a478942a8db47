"""Compiling, caching, checking and launching: what every kernel's Python side uses."""

from .describe import describe
from .errors import KernelError
from .kernel import Kernel
from .source import Source
from .target import Target
from .targets import as_array, check_unmasked, choose_target, cpu_target, cuda_target
from .types import Array

__all__ = [
    "Array",
    "Kernel",
    "KernelError",
    "Source",
    "Target",
    "as_array",
    "check_unmasked",
    "choose_target",
    "cpu_target",
    "cuda_target",
    "describe",
]
