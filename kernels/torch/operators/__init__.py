"""The operators behind `functional`: kernels as PyTorch sees them, each with its gradients.

The gradients of contiguous images and filters are contiguous, as PyTorch's are.
"""

from .conv import conv2d, conv2d_backward
from .conv_pool import conv2d_pool, conv2d_pool_backward, is_conv2d_pool_fused
from .gemm import dense, dense_backward
from .loss import softmax_cross_entropy, softmax_cross_entropy_backward
from .norm import batch_norm, batch_norm_backward, layer_norm, layer_norm_backward
from .pooling import max_pool2d, max_pool2d_backward, pool_indices

__all__ = [
    "batch_norm",
    "batch_norm_backward",
    "conv2d",
    "conv2d_backward",
    "conv2d_pool",
    "conv2d_pool_backward",
    "dense",
    "dense_backward",
    "is_conv2d_pool_fused",
    "layer_norm",
    "layer_norm_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "pool_indices",
    "softmax_cross_entropy",
    "softmax_cross_entropy_backward",
]
