"""ONNX Runtime: runs our export of a described network."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import numpy as np
import onnxruntime

from bench.networks.definitions import restore
from bench.peers.worker import serve
from cnn.formats.onnx import to_onnx

session: Any = None


def load(described: dict[str, Any]) -> None:
    global session
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
    graph = to_onnx(restore(described, "cpu"), input_type="float32").SerializeToString()
    session = onnxruntime.InferenceSession(graph, options, providers=[provider])


def outputs(batch_size: int) -> list[list[float]]:
    """Return the logits of the first images."""
    return session.run(None, {"images": _inputs(batch_size)})[0].tolist()


def infer(batch_size: int, calls: int) -> float:
    """Return the mean seconds of some predictions."""
    inputs = {"images": _inputs(batch_size)}
    start = time.perf_counter()
    for _ in range(calls):
        session.run(None, inputs)
    return (time.perf_counter() - start) / calls


def _inputs(batch_size: int) -> np.ndarray:
    return images[:batch_size] / np.float32(255)


if __name__ == "__main__":
    device, folder = sys.argv[1:]
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[device]
    images = np.load(f"{folder}/data.npz")["images"]
    serve(load, outputs, infer)
