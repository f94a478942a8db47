"""Benchmarks: kernels, trainings and predictions beside their peers."""
