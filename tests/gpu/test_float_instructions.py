"""Instructions on floating-point numbers against NumPy and exact arithmetic, and comparisons."""

from fractions import Fraction

import numpy as np
import pytest

from .one_instruction import PTX_TYPES, equal_bits, floats, integers, round_fraction, run


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
