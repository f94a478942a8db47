"""What PTX does not define to the last bit, so that a GPU may rightly differ from another."""

from __future__ import annotations

import re

_ENTRY = r"\.entry\s+{name}\s*\(.*?^\}}"
_FUNCTION = re.compile(r"^(?:\.visible |\.weak )?\.func\b.*?^\}", re.DOTALL | re.MULTILINE)
_INSTRUCTION = re.compile(r"^\s*(?:@!?%\w+\s+)?([a-z][\w.:]*)\s+([^;]*);", re.MULTILINE)
_FLOATS = r"\.(?:f16|f16x2|bf16|bf16x2|f32|f64)$"


def undefined(ptx: str, entry: str) -> list[str]:
    """Return the instructions of a kernel whose results PTX leaves open in the last bits.

    Approximations are open within the error that the manual states. The order and rounding of the
    sums in a product of matrices is open. A product without a rounding of its own that is then
    added to something may become one fma: that is up to the assembler. Empty where every bit is
    defined.
    """
    body = re.search(_ENTRY.format(name=re.escape(entry)), ptx, re.DOTALL | re.MULTILINE)
    assert body is not None, entry
    instructions = [
        (opcode, re.findall(r"%\w+", operands))
        for text in (body[0], *_FUNCTION.findall(ptx))
        for opcode, operands in _INSTRUCTION.findall(text)
    ]
    found = {opcode for opcode, _ in instructions if _is_open(opcode)}
    return sorted(found | _contracted(instructions))


def _is_open(opcode: str) -> bool:
    parts = opcode.split(".")
    return "approx" in parts or "full" in parts or (parts[0] == "mma" and "s32" not in parts)


def _contracted(instructions: list[tuple[str, list[str]]]) -> set[str]:
    """Return the sums of products that may be taken in one rounding instead of two."""
    products: dict[str, str] = {}  # register: the product in it
    found = set()
    for _ in range(2):  # once more for what comes around a loop
        for opcode, registers in instructions:
            kind, result, operands = opcode.split(".")[0], registers[:1], registers[1:]
            free = re.search(_FLOATS, opcode) and not re.search(r"\.r[nzmp]\b", opcode)
            taken = [products[register] for register in operands if register in products]
            if kind == "mul" and free:
                products |= dict.fromkeys(result, opcode)
            elif kind in ("mov", "selp", "neg") and taken:
                products |= dict.fromkeys(result, taken[0])
            elif kind in ("add", "sub") and free and taken:
                found.add(f"{taken[0]} + {opcode}")
    return found
