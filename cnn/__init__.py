"""A thin layer and trainer library over `kernels`."""

from .augment import Augment
from .data import DataError, Dataset, load
from .divergence import TrainingDivergedError
from .ema import EMA
from .ensemble import Ensemble
from .evaluation import evaluate
from .formats.checkpoint import CheckpointError
from .formats.torch_weights import load_torch, save_torch
from .fresh_statistics import update_batch_norm
from .layers import (
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    Layer,
    LayerNorm,
    MaxPool2D,
    ReLU,
    Softmax,
)
from .losses import CrossEntropy, SoftmaxCrossEntropy
from .model import Sequential
from .optimizers import SGD, Adam, AdamW
from .runs import Run
from .schedules import Constant, Cosine, OneCycle, Step
from .trainer import Trainer

__all__ = [
    "EMA",
    "SGD",
    "Adam",
    "AdamW",
    "Augment",
    "AvgPool2D",
    "BatchNorm",
    "CheckpointError",
    "Constant",
    "Conv2D",
    "Cosine",
    "CrossEntropy",
    "DataError",
    "Dataset",
    "Dense",
    "Dropout",
    "Ensemble",
    "Flatten",
    "GlobalAvgPool2D",
    "Layer",
    "LayerNorm",
    "MaxPool2D",
    "OneCycle",
    "ReLU",
    "Run",
    "Sequential",
    "Softmax",
    "SoftmaxCrossEntropy",
    "Step",
    "Trainer",
    "TrainingDivergedError",
    "evaluate",
    "load",
    "load_torch",
    "save_torch",
    "update_batch_norm",
]
