"""`kernels.torch` under PyTorch's DistributedDataParallel, in two processes joined by gloo."""

import gc

import torch
from torch import distributed, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

import kernels.torch
from tests.lib import fresh_python

PEERS = {"kernels": kernels.torch, "torch": functional}
BATCH, STEPS = 12, 3


class Network(nn.Module):
    """A convolution, a pool and a dense layer, by one library or the other."""

    def __init__(self, peer):
        super().__init__()
        torch.manual_seed(1)
        self.peer = peer
        self.conv, self.dense = nn.Conv2d(2, 5, 3), nn.Linear(5 * 3 * 3, 4)

    def forward(self, x):
        conv2d, pool = PEERS[self.peer].conv2d, PEERS[self.peer].max_pool2d
        x = pool(conv2d(x, self.conv.weight, self.conv.bias).relu(), 2)
        if self.peer == "torch":
            return functional.linear(x.flatten(1), self.dense.weight, self.dense.bias)
        return kernels.torch.dense(x.flatten(1), self.dense.weight, self.dense.bias)


def data():
    generator = torch.Generator().manual_seed(2)
    return torch.randn(BATCH, 2, 8, 8, generator=generator), torch.arange(BATCH) % 4


def trained(module, peer, images, labels):
    """Return the weights after some steps, in one array."""
    loss = kernels.torch.softmax_cross_entropy if peer == "kernels" else functional.cross_entropy
    optimizer = torch.optim.SGD(module.parameters(), 0.5, momentum=0.9)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss(module(images), labels).backward()
        optimizer.step()
    return torch.cat([parameter.detach().reshape(-1) for parameter in module.parameters()])


def trained_with_another(rank, meeting):
    """Return the weights of one of two processes, each of which has every second image."""
    distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=2)
    try:
        own = [array[rank::2] for array in data()]
        return trained(DistributedDataParallel(Network("kernels")), "kernels", *own)
    finally:
        # The module is part of a cycle and holds the group, whose threads let go of tensors: if
        # Python has ended by then, the process aborts (PyTorch's pull request 179291).
        gc.collect()
        distributed.destroy_process_group()


def test_two_processes_train_as_one(tmp_path):
    script = (
        "import sys, torch\n"
        "from tests.kernels.test_torch_distributed import trained_with_another\n"
        "torch.save(trained_with_another(1, sys.argv[1]), sys.argv[2])"
    )
    meeting, written = tmp_path / "meeting", tmp_path / "weights"
    other = fresh_python.start("-c", script, str(meeting), str(written))
    weights = trained_with_another(0, meeting)
    _, errors = other.communicate(timeout=300)
    assert other.returncode == 0, errors
    assert torch.equal(weights, torch.load(written))
    # Halves of one size: the mean of their gradients is the whole batch's.
    expected = trained(Network("torch"), "torch", *data())
    torch.testing.assert_close(weights, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(
        weights, trained(Network("torch"), "torch", data()[0][::2], data()[1][::2])
    )
