"""Tests of the GEMM's own geometry on `cpu`: panels, bands, sheets, registers of every width.

The tests of dense layers and convolutions hold it to the oracle on small shapes; these are the
shapes at which it divides its work, whose sizes are those of gemm_rows.cuh.
"""

import functools
import hashlib

import numpy as np
import pytest

import kernels
from kernels import runtime
from tests.invariants.test_repeatability import run_python
from tests.lib import comparison, reference
from tests.lib.support import RTOL, normal

# Rows, inputs and outputs: M, K and N of the forward product.
DENSE = [
    (5, 2049, 3),  # three panels of k, the last of one; rows that do not fill a micro-tile
    (300, 1500, 97),  # two sheets of rows that wait for a second panel; columns of two panels
    (263, 1024, 17),  # one whole panel; a micro-tile of seven rows
    (9, 40, 30),  # registers that the columns do not fill
    (9, 40, 50),  # more columns than a micro-tile of float32 has
    (5000, 3, 300),  # bands of k, several a block
    (3, 2, 25000),  # more columns of A in a block than a band gathers at a time
]

# Shapes of x and w, and the convolution's options.
CONV = [
    ((2, 2, 5, 400), (3, 2, 3, 400), {"padding": (0, 1)}),  # runs of k longer than a panel
    ((1, 2, 3, 2200), (4, 1, 2, 1100), {"groups": 2}),  # the same, by group
    ((1, 7, 7, 300), (4, 3, 3, 150), {"groups": 2, "dilation": 2}),  # panels of whole runs
    ((1, 6, 5, 8), (4, 3, 3, 4), {"groups": 2, "dilation": (1, 2), "padding": 2}),  # short runs
    ((2, 9, 11, 40), (3, 3, 3, 40), {"padding": 1}),  # padding and pixels in one micro-tile
    ((1, 1, 2, 25000), (1, 1, 1, 25000), {"padding": 1}),  # gathered bands in two parts
    ((2, 30, 31, 3), (5, 3, 3, 3), {"padding": 1}),  # bands of k with padding in between
    # Padding wider than the filters: the turned window begins beyond the gradient's edge.
    ((1, 4, 5, 3), (4, 2, 3, 3), {"padding": 5}),
    ((1, 4, 5, 3), (4, 1, 1, 3), {"padding": ((7, 0), (0, 6))}),
    ((1, 4, 5, 3), (4, 2, 3, 3), {"padding": ((0, 9), (4, 0)), "dilation": (3, 2)}),
    ((1, 3, 3, 100), (97, 3, 3, 100), {"padding": 2}),  # two panels of columns both ways
]
EVERY = [*DENSE, *CONV]


def multiply(dtype, shapes):
    """Return a product and its gradients, and a function that returns the oracle's."""
    if not isinstance(shapes[0], tuple):
        rows, inputs, outputs = shapes
        x, w = normal(0, rows, inputs, dtype=dtype), normal(1, outputs, inputs, dtype=dtype)
        y = kernels.dense(x, w)
        dy = normal(2, *y.shape, dtype=dtype)

        def expected():
            dx, dw, db = reference.dense_backward(dy, x, w.T)
            return reference.dense(x, w.T), dx, dw.T, db

        return (y, *kernels.dense_backward(dy, x, w)), expected
    x_shape, w_shape, options = shapes
    x, w = normal(0, *x_shape, dtype=dtype), normal(1, *w_shape, dtype=dtype)
    y = kernels.conv2d(x, w, **options)
    dy = normal(2, *y.shape, dtype=dtype)
    return (y, *kernels.conv2d_backward(dy, x, w, **options)), lambda: (
        reference.conv2d(x, w, **options),
        *reference.conv2d_backward(dy, x, w, **options),
    )


def check(dtype, shapes):
    """Compare with the oracle."""
    found, expected = multiply(np.dtype(dtype), shapes)
    for array, by_oracle in zip(found, expected(), strict=True):
        comparison.assert_close(array, by_oracle, rtol=RTOL[dtype])


@functools.cache
def bits():
    """Return a hash of all results, whose values `test_equals_the_oracle` checks."""
    dtypes = map(np.dtype, runtime.cpu_target().dtypes)
    arrays = [a for dtype in dtypes for shapes in EVERY for a in multiply(dtype, shapes)[0]]
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


@pytest.mark.parametrize("shapes", EVERY, ids=str)
def test_equals_the_oracle(dtype, shapes):
    check(dtype.name, shapes)


@pytest.mark.parametrize("threads", ["1", "2", "3"])
def test_any_number_of_threads_gives_the_same_bits(threads):
    code = "from tests.kernels import test_gemm; print(test_gemm.bits())"
    assert run_python(code, KERNELS_THREADS=threads).strip() == bits()
