/*
 * arena.h - memory for many small things that die together.
 *
 * Owns:    its blocks. Nothing is freed one by one; arena_reset() forgets all and keeps the first block.
 * Errors:  NULL when max or the system's memory is reached.
 */
#ifndef TAILRACE_BASE_ARENA_H
#define TAILRACE_BASE_ARENA_H

#include <stddef.h>

#include "agent/base/slice.h"

struct arena_block;
struct arena {
    struct arena_block *head;
    size_t used_bytes; /* all blocks */
    size_t max;
};

void arena_init(struct arena *a, size_t max);
void arena_deinit(struct arena *a);
void arena_reset(struct arena *a);
void *arena_alloc(struct arena *a, size_t size);              /* zeroed, 16-aligned */
char *arena_strdup(struct arena *a, struct slice s);          /* NUL-terminated */
/* A copy in the arena; ptr is NULL when out of memory. */
struct slice arena_copy(struct arena *a, struct slice s);

#endif
