/*
 * array.h - arrays on the heap that grow by one item at a time, each capacity twice the one before.
 *
 *     struct row *more = array_room(t->rows, t->n, &t->cap, sizeof(*more));
 *     if (more == NULL)
 *         return -ENOMEM;
 *     t->rows = more;
 *     t->rows[t->n++] = row;
 */
#ifndef TAILRACE_BASE_ARRAY_H
#define TAILRACE_BASE_ARRAY_H

#include <stddef.h>

#include "agent/base/macros.h"

/* The array, perhaps moved, with room for one item behind its n; at first for ARRAY_FIRST. NULL when out of memory: the old one
 * stands. The caller frees it with free(). */
#define ARRAY_FIRST 16
NODISCARD void *array_room(void *items, size_t n, size_t *cap, size_t item_bytes);

#endif
