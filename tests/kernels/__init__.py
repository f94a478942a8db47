"""Tests of `kernels`: every function, the runtime, the dialect, the operators for PyTorch."""
