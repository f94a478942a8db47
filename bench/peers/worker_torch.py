"""PyTorch: the same network, data, optimizer and functions as in `worker_cnn`.

python -m bench.peers.worker_torch DEVICE FOLDER LAYOUT MODE, with LAYOUT "contiguous" or
"channels_last" and MODE "eager", "compile" or, on a GPU, "graph".
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from bench.peers.worker import serve

state: Any = None


class Training:
    """A network with its optimizer, and functions for a step and a prediction."""

    def __init__(self, described: dict[str, Any]) -> None:
        self.described = described
        stored = np.load(described["weights"])
        self.network = network(described["layers"], stored).to(device, memory_format=layout)
        kind, settings = described["optimizer"]
        settings = {key: value for key, value in settings.items() if value is not None}
        graph = {"capturable": True} if mode == "graph" and kind != "SGD" else {}
        self.optimizer = getattr(torch.optim, kind)(
            self.network.parameters(), fused=True, **settings, **graph
        )
        self.lr = settings["lr"]
        self.steps = 0
        self.pixels: tuple[float, float] | None = None
        self.average = [p.detach().clone() for p in self.network.parameters()]
        compiled = torch.compile(self.network) if mode == "compile" else self.network
        self.forward = compiled
        self.graphs: dict[int, Any] = {}

    def fit(self, images: Any, labels: Any, batch_size: int, generator: Any) -> torch.Tensor:
        """Train on uint8 images for one epoch; return the mean loss, on the device."""
        self.network.train()
        order = torch.randperm(len(images), generator=generator).to(device)
        total = torch.zeros((), device=device)
        for chosen in order.split(batch_size):
            factors = self.described["factors"]
            if factors:
                self.optimizer.param_groups[0]["lr"] = self.lr * factors[self.steps]
            loss = self.step(images[chosen], labels[chosen])
            total += loss.detach() * len(chosen)
            self.steps += 1
            if self.described["ema"] is not None:
                share = min(self.described["ema"], self.steps / (9 + self.steps))
                parameters = [p.detach() for p in self.network.parameters()]
                torch._foreach_lerp_(self.average, parameters, 1 - share)
        return total / len(images)

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if mode == "graph":
            return self.replay(images, labels)
        return self.plain_step(images, labels)

    def plain_step(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        smoothing = self.described["label_smoothing"]
        logits = self.forward(self.prepare(images))
        loss = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        self.optimizer.zero_grad(set_to_none=mode != "graph")
        loss.backward()
        self.optimizer.step()
        return loss

    def replay(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Run the step as a CUDA graph, captured for each batch size."""
        if len(images) not in self.graphs:
            inputs = images.clone(), labels.clone()
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):  # cuDNN chooses its algorithms before the capture
                for _ in range(3):
                    self.plain_step(*inputs)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                loss = self.plain_step(*inputs)
            self.graphs[len(images)] = graph, inputs, loss
        graph, inputs, loss = self.graphs[len(images)]
        inputs[0].copy_(images)
        inputs[1].copy_(labels)
        graph.replay()
        return loss

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        mean, std = self.pixels
        x = images.to(torch.float32).sub_(mean).div_(std)[:, None]
        if self.described["augment"]:
            x = augmented(x, -mean / std, **self.described["augment"])
        return x.contiguous(memory_format=layout)

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        self.network.eval()
        with torch.inference_mode():
            return self.forward(x)


def network(layers: list[Any], stored: Any) -> nn.Sequential:
    """Return a network from its description, with the stored parameters, which are ours."""
    modules: list[nn.Module] = []
    x = torch.zeros(1, 1, 28, 28)
    flattened: tuple[int, ...] | None = None  # the image's shape before it became a row
    for position, (kind, settings) in enumerate(layers):
        arrays = {
            name.partition(".")[2]: torch.from_numpy(stored[name])
            for name in stored.files
            if name.startswith(f"{position}.")
        }
        if kind == "Flatten":
            flattened = x.shape[1:]
        if kind == "Dense" and flattened:
            arrays["weight"] = _channels_first(arrays["weight"], flattened)
            flattened = None
        module = MODULES[kind](x.shape[1], settings, arrays)
        modules.append(module)
        with torch.no_grad():
            x = module.eval()(x)
    return nn.Sequential(*modules)


def _channels_first(weight: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Return a dense layer's weight for rows (H, W, C), reordered for PyTorch's rows (C, H, W)."""
    C, H, W = shape
    return weight.reshape(-1, H, W, C).permute(0, 3, 1, 2).reshape(len(weight), -1)


def _conv2d(channels: int, settings: dict[str, Any], arrays: dict[str, Any]) -> nn.Module:
    padding = {"valid": 0}.get(settings["padding"], settings["padding"])
    module = nn.Conv2d(
        channels,
        settings["filters"],
        arrays["weight"].shape[1:3],
        settings["stride"],
        padding,
        settings["dilation"],
        settings["groups"],
        settings["bias"],
    )
    arrays["weight"] = arrays["weight"].permute(0, 3, 1, 2)
    return _filled(module, arrays)


def _batch_norm(channels: int, settings: dict[str, Any], arrays: dict[str, Any]) -> nn.Module:
    arrays = {"weight": arrays.pop("gamma"), "bias": arrays.pop("beta"), **arrays}
    return _filled(nn.BatchNorm2d(channels, settings["eps"], settings["momentum"]), arrays)


def _dense(inputs: int, settings: dict[str, Any], arrays: dict[str, Any]) -> nn.Module:
    return _filled(nn.Linear(inputs, settings["units"], settings["bias"]), arrays)


def _filled(module: nn.Module, arrays: dict[str, Any]) -> nn.Module:
    module.load_state_dict(arrays, strict=False)
    assert {name for name, _ in module.named_parameters()} <= set(arrays)
    return module


class GlobalAvgPool(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


MODULES: dict[str, Callable[[int, dict[str, Any], dict[str, Any]], nn.Module]] = {
    "Conv2D": _conv2d,
    "BatchNorm": _batch_norm,
    "Dense": _dense,
    "ReLU": lambda *_: nn.ReLU(inplace=True),
    "MaxPool2D": lambda _, settings, __: nn.MaxPool2d(
        settings["kernel"], settings["stride"], settings["padding"]
    ),
    "GlobalAvgPool2D": lambda *_: GlobalAvgPool(),
    "Flatten": lambda *_: nn.Flatten(),
}


def augmented(
    x: torch.Tensor, fill: float, rotate: float, shift: float, zoom: float
) -> torch.Tensor:
    """Return images each rotated, shifted and zoomed at random."""
    N, _, H, W = x.shape
    angle, size, right, down = (torch.rand(N, device=x.device) * 2 - 1 for _ in range(4))
    angle, size = angle * rotate * torch.pi / 180, 1 + size * zoom
    cos, sin = angle.cos() / size, angle.sin() / size
    right, down = right * shift * 2 / W, down * shift * 2 / H
    rows = [torch.stack(row, 1) for row in ((cos, -sin, right), (sin, cos, down))]
    grid = functional.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    return functional.grid_sample(x - fill, grid, align_corners=False) + fill


# Functions that the parent calls


def load(described: dict[str, Any]) -> None:
    """Make a training with the initial parameters."""
    global state
    state = Training(described)


def losses(batch_size: int, steps: int) -> list[float]:
    """Return the losses of steps on the first images, the same batch each time."""
    _set_pixels(images[:batch_size])
    return [_fit(batch_size, batch_size).item() for _ in range(steps)]


def train(batch_size: int, count: int) -> float:
    """Train on `count` images and return the seconds of the steps."""
    _set_pixels(images[:count])
    _wait()
    start = time.perf_counter()
    _fit(batch_size, count).item()
    return time.perf_counter() - start


def accuracy(epochs: int, batch_size: int) -> list[float]:
    """Train on all images and return the seconds of the steps and the test accuracy."""
    seconds = sum(train(batch_size, len(images)) for _ in range(epochs))
    if state.described["ema"] is not None:
        for parameter, average in zip(state.network.parameters(), state.average, strict=True):
            parameter.data.copy_(average)
    mean, std = state.pixels
    hits = 0
    for x, expected in zip(test_images.split(1024), test_labels.split(1024), strict=True):
        x = x.to(torch.float32).sub_(mean).div_(std)[:, None].contiguous(memory_format=layout)
        with torch.inference_mode():
            state.network.eval()
            hits += int((state.network(x).argmax(1) == expected).sum())
    return [seconds, hits / len(test_images)]


def outputs(batch_size: int) -> list[list[float]]:
    """Return the logits of the first images."""
    return state.predict(_inputs(batch_size)).cpu().tolist()


def infer(batch_size: int, calls: int) -> float:
    """Return the mean seconds of some predictions."""
    x = _inputs(batch_size)
    _wait()
    start = time.perf_counter()
    for _ in range(calls):
        state.predict(x)
    _wait()
    return (time.perf_counter() - start) / calls


def _fit(batch_size: int, count: int) -> torch.Tensor:
    return state.fit(images[:count], labels[:count], batch_size, generator)


def _set_pixels(chosen: torch.Tensor) -> None:
    if state.pixels is None:
        std, mean = torch.std_mean(chosen.double(), correction=0)
        state.pixels = mean.item(), std.item()


def _inputs(batch_size: int) -> torch.Tensor:
    x = images[:batch_size, None].to(torch.float32) / 255
    return x.contiguous(memory_format=layout)


def _wait() -> None:
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    device, folder, layout_name, mode = sys.argv[1:]
    layout = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}[
        layout_name
    ]
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.backends.cuda.matmul.allow_tf32 = False  # float32, as ours
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    generator = torch.Generator().manual_seed(0)
    stored = np.load(f"{folder}/data.npz")
    images, labels, test_images, test_labels = (
        torch.from_numpy(stored[name]).to(device) for name in stored.files
    )
    serve(load, losses, train, accuracy, outputs, infer)
