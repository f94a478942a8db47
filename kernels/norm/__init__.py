"""Batch-norm, alone, with a pool, and folded into a convolution; layer-norm."""
