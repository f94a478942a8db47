"""The table of functions: arguments, oracle, peers and sizes, which tests and benchmarks read."""

from tests.cases import elementwise, loss, norm

CASES = {case.name: case for case in (*elementwise.CASES, *loss.CASES, *norm.CASES)}
#: Each (function, reason for the sizes).
TRIED = [(name, why) for name, case in CASES.items() for why in case.sizes]
