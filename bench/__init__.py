"""Benchmarks: kernels, training and prediction, compared with peers."""
