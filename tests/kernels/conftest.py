"""What is needed to test `kernels.torch.accelerate`; files of tests that use it need PyTorch."""

import pytest


@pytest.fixture
def small_images_pay(monkeypatch):
    """Take the kernels for contiguous images for which they are not faster, too."""
    from kernels.torch import rules

    monkeypatch.setattr(rules, "CONTIGUOUS", rules.CHANNELS)
    monkeypatch.setattr(rules, "LEAST_POOLED_CONTIGUOUS", 2**17)


@pytest.fixture
def calls(monkeypatch):
    """The names of the kernels' functions that layers have called."""
    from kernels.torch import functional

    found = []

    def counting(name, function):
        def call(*arguments):
            found.append(name)
            return function(*arguments)

        return call

    for name in ("conv2d", "conv2d_pool", "max_pool2d"):
        monkeypatch.setattr(functional, name, counting(name, getattr(functional, name)))
    return found
