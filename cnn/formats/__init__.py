"""Files that hold models: checkpoints, ONNX graphs, PyTorch weights."""
