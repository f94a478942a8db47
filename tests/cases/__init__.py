"""The table of functions, which tests and benchmarks read: arguments, oracle, peers and sizes."""

from tests.cases import conv, elementwise, gemm, images, loss, norm, optimizers, pooling

FAMILIES = (elementwise, gemm, conv, pooling, norm, loss, images, optimizers)
CASES = {case.name: case for family in FAMILIES for case in family.CASES}
