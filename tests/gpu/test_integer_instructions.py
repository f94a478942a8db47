"""Instructions on integers and bits against exact arithmetic, to the bit."""

import numpy as np
import pytest

from .one_instruction import PTX_TYPES, equal_bits, exact, integers, kernel, pairs, run, wrapped

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
