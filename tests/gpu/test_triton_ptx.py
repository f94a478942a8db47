"""PTX that Triton made, run by the machine: the results are NumPy's."""

import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from . import build
from .machine_api import Machine

MADE = Path(__file__).parent / "triton_made"
ELEMENTS = {"fp32": np.float32, "bf16": ml_dtypes.bfloat16, "fp16": np.float16}
#: Triton adds two parameters to a kernel's own, for scratch memory that these do not use.
NULL = np.uint64(0)


@pytest.fixture(scope="module")
def machine():
    return Machine(str(build.build().library), 0)


@pytest.fixture(params=[80, 90])
def launch(machine, request):
    """Run a kernel by name with two warps a block."""

    def launch(name, kernel, grid, *arguments):
        text = (MADE / f"{name}_{request.param}.ptx").read_text()
        shared = int(re.search(r"dynamic shared memory: (\d+)", text)[1])
        machine.module(text).run(kernel, grid, 64, *arguments, NULL, NULL, shared=shared)

    return launch


# The last block of rows, of columns and of k is a part of one; then whole tiles, and a single one.
@pytest.mark.parametrize("shape", [(19, 48, 80), (32, 64, 64), (16, 32, 32)])
@pytest.mark.parametrize("element", ELEMENTS)
def test_matrix_product(machine, launch, element, shape):
    m, n, k = shape
    generator = np.random.default_rng(0)
    # Whole numbers: exact in all types, and so are their sums.
    a = generator.integers(-8, 9, (m, k)).astype(ELEMENTS[element])
    b = generator.integers(-8, 9, (k, n)).astype(ELEMENTS[element])
    c = product(machine, launch, element, a, b)
    assert (c == a.astype(np.float32) @ b.astype(np.float32)).all()


@pytest.mark.parametrize("element", ELEMENTS)
def test_matrix_product_of_fractions(machine, launch, element):
    generator = np.random.default_rng(1)
    a, b = (
        generator.standard_normal(shape).astype(ELEMENTS[element]) for shape in ((19, 80), (80, 48))
    )
    c = product(machine, launch, element, a, b)
    if element == "fp32":  # tensor cores take the upper 19 bits
        a, b = ((x.view(np.uint32) & 0xFFFFE000).view(np.float32) for x in (a, b))
    a, b = a.astype(np.float64), b.astype(np.float64)
    # 80 sums in float32, each off by half a unit at most.
    assert (np.abs(c - a @ b) <= 80 * 2.0**-24 * (np.abs(a) @ np.abs(b))).all()


def product(machine, launch, element, a, b):
    (m, k), n = a.shape, b.shape[1]
    c = machine.empty((m, n), np.float32)
    sizes = np.int32(m), np.int32(n), np.int32(k)
    grid = -(-m // 16), -(-n // 32)
    launch(f"matmul_{element}", "matmul", grid, machine.array(a), machine.array(b), c, *sizes)
    return c.values


@pytest.mark.parametrize("columns", [256, 200, 1])
def test_softmax(machine, launch, columns):
    x = 4 * np.random.default_rng(0).standard_normal((3, columns)).astype(np.float32)
    y = machine.empty(x.shape, np.float32)
    launch("softmax", "softmax", 3, machine.array(x), y, np.int32(columns))
    e = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
    # ex2.approx of up to 2^5 and div.full: a few units each.
    np.testing.assert_allclose(y.values, e / e.sum(axis=1, keepdims=True), rtol=2e-6)


@pytest.mark.parametrize("columns", [256, 200])
def test_layer_norm(machine, launch, columns):
    generator = np.random.default_rng(0)
    x = (3 + generator.standard_normal((3, columns))).astype(ml_dtypes.bfloat16)
    gamma, beta = generator.standard_normal((2, columns)).astype(np.float32)
    y = machine.empty(x.shape, ml_dtypes.bfloat16)
    arrays = machine.array(x), machine.array(gamma), machine.array(beta), y
    launch("layer_norm", "layer_norm", 3, *arrays, np.int32(columns), np.float32(1e-5))
    v = x.astype(np.float64)
    d = v - v.mean(axis=1, keepdims=True)
    expected = d / np.sqrt((d**2).mean(axis=1, keepdims=True) + 1e-5) * gamma + beta
    # bfloat16 rounds to 8 bits; next to a tie float32 may round the other way.
    error = np.abs(y.values.astype(np.float64) - expected)
    assert (error <= 2.0**-8 * 1.001 * np.abs(expected) + 1e-6).all()
