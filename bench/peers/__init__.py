"""What ours is compared with: NumPy, PyTorch, ONNX Runtime, and the processes that run them."""
