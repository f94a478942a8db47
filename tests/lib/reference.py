"""Float64 NumPy oracle for every function of the public contract of `kernels`.

Obvious and slow: what the kernels are tested against, never part of the product. Whatever float
type comes in is cast to float64 first. Nothing is changed in place: functions that are in place in
the contract return the new values. Functions with windows live in `reference_windows`.
"""

import numpy as np

from tests.lib.reference_windows import (
    Array,
    avg_pool2d,
    avg_pool2d_backward,
    col2im,
    conv2d,
    conv2d_backward,
    float64,
    im2col,
    max_pool2d,
    max_pool2d_backward,
    pool_indices,
    window_geometry,
)

__all__ = [
    "adam_step",
    "affine_warp",
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
    "dropout_backward",
    "finite_difference",
    "global_avg_pool2d",
    "global_avg_pool2d_backward",
    "im2col",
    "max_pool2d",
    "max_pool2d_backward",
    "pool_indices",
    "relu",
    "relu_backward",
    "sgd_step",
    "softmax",
    "softmax_backward",
    "softmax_cross_entropy",
    "window_geometry",
]


def global_avg_pool2d(x) -> Array:
    """Average over all pixels of x (N, H, W, C): (N, C)."""
    return float64(x).mean(axis=(1, 2))


def global_avg_pool2d_backward(dy, x_shape) -> Array:
    """Gradient `x_shape` of `global_avg_pool2d` from dy (N, C)."""
    _, height, width, _ = x_shape
    return np.broadcast_to(float64(dy)[:, None, None, :], x_shape) / (height * width)


def batch_norm(
    x, gamma, beta, running_mean, running_var, *, training, momentum=0.1, eps=1e-5, relu=False
) -> tuple[Array, Array, Array]:
    """Normalise x (..., C) per channel: (y, new_running_mean, new_running_var).

    Training normalises with the batch's biased variance and moves the running variance towards the
    unbiased one; with a single value per channel (PyTorch refuses that) it moves towards 0.
    Inference and an empty batch leave the running statistics as they were.
    """
    x, gamma, beta = float64(x), float64(gamma), float64(beta)
    mean, var = float64(running_mean), float64(running_var)
    new_mean, new_var = mean, var
    if training and x.size:
        mean, var = _batch_statistics(x)
        count = x.size // x.shape[-1]
        unbiased = var * count / max(count - 1, 1)
        new_mean = (1 - momentum) * new_mean + momentum * mean
        new_var = (1 - momentum) * new_var + momentum * unbiased
    y = (x - mean) / np.sqrt(var + eps) * gamma + beta
    return np.maximum(y, 0) if relu else y, new_mean, new_var


def batch_norm_backward(
    dy,
    x,
    gamma,
    beta,
    running_mean=None,
    running_var=None,
    *,
    training=True,
    eps=1e-5,
    relu=False,
    y=None,
) -> tuple[Array, Array, Array]:
    """Gradients (dx, dgamma, dbeta) of `batch_norm` from dy (..., C).

    Statistics come from x in training, else they are the running ones. With `relu`, gradients pass
    where the output is positive; that is recomputed here, unless `y` is given, which spares a test
    a difference about the sign of an output that is 0 but for rounding.
    """
    dy, x, gamma, beta = float64(dy), float64(x), float64(gamma), float64(beta)
    if x.size == 0:
        return np.zeros_like(x), np.zeros_like(gamma), np.zeros_like(gamma)
    mean, var = _batch_statistics(x) if training else (float64(running_mean), float64(running_var))
    normalised = (x - mean) / np.sqrt(var + eps)
    if relu:
        dy = relu_backward(dy, normalised * gamma + beta if y is None else y)
    axes = tuple(range(x.ndim - 1))
    dgamma = (dy * normalised).sum(axis=axes)
    dbeta = dy.sum(axis=axes)
    dx = dy
    if training:
        # The batch mean and variance depend on x too: their two terms.
        count = x.size // x.shape[-1]
        dx = dy - dbeta / count - normalised * dgamma / count
    return dx * gamma / np.sqrt(var + eps), dgamma, dbeta


def _batch_statistics(x: Array) -> tuple[Array, Array]:
    """Mean and biased variance per channel of x (..., C)."""
    axes = tuple(range(x.ndim - 1))
    return x.mean(axis=axes), x.var(axis=axes)


def dense(x, w, b=None, *, relu=False) -> Array:
    """x (N, inputs) @ w (inputs, outputs) + b (outputs): (N, outputs)."""
    y = float64(x) @ float64(w)
    if b is not None:
        y = y + float64(b)
    return np.maximum(y, 0) if relu else y


def dense_backward(dy, x, w) -> tuple[Array, Array, Array]:
    """Gradients (dx, dw, db) of `dense` without ReLU, from dy (N, outputs)."""
    dy, x, w = float64(dy), float64(x), float64(w)
    return dy @ w.T, x.T @ dy, dy.sum(axis=0)


def relu(x) -> Array:
    """max(x, 0) for any shape; NaN stays NaN."""
    return np.maximum(float64(x), 0)


def relu_backward(dy, y) -> Array:
    """Gradient of `relu`, given its output y: dy, but 0 where y <= 0 (a NaN in y lets dy pass)."""
    return np.where(float64(y) <= 0, 0.0, float64(dy))


def softmax(x) -> Array:
    """exp(x) / sum(exp(x)) over the last axis, shifted so that nothing overflows.

    A row with NaN or +inf, or with nothing but -inf, is all NaN.
    """
    return np.exp(_log_softmax(float64(x)))


def _log_softmax(x: Array) -> Array:
    """Logarithm of `softmax`."""
    with np.errstate(invalid="ignore"):
        shifted = x - x.max(axis=-1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def softmax_backward(dy, y) -> Array:
    """Product of dy with the Jacobian of `softmax`, given its output y."""
    dy, y = float64(dy), float64(y)
    return y * (dy - (dy * y).sum(axis=-1, keepdims=True))


def softmax_cross_entropy(
    logits, labels, *, weight=None, ignore_index=-100, label_smoothing=0.0, reduction="mean"
) -> tuple[Array, Array]:
    """Cross-entropy of softmax(logits (N, K)) with labels (N): (loss, dlogits).

    The target of a row is `label_smoothing / K` everywhere plus the rest at its label, times the
    class weights (K). loss is a scalar, or (N) for reduction "none", where dlogits is that of the
    sum. "mean" divides by the summed weights of the labels (NaN where there are none). Rows
    labelled `ignore_index` give 0 to both whatever their logits. Rows with any other label outside
    [0, K) give NaN to both and add no weight to the divisor. A -inf logit with target 0 costs
    nothing.
    """
    logits, labels = float64(logits), np.asarray(labels).astype(np.int64)
    classes = logits.shape[1]
    weight = np.ones(classes) if weight is None else float64(weight)
    ignored = labels == ignore_index
    valid = ~ignored & (labels >= 0) & (labels < classes)
    label = np.where(valid, labels, 0)
    one_hot = label[:, None] == np.arange(classes)
    share = (1 - label_smoothing) * one_hot + label_smoothing / classes
    target = np.multiply(share, weight, out=np.zeros(share.shape), where=share != 0)

    log_probability = _log_softmax(logits)
    costs_nothing = (target == 0) & np.isneginf(log_probability)
    with np.errstate(invalid="ignore"):
        terms = np.where(costs_nothing, 0.0, -target * log_probability)
    loss = terms.sum(axis=1)
    dlogits = np.exp(log_probability) * target.sum(axis=1, keepdims=True) - target
    loss[~valid] = np.nan
    dlogits[~valid] = np.nan
    loss[ignored] = 0.0

    if reduction == "mean":
        divisor = np.sum(weight[label[valid]])
        with np.errstate(invalid="ignore", divide="ignore"):
            loss = loss.sum() / divisor
            dlogits = dlogits / divisor
    elif reduction == "sum":
        loss = loss.sum()
    elif reduction != "none":
        raise ValueError(f'reduction: expected "mean", "sum" or "none", got {reduction!r}')
    dlogits[ignored] = 0.0
    return loss, dlogits


def cross_entropy(probabilities, labels) -> tuple[Array, Array]:
    """Mean of -log(probabilities (N, K) at labels (N)): (loss, dprobabilities).

    Probabilities are clipped below at the smallest normal number of their type, and the gradient is
    the slope at the clipped value, never 0. A label outside [0, K) gives NaN to the
    loss and to its gradient row, and does not count in the mean; the mean of nothing is NaN.
    """
    kind = np.asarray(probabilities).dtype  # bfloat16 has float32's exponents
    least = np.finfo(kind if kind.kind == "f" else np.float32).smallest_normal
    probabilities, labels = float64(probabilities), np.asarray(labels).astype(np.int64)
    clipped = np.maximum(probabilities, least)
    rows = np.arange(len(labels))
    valid = (labels >= 0) & (labels < probabilities.shape[1])
    label = np.where(valid, labels, 0)
    loss = np.where(valid, -np.log(clipped[rows, label]), np.nan)
    dprobabilities = np.zeros_like(probabilities)
    dprobabilities[rows, label] = -1 / clipped[rows, label]
    dprobabilities[~valid] = np.nan
    with np.errstate(invalid="ignore"):
        return loss.sum() / np.sum(valid), dprobabilities / np.sum(valid)


def dropout_backward(dy, mask, p) -> Array:
    """Gradient of dropout with probability `p`: dy / (1 - p) where `mask` is not 0, else 0."""
    dy = float64(dy)
    return np.zeros_like(dy) if p == 1 else np.where(np.asarray(mask) != 0, dy / (1 - p), 0.0)


def affine_warp(images, matrix, *, fill=0) -> Array:
    """Warp images (N, H, W, C): output pixel (x, y) is the bilinear sample at matrix @ (x, y, 1).

    matrix (N, 2, 3) gives input coordinates (x, y) in pixels, pixel centres at integers. Each of
    the four neighbours that lies outside the image counts as `fill`; where a coordinate is not
    finite, all four do.
    """
    images, matrix = float64(images), float64(matrix)
    count, height, width, _ = images.shape
    y, x = np.mgrid[:height, :width]
    warped = np.zeros_like(images)
    for n in range(count):
        (xx, xy, x0), (yx, yy, y0) = matrix[n]
        input_x = xx * x + xy * y + x0
        input_y = yx * x + yy * y + y0
        # Any position this far out is outside; np.clip would let NaN through to the cast.
        far = ~((abs(input_x) < 1e9) & (abs(input_y) < 1e9))
        input_x, input_y = np.where(far, -9, input_x), np.where(far, -9, input_y)
        left, top = np.floor(input_x).astype(int), np.floor(input_y).astype(int)
        for column, row in ((left + i, top + j) for j in range(2) for i in range(2)):
            share = (1 - abs(input_x - column)) * (1 - abs(input_y - row))
            outside = (column < 0) | (column >= width) | (row < 0) | (row >= height)
            pixel = images[n, np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
            warped[n] += share[..., None] * np.where(outside[..., None], fill, pixel)
    return warped


def sgd_step(
    param, grad, velocity=None, *, lr, momentum=0, nesterov=False, weight_decay=0
) -> tuple[Array, Array | None]:
    """One step of PyTorch's SGD: (new param, new velocity). The velocity starts as zeros."""
    param = float64(param)
    grad = float64(grad) + weight_decay * param
    if velocity is None:
        if momentum:
            raise ValueError("velocity: expected an array where momentum is not 0, got None")
        return param - lr * grad, None
    velocity = momentum * float64(velocity) + grad
    update = grad + momentum * velocity if nesterov else velocity
    return param - lr * update, velocity


def adam_step(
    param, grad, m, v, *, step, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, decoupled=False
) -> tuple[Array, Array, Array]:
    """One step of PyTorch's Adam, or AdamW if `decoupled`: (new param, new m, new v).

    `step` counts from 1. eps is added after the square root of the bias-corrected v.
    """
    param, grad, m, v = float64(param), float64(grad), float64(m), float64(v)
    if decoupled:
        param = param * (1 - lr * weight_decay)
    else:
        grad = grad + weight_decay * param
    beta1, beta2 = betas
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad**2
    m_hat = m / (1 - beta1**step)
    v_hat = v / (1 - beta2**step)
    return param - lr * m_hat / (np.sqrt(v_hat) + eps), m, v


def finite_difference(f, x) -> Array:
    """Gradient of the scalar function f at x by central differences, element by element."""
    x, eps = float64(x), 1e-6
    gradient = np.empty_like(x)
    for index in np.ndindex(x.shape):
        ahead, behind = x.copy(), x.copy()
        ahead[index] += eps
        behind[index] -= eps
        gradient[index] = (f(ahead) - f(behind)) / (2 * eps)
    return gradient
