"""Kernels row by row, and the host's part of a call."""
