"""Networks of PyTorch's beside the same ones accelerated."""

import copy

import torch
from torch import nn

from kernels.torch import accelerate
from tests.lib.tensors import normal

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def pooled(channels=1, filters=6, kernel=5, **options):
    return [nn.Conv2d(channels, filters, kernel, **options), nn.ReLU(), nn.MaxPool2d(2)]


class LeNet(nn.Module):
    """As it is often written: `view` takes contiguous images alone."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(*pooled(padding=2), *pooled(6, 16))
        self.classifier = nn.Sequential(nn.Linear(400, 84), nn.ReLU(), nn.Linear(84, 10))

    def forward(self, x):
        return self.classifier(self.features(x).view(len(x), -1))


NETWORKS = {
    "LeNet": (LeNet, (48, 1, 28, 28)),
    "pool before ReLU": (
        lambda: nn.Sequential(nn.Conv2d(3, 32, 3), nn.MaxPool2d((1, 2)), nn.ReLU()),
        (16, 3, 18, 18),
    ),
    "no bias, same padding": (
        lambda: nn.Sequential(*pooled(3, 8, 5, padding="same", bias=False)),
        (32, 3, 28, 28),
    ),
    "convolution": (lambda: nn.Conv2d(32, 32, 3, padding=1), (16, 32, 12, 12)),
    "convolution without bias": (lambda: nn.Conv2d(32, 48, 3, bias=False), (16, 32, 12, 12)),
    "one filter": (lambda: nn.Sequential(*pooled(3, 1, 5)), (256, 3, 28, 28)),
    "one pixel": (lambda: nn.Sequential(*pooled(32, 32, 3)), (256, 32, 4, 4)),
    "pool": (lambda: nn.Sequential(nn.MaxPool2d(2)), (64, 16, 32, 32)),
    "written to": (
        lambda: nn.Sequential(
            nn.Conv2d(32, 32, 3), nn.ReLU(inplace=True), *pooled(32, 16, 3), nn.Hardtanh(0, 1, True)
        ),
        (32, 32, 12, 12),
    ),
}


def both(make, layout=torch.contiguous_format):
    """Return a module of PyTorch's and the same, accelerated."""
    torch.manual_seed(0)
    theirs = make().to(memory_format=layout)
    return theirs, accelerate(copy.deepcopy(theirs))


def outcome(module, x):
    """Return y, and the gradients of x and of all parameters."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = module(x)
    dy = normal(99, *y.shape, dtype=torch.float64).to(y.dtype)
    return y, *torch.autograd.grad(y, [x, *module.parameters()], dy)
