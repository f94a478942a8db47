"""The functions of `kernels` in PyTorch: each returns a call and how to read its result.

Arrays are ours: images (N, H, W, C), filters (F, KH, KW, C). `layout` is PyTorch's memory format:
"channels_last" shares our memory, "contiguous" is its default. Results are read as ours, on the
host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

Call = tuple[Callable[[], Any], Callable[[Any], list[np.ndarray]]]
aten = torch.ops.aten

# As ours: all in float32, no TF32.
torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cudnn.allow_tf32 = False
torch.backends.cudnn.benchmark = True


def tensor(array: Any) -> torch.Tensor:
    """Return an array as a tensor on its device; a copy, so that none shares state."""
    return torch.from_dlpack(array).clone()


def image(array: Any, layout: str) -> torch.Tensor:
    formats = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
    return tensor(array).permute(0, 3, 1, 2).contiguous(memory_format=formats[layout])


def read(result: Any) -> list[np.ndarray]:
    results = result if isinstance(result, (tuple, list)) else (result,)
    return [_ours(value) for value in results if value is not None]


def _ours(value: torch.Tensor) -> np.ndarray:
    value = value.detach()
    return (value.permute(0, 2, 3, 1) if value.ndim == 4 else value).cpu().numpy()


def normalize(images: Any, mean: float, std: float) -> Call:
    images = tensor(images)
    return lambda: images.to(torch.float32).sub_(mean).div_(std), lambda y: [y.cpu().numpy()]


def affine_warp(layout: str, images: Any, matrix: Any) -> Call:
    images, theta = image(images, layout), _normalised(tensor(matrix), images.shape)

    def run() -> torch.Tensor:
        grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
        return functional.grid_sample(images, grid, align_corners=False)

    return run, read


def _normalised(matrix: torch.Tensor, shape: tuple) -> torch.Tensor:
    """Return maps between pixels as maps between PyTorch's coordinates, which go from -1 to 1."""
    _, H, W, _ = shape
    to_pixels = matrix.new_tensor(
        [[W / 2, 0, (W - 1) / 2], [0, H / 2, (H - 1) / 2], [0, 0, 1]], dtype=torch.float64
    )
    inside = (to_pixels.inverse()[:2, :2] @ (matrix.double() @ to_pixels)).clone()
    inside[:, :, 2] += to_pixels.inverse()[:2, 2]
    return inside.float()


def optimizer(kind: str, param: Any, grad: Any, **settings: Any) -> Call:
    param = torch.nn.Parameter(tensor(param))
    param.grad = tensor(grad)
    step = getattr(torch.optim, kind)([param], fused=True, **settings).step
    return step, lambda _: [param.detach().cpu().numpy().copy()]
