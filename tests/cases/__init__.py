"""The table of functions, which tests and benchmarks read: arguments, oracle, peers and sizes."""

from tests.cases import elementwise, loss, norm

CASES = {case.name: case for case in (*elementwise.CASES, *loss.CASES, *norm.CASES)}
#: Pairs (function, reason for the sizes).
TRIED = [(name, why) for name, case in CASES.items() for why in case.sizes]
