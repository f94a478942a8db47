"""Convolution: implicit GEMM, Winograd, fused with a pool; im2col and its adjoint."""
