"""Machine code of NVIDIA GPUs, disassembled by `nvdisasm`."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path


def instructions(cubin: bytes) -> dict[str, list[str]]:
    """Return the opcodes of each function in order, such as "LDG.E.128"."""
    _, functions = json.loads(_disassembled(cubin, "-json"))
    return {
        function["function-name"]: [line["opcode"] for line in function["sass-instructions"]]
        for function in functions
    }


def text(cubin: bytes) -> dict[str, str]:
    """Return the text of each function, with its labels."""
    parts = re.split(r"^\s*\.section\s+\.text\.(\w+)", _disassembled(cubin), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _disassembled(cubin: bytes, *options: str) -> str:
    from cuda.pathfinder import find_nvidia_binary_utility

    # In the wheel nvidia-cuda-nvdisasm, a conda environment or a CUDA toolkit.
    program = find_nvidia_binary_utility("nvdisasm")
    if program is None:
        raise FileNotFoundError("nvdisasm is not there: pip install nvidia-cuda-nvdisasm")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernels.cubin")
        path.write_bytes(cubin)
        command = [program, *options, str(path)]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def has(opcodes: Iterable[str], wanted: str) -> bool:
    """Whether an instruction is there, further modifiers such as ".CONSTANT" allowed."""
    return any(f"{opcode}.".startswith(f"{wanted}.") for opcode in opcodes)
