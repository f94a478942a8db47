"""Data sets: what one is, MNIST, synthetic digits, and loading by name."""

from .dataset import DataError, Dataset
from .loading import load
from .mnist import load_mnist
from .synthetic import synthetic_digits

__all__ = ["DataError", "Dataset", "load", "load_mnist", "synthetic_digits"]
