"""The commands of the command line, one module each.

A command's module has HELP (one line), DESCRIPTION, EXAMPLES, add_arguments(parser) and
run(options), which returns the exit status. Slow imports belong inside run, so that --help is
fast.
"""

from __future__ import annotations

#: In the order in which --help lists them.
NAMES = ("train", "evaluate", "predict", "demo", "plot", "export", "bench", "info")
