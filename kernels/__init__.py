"""Hand-written CUDA kernels for small convolutional networks, on NumPy and CuPy arrays."""

from .common.elementwise import adam_step, normalize, relu, relu_backward, sgd_step
from .conv.conv2d import col2im, conv2d, conv2d_backward, im2col
from .gemm.dense import dense, dense_backward
from .images.augment import affine_warp, augment
from .images.dropout import dropout, dropout_backward
from .loss.softmax import cross_entropy, softmax, softmax_backward, softmax_cross_entropy
from .norm.batchnorm import BatchNormSaved, batch_norm, batch_norm_backward
from .pooling.pool import (
    avg_pool2d,
    avg_pool2d_backward,
    global_avg_pool2d,
    global_avg_pool2d_backward,
    max_pool2d,
    max_pool2d_backward,
    pool_indices,
)
from .runtime import KernelError

__all__ = [
    "BatchNormSaved",
    "KernelError",
    "adam_step",
    "affine_warp",
    "augment",
    "avg_pool2d",
    "avg_pool2d_backward",
    "batch_norm",
    "batch_norm_backward",
    "col2im",
    "conv2d",
    "conv2d_backward",
    "cross_entropy",
    "dense",
    "dense_backward",
    "dropout",
    "dropout_backward",
    "global_avg_pool2d",
    "global_avg_pool2d_backward",
    "im2col",
    "max_pool2d",
    "max_pool2d_backward",
    "normalize",
    "pool_indices",
    "relu",
    "relu_backward",
    "sgd_step",
    "softmax",
    "softmax_backward",
    "softmax_cross_entropy",
]
