"""Random tensors for the tests of `kernels.torch`."""

import torch


def normal(seed, *shape, dtype=torch.float32, grad=False):
    """Return normally distributed values: a function of the arguments alone."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return values.requires_grad_(grad)
