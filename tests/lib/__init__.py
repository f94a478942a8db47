"""What tests import: the oracle, comparisons, calls of every function, fresh interpreters."""
