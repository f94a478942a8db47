"""PyTorch with these kernels: functions of `torch.nn.functional`, and whole modules accelerated.

`accelerate` replaces layers of a module, and `explain` tells which. The functions have PyTorch's
arguments, in its order and with its defaults (`dense` those of `linear`, `softmax_cross_entropy`
those of `cross_entropy` that are not deprecated); images are (N, C, H, W); gradients and
`torch.compile` work as usual. The kernels take images and filters in the memory format
`torch.channels_last`: such tensors are not copied, others are converted at each call, and images
are returned in that format. Tensors are float32 or float64 on a CPU; on a GPU also float16 and
bfloat16, and the kernels run on PyTorch's current stream. Gradients are those of `torch.autograd`
in reverse mode, and `torch.vmap` works; differentiating twice, forward mode and the gradients of
`torch.func` raise RuntimeError.

Importing this module raises ImportError where PyTorch cannot be imported.
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError(f"{__name__} needs PyTorch, which cannot be imported: {error}") from error

from ..runtime import cpu_target as _cpu_target
from . import threads as _threads
from .functional import batch_norm, conv2d, dense, layer_norm, max_pool2d, softmax_cross_entropy
from .replacement import accelerate, explain

# PyTorch's threads spin after its kernels, on the cores that threads of our own would need.
if (_openmp := _threads.openmp()) is not None:
    _cpu_target().share_openmp(*_openmp)

__all__ = [
    "accelerate",
    "batch_norm",
    "conv2d",
    "dense",
    "explain",
    "layer_norm",
    "max_pool2d",
    "softmax_cross_entropy",
]
