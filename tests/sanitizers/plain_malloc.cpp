// An allocator for NumPy's arrays that keeps no freed blocks; see sanitized.py. NumPy passes a
// context that is not used, and the size of what it frees.
#include <stdlib.h>

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT void *plain_malloc(void *, size_t size) { return malloc(size); }
EXPORT void *plain_calloc(void *, size_t count, size_t size) { return calloc(count, size); }
EXPORT void *plain_realloc(void *, void *block, size_t size) { return realloc(block, size); }
EXPORT void plain_free(void *, void *block, size_t) { free(block); }
