"""Data sets: the class `Dataset`, MNIST, synthetic digits, and loading by name."""

from .dataset import DataError, Dataset
from .loading import load

__all__ = ["DataError", "Dataset", "load"]
