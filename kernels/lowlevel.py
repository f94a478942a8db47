"""The level below the public functions, for a library that plans its own training steps.

Operations that do the work of several public ones, those of a training step, and the runtime's
types. `cnn` uses these and the public functions alone.
"""

from .common.cast import cast
from .common.geometry import Padding, Pair, Window, pair, sides, window
from .common.moments import Moments
from .common.pending import PendingSums
from .common.reduce import accumulator
from .conv.conv2d import forward_with_moments as conv2d_with_moments
from .conv.conv2d import gradients as conv2d_gradients
from .conv.conv2d_pool import Pool
from .conv.conv2d_pool import backward as conv2d_pool_backward
from .conv.conv2d_pool import forward as conv2d_pool
from .conv.conv2d_pool import rectified as conv2d_pool_rectified
from .conv.conv2d_pool import windows as conv2d_pool_windows
from .conv.winograd import keeping as keeping_transforms
from .conv.winograd import suits as transforms_filters
from .gemm.dense import gradients as dense_gradients
from .gemm.gradients import Rectified
from .gemm.precision import check_precision, precision
from .loss.dense_loss import dense_cross_entropy
from .loss.dense_loss import fits as fits_dense_cross_entropy
from .norm.batchnorm import forward as batch_norm_relu
from .norm.batchnorm_pool import backward as batch_norm_pool_backward
from .norm.batchnorm_pool import forward as batch_norm_pool
from .norm.fold import fold_norm
from .runtime import Array, Target, as_array, check_unmasked, choose_target, describe
from .runtime.arena import Arena
from .runtime.checks import floating, floating_type, number, whole, word
from .runtime.elementwise import Table
from .runtime.recording import Proof, Recording, Rehearsal
from .runtime.types import Launch, Shape
from .step.batch import Augmentation, Progress, count_batch, gather_batch
from .step.loss_scale import new_state as new_loss_scale
from .step.loss_scale import scale_gradient
from .step.loss_scale import update as update_loss_scale
from .step.optimizers import (
    Scalars,
    adam_scalars,
    adam_update,
    average_update,
    sgd_scalars,
    sgd_update,
)

__all__ = [
    "Arena",
    "Array",
    "Augmentation",
    "Launch",
    "Moments",
    "Padding",
    "Pair",
    "PendingSums",
    "Pool",
    "Progress",
    "Proof",
    "Recording",
    "Rectified",
    "Rehearsal",
    "Scalars",
    "Shape",
    "Table",
    "Target",
    "Window",
    "accumulator",
    "adam_scalars",
    "adam_update",
    "as_array",
    "average_update",
    "batch_norm_pool",
    "batch_norm_pool_backward",
    "batch_norm_relu",
    "cast",
    "check_precision",
    "check_unmasked",
    "choose_target",
    "conv2d_gradients",
    "conv2d_pool",
    "conv2d_pool_backward",
    "conv2d_pool_rectified",
    "conv2d_pool_windows",
    "conv2d_with_moments",
    "count_batch",
    "dense_cross_entropy",
    "dense_gradients",
    "describe",
    "fits_dense_cross_entropy",
    "floating",
    "floating_type",
    "fold_norm",
    "gather_batch",
    "keeping_transforms",
    "new_loss_scale",
    "number",
    "pair",
    "precision",
    "scale_gradient",
    "sgd_scalars",
    "sgd_update",
    "sides",
    "transforms_filters",
    "update_loss_scale",
    "whole",
    "window",
    "word",
]
