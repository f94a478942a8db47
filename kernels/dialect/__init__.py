"""The words of kernels, which have a meaning on each target."""
