"""A small network with every kind of array: weights, running statistics, random draws."""

from cnn import BatchNorm, Conv2D, Dense, Dropout, Flatten, MaxPool2D, ReLU, Sequential


def layers():
    return [
        Conv2D(5, 3, bias=False),  # the gradient of a bias before batch-norm is 0
        BatchNorm(),
        MaxPool2D(2),
        ReLU(),
        Flatten(),
        Dense(7, bias=False),
        Dropout(0.5),
        Dense(3),
    ]


def build(device="cpu", **options):
    return Sequential(layers(), (9, 8, 2), device, **options)
