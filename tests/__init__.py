"""The tests; they and the benchmarks import from here, by `tests.lib` and `tests.gpu`."""
