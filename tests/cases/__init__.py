"""The table of functions, which tests and benchmarks read: arguments, oracle, peers and sizes."""

from tests.cases import conv, elementwise, gemm, images, loss, norm, optimizers, pooling

FAMILIES = (elementwise, gemm, conv, pooling, norm, loss, images, optimizers)
CASES = {case.name: case for family in FAMILIES for case in family.CASES}
#: Pairs (function, reason for the sizes).
TRIED = [(name, why) for name, case in CASES.items() for why in case.sizes]
#: Those of them that PyTorch computes, too.
BESIDE_PYTORCH = [
    (name, why)
    for name, case in CASES.items()
    for why, sizes in case.sizes.items()
    if case.has_peer(sizes)
]
