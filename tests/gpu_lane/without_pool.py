"""A pytest plugin: every CuPy array in memory of its own, so that compute-sanitizer knows its end.

python -m pytest -p tests.gpu_lane.without_pool
"""

import cupy

cupy.cuda.set_allocator(None)
cupy.cuda.set_pinned_memory_allocator(None)
