"""Machine code of NVIDIA GPUs, disassembled by `nvdisasm`."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

_LABEL = re.compile(r"^(\.L_x_\d+):")
#: A branch to a label.
BRANCH = re.compile(r"\bBRA(?:\.\w+)*\s.*`\((\.L_x_\d+)\)")


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


def labels(lines: Sequence[str]) -> dict[str, int]:
    """Return where each label of a function's text is."""
    return {match[1]: i for i, line in enumerate(lines) if (match := _LABEL.match(line))}


def loops(lines: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield the first line of each loop in a function's text, and the line after its last."""
    places = labels(lines)
    for i, line in enumerate(lines):
        branch = BRANCH.search(line)
        if branch and places[branch[1]] < i:
            yield places[branch[1]], i + 1


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
