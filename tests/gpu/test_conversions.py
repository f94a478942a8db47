"""Conversions between the types of PTX, to the bit."""

import math
from fractions import Fraction

import numpy as np
import pytest

from .one_instruction import (
    PTX_TYPES,
    equal_bits,
    exact,
    floats,
    integers,
    round_fraction,
    run,
    wrapped,
)


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
