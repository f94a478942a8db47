"""Running one instruction of PTX on arrays, and values to run it on."""

from fractions import Fraction

import ml_dtypes
import numpy as np

LANES = 64  # two warps
REGISTER = {1: "b16", 2: "b16", 4: "b32", 8: "b64"}
PTX_TYPES = {
    "s16": np.int16,
    "u16": np.uint16,
    "b16": np.uint16,
    "s32": np.int32,
    "u32": np.uint32,
    "b32": np.uint32,
    "s64": np.int64,
    "u64": np.uint64,
    "b64": np.uint64,
    "f32": np.float32,
    "f64": np.float64,
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "s8": np.int8,
    "u8": np.uint8,
}


def kernel(body, parameters, registers=""):
    """Return the PTX of a kernel `f` whose %rd1 is the thread's number."""
    arguments = ", ".join(f".param .u64 p{i}" for i in range(parameters))
    loads = "".join(f"ld.param.u64 %a{i}, [p{i}];\n" for i in range(parameters))
    return f"""
    .version 8.0
    .target sm_90
    .address_size 64
    .visible .entry f({arguments})
    {{
    .reg .pred %p<9>; .reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .b64 %a<{parameters + 1}>;
    {registers}
    {loads}
    mov.u32 %r1, %tid.x;
    cvt.u64.u32 %rd1, %r1;
    {body}
    ret;
    }}
    """


def run(machine, opcode, result, *operands):
    """Apply one instruction to arrays, an element a thread.

    `result` and the operands' dtypes are PTX types; an operand is (type, values).
    """
    types = [result, *(kind for kind, _ in operands)]
    sizes = [np.dtype(PTX_TYPES[kind]).itemsize for kind in types]
    registers = "".join(f".reg .{REGISTER[size]} %v{i};\n" for i, size in enumerate(sizes))
    loads = "".join(
        f"mad.lo.u64 %rd2, %rd1, {size}, %a{i};\n ld.global.{memory_type(kind)} %v{i}, [%rd2];\n"
        for i, (kind, size) in enumerate(zip(types, sizes, strict=True))
        if i
    )
    names = ", ".join(f"%v{i}" for i in range(len(types)))
    store = (
        f"mad.lo.u64 %rd2, %rd1, {sizes[0]}, %a0;\n st.global.{memory_type(result)} [%rd2], %v0;"
    )
    text = kernel(f"{loads}\n{opcode} {names};\n{store}", len(types), registers)
    count = np.broadcast(*(np.atleast_1d(values) for _, values in operands)).size
    padded = -(-count // LANES) * LANES
    arrays = [machine.empty(padded, PTX_TYPES[result])]
    for kind, values in operands:
        values = np.broadcast_to(np.asarray(values, PTX_TYPES[kind]), count)
        arrays.append(machine.array(np.resize(values, padded)))
    module = machine.module(text.replace("mov.u32 %r1, %tid.x;", GLOBAL_INDEX))
    module.run("f", padded // LANES, LANES, *arrays)
    return arrays[0].values[:count].copy()


GLOBAL_INDEX = """
    mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x; mov.u32 %r4, %tid.x;
    mad.lo.s32 %r1, %r2, %r3, %r4;
"""


def memory_type(kind):
    return kind if kind[-1] == "8" else f"b{8 * np.dtype(PTX_TYPES[kind]).itemsize}"


def equal_bits(actual, expected):
    """Require equal bits, but for NaN, which need only be NaN."""
    actual, expected = np.asarray(actual), np.asarray(expected).astype(actual.dtype)
    nan = expected != expected
    np.testing.assert_array_equal(actual[nan] != actual[nan], True)
    kept = ~nan
    unsigned = f"u{actual.dtype.itemsize}"
    np.testing.assert_array_equal(actual[kept].view(unsigned), expected[kept].view(unsigned))


def integers(kind, seed=0):
    """Return the ends of a type's range, small numbers, and others."""
    info = np.iinfo(PTX_TYPES[kind])
    few = [info.min, info.min + 1, info.max, info.max - 1, 0, 1, 2, 3, 5, 7, 31, 100]
    random = np.random.default_rng(seed).integers(
        info.min, info.max, 60, PTX_TYPES[kind], endpoint=True
    )
    return np.concatenate([np.array(few, PTX_TYPES[kind]), random])


def pairs(kind):
    values = integers(kind)
    return [axis.ravel() for axis in np.meshgrid(values, values)]


def exact(kind, values):
    return [int(value) for value in values]


def wrapped(kind, numbers):
    """Return exact numbers as a type holds them: their low bits."""
    bits = np.dtype(PTX_TYPES[kind]).itemsize * 8
    unsigned = np.array([number % 2**bits for number in numbers], f"u{bits // 8}")
    return unsigned.view(PTX_TYPES[kind])


SPECIAL = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 0.5, 3.0, 1e-3, 65504.0, 1e30, -1e30]


def floats(kind):
    dtype = PTX_TYPES[kind]
    tiny = float(ml_dtypes.finfo(dtype).smallest_normal)
    random = np.random.default_rng(1).standard_normal(40)
    with np.errstate(over="ignore"):
        few = np.array([*SPECIAL, tiny, -tiny, tiny / 2, -tiny / 4, tiny * 1.5]).astype(dtype)
        return np.concatenate([few, (random * 10.0 ** np.arange(-20, 20)).astype(dtype)])


def round_fraction(number, kind):
    """Return an exact number in a type, rounded once, to the nearest, ties to even."""
    digits, least = {"f32": (24, -149), "f64": (53, -1074), "f16": (11, -24), "bf16": (8, -133)}[
        kind
    ]
    if number == 0:
        return 0.0
    exponent = abs(number).numerator.bit_length() - abs(number).denominator.bit_length()
    if abs(number) < Fraction(2) ** exponent:
        exponent -= 1
    unit = Fraction(2) ** max(exponent - digits + 1, least)
    return float(round(number / unit) * unit)
