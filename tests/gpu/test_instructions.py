"""Each instruction against NumPy and exact arithmetic, to the bit where PTX defines the result."""

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from . import build
from .machine_api import Machine, MachineError

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


@pytest.fixture(scope="module")
def machine():
    return Machine(str(build.build().library))


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


# ---- whole numbers ------------------------------------------------------------------------------

INTEGER = {
    "add": lambda a, b, bits: a + b,
    "sub": lambda a, b, bits: a - b,
    "mul.lo": lambda a, b, bits: a * b,
    "mul.hi": lambda a, b, bits: (a * b) >> bits,
    "min": lambda a, b, bits: min(a, b),
    "max": lambda a, b, bits: max(a, b),
    "div": lambda a, b, bits: int_div(a, b) if b else -1,
    "rem": lambda a, b, bits: a - int_div(a, b) * b if b else a,
}


def int_div(a, b):
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


@pytest.mark.parametrize("kind", ["s16", "u16", "s32", "u32", "s64", "u64"])
@pytest.mark.parametrize("name", INTEGER)
def test_integer_arithmetic(machine, name, kind):
    a, b = pairs(kind)
    bits = np.dtype(PTX_TYPES[kind]).itemsize * 8
    actual = run(machine, f"{name}.{kind}", kind, (kind, a), (kind, b))
    numbers = [
        INTEGER[name](x, y, bits) for x, y in zip(exact(kind, a), exact(kind, b), strict=True)
    ]
    equal_bits(actual, wrapped(kind, numbers))


@pytest.mark.parametrize("kind", ["s16", "u16", "s32", "u32"])
def test_wide_products(machine, kind):
    a, b = pairs(kind)
    wide = kind[0] + str(2 * int(kind[1:]))
    actual = run(machine, f"mul.wide.{kind}", wide, (kind, a), (kind, b))
    numbers = [x * y for x, y in zip(exact(kind, a), exact(kind, b), strict=True)]
    equal_bits(actual, wrapped(wide, numbers))
    actual = run(machine, f"mad.wide.{kind}", wide, (kind, a), (kind, b), (wide, 77))
    equal_bits(actual, wrapped(wide, [number + 77 for number in numbers]))


@pytest.mark.parametrize("name", ["add.sat", "sub.sat"])
def test_saturated_sums(machine, name):
    a, b = pairs("s32")
    sign = 1 if name == "add.sat" else -1
    expected = np.clip(a.astype("i8") + sign * b.astype("i8"), -(2**31), 2**31 - 1)
    equal_bits(run(machine, f"{name}.s32", "s32", ("s32", a), ("s32", b)), expected)


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_shifts(machine, bits):
    a = integers(f"u{bits}")
    for n in (0, 1, bits // 2, bits - 1, bits, bits + 1, 255, 2**32 - 1):
        clamped = min(n, bits)
        left = [x << clamped for x in exact("", a)]
        shifted = run(machine, f"shl.b{bits}", f"u{bits}", (f"u{bits}", a), ("u32", n))
        equal_bits(shifted, wrapped(f"u{bits}", left))
        shifted = run(machine, f"shr.u{bits}", f"u{bits}", (f"u{bits}", a), ("u32", n))
        equal_bits(shifted, wrapped(f"u{bits}", [x >> clamped for x in exact("", a)]))
        signed = a.view(f"i{bits // 8}")
        shifted = run(machine, f"shr.s{bits}", f"s{bits}", (f"s{bits}", signed), ("u32", n))
        equal_bits(shifted, wrapped(f"s{bits}", [x >> clamped for x in exact("", signed)]))


def test_funnel_shifts(machine):
    a, b = pairs("u32")
    whole = [(int(y) << 32) | int(x) for x, y in zip(a, b, strict=True)]
    for n in (0, 1, 7, 31, 32, 33, 100):
        for mode, shift in (("clamp", min(n, 32)), ("wrap", n % 32)):
            operands = ("u32", a), ("u32", b), ("u32", n)
            actual = run(machine, f"shf.l.{mode}.b32", "u32", *operands)
            equal_bits(actual, wrapped("u32", [(x << shift) >> 32 for x in whole]))
            actual = run(machine, f"shf.r.{mode}.b32", "u32", *operands)
            equal_bits(actual, wrapped("u32", [x >> shift for x in whole]))


@pytest.mark.parametrize("kind", ["s32", "u32", "s64", "u64"])
def test_bit_fields(machine, kind):
    bits = int(kind[1:])
    a = integers(kind)
    for position, length in [
        (0, 0),
        (0, bits),
        (3, 5),
        (bits - 1, 1),
        (bits - 4, 9),
        (40, 3),
        (255, 4),
    ]:
        expected = []
        for x in exact(kind, a):
            field = (x % 2**bits) >> position
            top = min(position + length - 1, bits - 1)
            negative = kind[0] == "s" and length and (x >> top & 1)
            field &= 2**length - 1
            valid = max(0, min(length, bits - position))
            expected.append(field - (2**valid if negative and length else 0))
        actual = run(machine, f"bfe.{kind}", kind, (kind, a), ("u32", position), ("u32", length))
        equal_bits(actual, wrapped(kind, expected))


@pytest.mark.parametrize("bits", [32, 64])
def test_bit_insertion(machine, bits):
    a, b = pairs(f"u{bits}")
    for position, length in [(0, 0), (0, bits), (3, 5), (bits - 1, 1), (bits - 4, 9), (255, 4)]:
        mask = ((2**length - 1) << position) % 2**bits
        expected = [int(y) & ~mask | (int(x) << position) & mask for x, y in zip(a, b, strict=True)]
        actual = run(
            machine,
            f"bfi.b{bits}",
            f"u{bits}",
            (f"u{bits}", a),
            (f"u{bits}", b),
            ("u32", position),
            ("u32", length),
        )
        equal_bits(actual, wrapped(f"u{bits}", expected))


@pytest.mark.parametrize("bits", [32, 64])
def test_counted_and_reversed_bits(machine, bits):
    kind = f"u{bits}"
    a = integers(kind)
    texts = [format(int(x), f"0{bits}b") for x in a]
    for name, of in {
        "popc": lambda text: text.count("1"),
        "clz": lambda text: len(text) - len(text.lstrip("0")),
    }.items():
        equal_bits(run(machine, f"{name}.b{bits}", "u32", (kind, a)), [of(text) for text in texts])
    reverse = [int(text[::-1], 2) for text in texts]
    equal_bits(run(machine, f"brev.b{bits}", kind, (kind, a)), wrapped(kind, reverse))
    highest = [int(x).bit_length() - 1 for x in a]
    equal_bits(run(machine, f"bfind.u{bits}", "u32", (kind, a)), wrapped("u32", highest))


def test_lop3_is_its_table(machine):
    a, b, c = np.uint32(0xF0), np.uint32(0xCC), np.uint32(0xAA)
    for table in (0, 0x80, 0xFE, 0x96, 0xCA, 0xE8, 0xFF):
        text = kernel(f"lop3.b32 %r2, 0xF0, 0xCC, 0xAA, {table}; st.global.u32 [%a0], %r2;", 1)
        y = machine.empty(1, np.uint32)
        machine.module(text).run("f", 1, 1, y)
        assert y.values[0] & 0xFF == table, (a, b, c)


def test_permuted_bytes(machine):
    a, b = 0x33221100, 0x77665544
    expected = {
        "prmt.b32": {0x3210: 0x33221100, 0x7654: 0x77665544, 0x0246: 0x00224466, 0x8888: 0},
        "prmt.b32.f4e": {0: 0x33221100, 1: 0x44332211, 3: 0x66554433},
        "prmt.b32.b4e": {0: 0x55667700, 1: 0x66770011},
        "prmt.b32.rc8": {2: 0x22222222},
        "prmt.b32.ecl": {1: 0x33221111},
        "prmt.b32.ecr": {2: 0x22221100},
        "prmt.b32.rc16": {1: 0x33223322},
    }
    for opcode, cases in expected.items():
        for selector, value in cases.items():
            operands = ("u32", a), ("u32", b), ("u32", selector)
            assert run(machine, opcode, "u32", *operands)[0] == value, (opcode, selector)


def test_sums_of_128_bits(machine):
    """Carries from word to word."""
    body = """
    mad.lo.u64 %rd2, %rd1, 8, %a0; mad.lo.u64 %rd3, %rd1, 8, %a1;
    ld.global.u64 %rd4, [%rd2]; ld.global.u64 %rd5, [%rd3];
    add.cc.u64 %rd6, %rd4, %rd5; addc.u64 %rd7, %rd4, %rd5;
    mad.lo.u64 %rd2, %rd1, 16, %a2;
    st.global.v2.u64 [%rd2], {%rd6, %rd7};
    """
    a, b = pairs("u64")
    out = machine.empty((64, 2), np.uint64)
    machine.module(kernel(body, 3)).run(
        "f", 1, 64, machine.array(a[:64]), machine.array(b[-64:]), out
    )
    for x, y, (low, high) in zip(a[:64], b[-64:], out.values, strict=True):
        both = lambda z: (int(z) << 64) | int(z)  # noqa: E731
        assert (int(high) << 64) | int(low) == (both(x) + both(y)) % 2**128


# ---- floating-point numbers ---------------------------------------------------------------------

SPECIAL = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 0.5, 3.0, 1e-3, 65504.0, 1e30, -1e30]


def floats(kind):
    dtype = PTX_TYPES[kind]
    tiny = float(ml_dtypes.finfo(dtype).smallest_normal)
    random = np.random.default_rng(1).standard_normal(40)
    with np.errstate(over="ignore"):
        few = np.array([*SPECIAL, tiny, -tiny, tiny / 2, -tiny / 4, tiny * 1.5]).astype(dtype)
        return np.concatenate([few, (random * 10.0 ** np.arange(-20, 20)).astype(dtype)])


def flushed(values):
    small = np.abs(values) < np.finfo(np.float32).smallest_normal
    return np.where(small, np.copysign(np.float32(0), values), values)


FLOATING = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div.rn": lambda a, b: a / b,
}


@pytest.mark.parametrize("kind", ["f32", "f64"])
@pytest.mark.parametrize("name", FLOATING)
def test_floating_arithmetic(machine, name, kind):
    a, b = (axis.ravel() for axis in np.meshgrid(floats(kind), floats(kind)))
    with np.errstate(all="ignore"):
        expected = FLOATING[name](a, b)
        equal_bits(run(machine, f"{name}.{kind}", kind, (kind, a), (kind, b)), expected)
        if kind == "f32":
            expected = flushed(FLOATING[name](flushed(a), flushed(b)))
            equal_bits(run(machine, f"{name}.ftz.f32", kind, (kind, a), (kind, b)), expected)
            expected = np.clip(np.nan_to_num(FLOATING[name](a, b), nan=0), 0, 1)
            actual = run(machine, f"{name}.sat.f32", kind, (kind, a), (kind, b))
            equal_bits(actual, expected + 0.0)


@pytest.mark.parametrize("kind", ["f16", "bf16"])
@pytest.mark.parametrize("name", ["add", "sub", "mul"])
def test_narrow_arithmetic(machine, name, kind):
    """Each rounded once: in double, the result is exact or rounds the same."""
    a, b = (axis.ravel() for axis in np.meshgrid(floats(kind), floats(kind)))
    with np.errstate(all="ignore"):
        expected = FLOATING[name](a.astype("f4"), b.astype("f4")).astype(PTX_TYPES[kind])
    equal_bits(run(machine, f"{name}.{kind}", kind, (kind, a), (kind, b)), expected)


def test_a_nan_is_the_canonical_one(machine):
    actual = run(machine, "add.f32", "f32", ("f32", [np.inf, np.nan]), ("f32", [-np.inf, 1]))
    np.testing.assert_array_equal(actual.view("u4"), 0x7FFFFFFF)


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


@pytest.mark.parametrize("kind", ["f32", "f64", "f16", "bf16"])
def test_fma_rounds_once(machine, kind):
    """Against exact fractions, with sums that cancel and sums that are nearly ties."""
    dtype = PTX_TYPES[kind]
    random = np.random.default_rng(2)
    a, b = (random.uniform(0.5, 2, 600).astype(dtype) for _ in range(2))
    products = a.astype("f8") * b.astype("f8")
    scale = np.choose(np.arange(600) % 4, [1.0, 2.0**-12, 2.0**-20, 2.0**-30])
    c = np.where(np.arange(600) % 3 == 0, -products, random.uniform(-2, 2, 600) * scale)
    with np.errstate(under="ignore"):
        c = c.astype(dtype)
    expected = [
        round_fraction(Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)), kind)
        for x, y, z in zip(a, b, c, strict=True)
    ]
    actual = run(machine, f"fma.rn.{kind}", kind, (kind, a), (kind, b), (kind, c))
    np.testing.assert_array_equal(actual.astype("f8"), expected)


@pytest.mark.parametrize("mode", ["rz", "rm", "rp"])
@pytest.mark.parametrize("name", ["add", "mul", "div", "fma", "sqrt", "rcp"])
def test_directed_rounding(machine, name, mode):
    random = np.random.default_rng(3)
    a, b, c = (random.uniform(-2, 2, 256).astype("f4") for _ in range(3))
    a = np.abs(a) if name == "sqrt" else a
    operands = {"fma": (a, b, c), "sqrt": (a,), "rcp": (a,)}.get(name, (a, b))
    actual = run(machine, f"{name}.{mode}.f32", "f32", *(("f32", x) for x in operands))
    wide = [x.astype(np.longdouble) for x in operands]
    exact_result = {
        "add": lambda: wide[0] + wide[1],
        "mul": lambda: wide[0] * wide[1],
        "div": lambda: wide[0] / wide[1],
        "fma": lambda: wide[0] * wide[1] + wide[2],
        "sqrt": lambda: np.sqrt(wide[0]),
        "rcp": lambda: 1 / wide[0],
    }[name]()
    below = exact_result.astype("f4")
    below = np.where(
        below.astype(np.longdouble) > exact_result, np.nextafter(below, -np.inf), below
    )
    above = np.where(
        below.astype(np.longdouble) < exact_result, np.nextafter(below, np.float32(np.inf)), below
    )
    toward_zero = np.where(exact_result > 0, below, above)
    equal_bits(actual, {"rz": toward_zero, "rm": below, "rp": above}[mode])


@pytest.mark.parametrize("kind", ["f32", "f64", "f16", "bf16"])
def test_extrema(machine, kind):
    """Of a number and NaN the number, unless .NaN; -0 is below 0."""
    a, b = (axis.ravel() for axis in np.meshgrid(floats(kind), floats(kind)))
    for name, zero in (("min", -0.0), ("max", 0.0)):
        pick = np.fmin if name == "min" else np.fmax
        wide = pick(a.astype("f8"), b.astype("f8"))
        zeros = (a == 0) & (b == 0) & (np.signbit(a.astype("f8")) != np.signbit(b.astype("f8")))
        expected = np.where(zeros, zero, wide).astype(PTX_TYPES[kind])
        equal_bits(run(machine, f"{name}.{kind}", kind, (kind, a), (kind, b)), expected)
        if kind != "f64":
            expected[np.isnan(a.astype("f8")) | np.isnan(b.astype("f8"))] = np.nan
            actual = run(machine, f"{name}.NaN.{kind}", kind, (kind, a), (kind, b))
            equal_bits(actual, expected)


APPROXIMATE = {
    "ex2.approx.ftz": (np.exp2, -100, 100),
    "lg2.approx.ftz": (np.log2, 1e-6, 1e6),
    "rcp.approx.ftz": (lambda x: 1 / x, 1e-3, 1e3),
    "rsqrt.approx.ftz": (lambda x: 1 / np.sqrt(x), 1e-3, 1e3),
    "sqrt.approx.ftz": (np.sqrt, 0, 1e6),
    "sin.approx.ftz": (np.sin, -3, 3),
    "cos.approx.ftz": (np.cos, -3, 3),
    "tanh.approx": (np.tanh, -5, 5),
}


@pytest.mark.parametrize("name", APPROXIMATE)
def test_approximations(machine, name):
    of, least, most = APPROXIMATE[name]
    x = np.random.default_rng(4).uniform(least, most, 500).astype("f4")
    actual = run(machine, f"{name}.f32", "f32", ("f32", x))
    np.testing.assert_allclose(actual, of(x.astype("f8")), rtol=2**-23, atol=2**-24)


COMPARISONS = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: (a < b) | (a > b),
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "equ": lambda a, b: ~((a < b) | (a > b)),
    "neu": lambda a, b: a != b,
    "ltu": lambda a, b: ~(a >= b),
    "leu": lambda a, b: ~(a > b),
    "gtu": lambda a, b: ~(a <= b),
    "geu": lambda a, b: ~(a < b),
    "num": lambda a, b: (a == a) & (b == b),
    "nan": lambda a, b: (a != a) | (b != b),
}


@pytest.mark.parametrize("kind", ["f32", "f64", "f16", "bf16", "s32", "u64", "s16"])
@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons(machine, name, kind):
    whole = kind[0] in "su"
    if whole and name in ("equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"):
        return
    values = integers(kind) if whole else floats(kind)
    a, b = (axis.ravel() for axis in np.meshgrid(values, values))
    actual = run(machine, f"set.{name}.u32.{kind}", "u32", (kind, a), (kind, b))
    wide = (a, b) if whole else (a.astype("f8"), b.astype("f8"))
    np.testing.assert_array_equal(actual, np.where(COMPARISONS[name](*wide), 2**32 - 1, 0))


# ---- conversions --------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["s8", "u8", "s16", "u16", "s32", "u32", "s64", "u64"])
@pytest.mark.parametrize("kind", ["s8", "u8", "s16", "u16", "s32", "u32", "s64", "u64"])
def test_integers_to_integers(machine, to, kind):
    a = integers(kind)
    equal_bits(run(machine, f"cvt.{to}.{kind}", to, (kind, a)), wrapped(to, exact(kind, a)))
    info = np.iinfo(PTX_TYPES[to])
    expected = [min(max(x, info.min), info.max) for x in exact(kind, a)]
    equal_bits(run(machine, f"cvt.sat.{to}.{kind}", to, (kind, a)), wrapped(to, expected))


@pytest.mark.parametrize("to", ["s16", "u16", "s32", "u32", "s64", "u64"])
@pytest.mark.parametrize("kind", ["f32", "f64", "f16"])
@pytest.mark.parametrize("mode", ["rni", "rzi", "rmi", "rpi"])
def test_floats_to_integers(machine, to, kind, mode):
    values = [0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49, 7.9, -7.9, 1e9, -1e9, 3e18, 1e30, -1e30]
    with np.errstate(over="ignore"):
        a = np.array([*values, np.inf, -np.inf, np.nan], PTX_TYPES[kind])
    of = {"rni": round, "rzi": int, "rmi": math.floor, "rpi": math.ceil}[mode]
    info = np.iinfo(PTX_TYPES[to])
    expected = []
    for x in a.astype("f8"):
        if np.isnan(x):
            middle = kind == "f64" or to[1:] == "64"
            expected.append(2 ** (int(to[1:]) - 1) if middle else 0)
        else:
            clipped = min(max(x, -(2.0**70)), 2.0**70)
            expected.append(min(max(of(clipped), info.min), info.max))
    equal_bits(run(machine, f"cvt.{mode}.{to}.{kind}", to, (kind, a)), wrapped(to, expected))


@pytest.mark.parametrize("to", ["f32", "f64", "f16", "bf16"])
@pytest.mark.parametrize("kind", ["s32", "u32", "s64", "u64", "s8", "u16"])
def test_integers_to_floats(machine, to, kind):
    a = np.concatenate([integers(kind), (integers(kind) // 7).astype(PTX_TYPES[kind])])
    expected = []
    for x in exact(kind, a):
        expected.append(round_fraction(Fraction(x), to))
    with np.errstate(over="ignore"):
        expected = np.array(expected).astype(PTX_TYPES[to])
    equal_bits(run(machine, f"cvt.rn.{to}.{kind}", to, (kind, a)), expected)


@pytest.mark.parametrize(
    "to, kind",
    [("f32", "f64"), ("f64", "f32"), ("f16", "f32"), ("f32", "f16"), ("bf16", "f32"),
     ("f32", "bf16"), ("f16", "f64"), ("f64", "f16")],
)  # fmt: skip
def test_floats_to_floats(machine, to, kind):
    a = floats(kind)
    with np.errstate(all="ignore"):
        expected = a.astype("f8").astype(PTX_TYPES[to])
    narrows = np.dtype(PTX_TYPES[to]).itemsize < np.dtype(PTX_TYPES[kind]).itemsize
    rounding = ".rn" if narrows else ""
    equal_bits(run(machine, f"cvt{rounding}.{to}.{kind}", to, (kind, a)), expected)


@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
def test_doubles_to_floats_in_every_direction(machine, mode):
    a = np.random.default_rng(5).uniform(-2, 2, 300)
    nearest = a.astype("f4")
    below = np.where(nearest > a, np.nextafter(nearest, np.float32(-np.inf)), nearest)
    above = np.where(nearest < a, np.nextafter(nearest, np.float32(np.inf)), nearest)
    zero = np.where(a > 0, below, above)
    expected = {"rn": nearest, "rz": zero, "rm": below, "rp": above}[mode]
    equal_bits(run(machine, f"cvt.{mode}.f32.f64", "f32", ("f64", a)), expected)


def test_tf32_keeps_ten_bits(machine):
    bits = np.array([0x3F800000, 0x3F800FFF, 0x3F801000, 0x3F801001, 0x3F803000, 0xBF801000], "u4")
    actual = run(machine, "cvt.rna.tf32.f32", "u32", ("u32", bits))
    np.testing.assert_array_equal(
        actual, np.array([0x3F800000, 0x3F800000, 0x3F802000, 0x3F802000, 0x3F804000, 0xBF802000])
    )


def test_two_floats_to_a_pair(machine):
    a, b = floats("f32"), floats("f32")[::-1].copy()
    for kind in ("f16", "bf16"):
        with np.errstate(all="ignore"):
            high, low = (x.astype(PTX_TYPES[kind]).view("u2").astype("u4") for x in (a, b))
        number = ~(np.isnan(a) | np.isnan(b))
        actual = run(machine, f"cvt.rn.{kind}x2.f32", "u32", ("f32", a), ("f32", b))
        np.testing.assert_array_equal(actual[number], (high << 16 | low)[number])


# ---- what does not run --------------------------------------------------------------------------


def refused(machine, body):
    with pytest.raises(MachineError) as error:
        machine.module(kernel(body, 1))
    return str(error.value)


def test_an_unknown_instruction_is_named_with_its_line(machine):
    report = refused(machine, "wgmma.fence.sync.aligned;")
    assert "PTX line" in report and "of kernel f: wgmma.fence.sync.aligned: " in report
    assert "this instruction is not supported" in report


def test_an_unknown_modifier_is_named(machine):
    assert "its modifier .odd is not supported" in refused(machine, "add.odd.s32 %r1, %r1, %r1;")


def test_a_register_of_another_size_is_refused(machine):
    assert "is of another size" in refused(machine, "add.s64 %rd1, %r1, %rd1;")


def test_a_cubin_is_no_ptx(machine):
    with pytest.raises(MachineError, match="this is no PTX text"):
        machine.module("\x7fELF")
