"""An emulated GPU: CuPy and NVRTC as they are, and what they compile run on the CPU."""
