#include "agent/base/array.h"

#include <assert.h>
#include <stdlib.h>

void *array_room(void *items, size_t n, size_t *cap, size_t item_bytes)
{
    size_t more, bytes;
    assert(n <= *cap);
    if (n < *cap)
        return items;
    if (__builtin_mul_overflow(*cap, (size_t)2, &more))
        return NULL;
    more = MAX(more, (size_t)ARRAY_FIRST);
    if (__builtin_mul_overflow(more, item_bytes, &bytes))
        return NULL;
    void *grown = realloc(items, bytes);
    if (grown != NULL)
        *cap = more;
    return grown;
}
