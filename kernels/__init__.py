"""Hand-written CUDA kernels for small convolutional networks, on NumPy and CuPy arrays."""

from .common.relu import relu, relu_backward
from .conv.conv2d import conv2d, conv2d_backward
from .conv.im2col import col2im, im2col
from .gemm.dense import dense, dense_backward
from .images.augment import affine_warp, augment
from .images.dropout import dropout, dropout_backward
from .images.normalize import normalize
from .loss.softmax import cross_entropy, softmax, softmax_backward, softmax_cross_entropy
from .norm.batchnorm import BatchNormSaved, batch_norm, batch_norm_backward
from .norm.layer_norm import LayerNormSaved, layer_norm, layer_norm_backward
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
from .step.optimizers import adam_step, sgd_step

__all__ = [
    "BatchNormSaved",
    "KernelError",
    "LayerNormSaved",
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
    "layer_norm",
    "layer_norm_backward",
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
