"""Machine code of NVIDIA GPUs, disassembled by `nvdisasm`."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path


def instructions(cubin: bytes) -> dict[str, list[str]]:
    """Return the opcodes of each function in order, such as "LDG.E.128"."""
    from cuda.pathfinder import find_nvidia_binary_utility

    # In the wheel nvidia-cuda-nvdisasm, a conda environment or a CUDA toolkit.
    program = find_nvidia_binary_utility("nvdisasm")
    if program is None:
        raise FileNotFoundError("nvdisasm is not there: pip install nvidia-cuda-nvdisasm")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernels.cubin")
        path.write_bytes(cubin)
        command = [program, "-json", str(path)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    _, functions = json.loads(output)
    return {
        function["function-name"]: [line["opcode"] for line in function["sass-instructions"]]
        for function in functions
    }


def has(opcodes: Iterable[str], wanted: str) -> bool:
    """Whether an instruction is there, further modifiers such as ".CONSTANT" allowed."""
    return any(f"{opcode}.".startswith(f"{wanted}.") for opcode in opcodes)
