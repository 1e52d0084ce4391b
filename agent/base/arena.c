#include "agent/base/arena.h"

#include <stdint.h>
#include <stdlib.h>

#define ARENA_BLOCK_BYTES ((size_t)16 * KIB)
#define ARENA_ALIGN ((size_t)16)

struct arena_block {
    struct arena_block *next;
    size_t cap, used;
};

static char *block_bytes(struct arena_block *b)
{
    return (char *)b + ((sizeof(*b) + ARENA_ALIGN - 1) & ~(ARENA_ALIGN - 1));
}

void arena_init(struct arena *a, size_t max)
{
    *a = (struct arena){ .max = max };
}

static void free_blocks(struct arena_block *b)
{
    while (b != NULL) {
        struct arena_block *next = b->next;
        free(b);
        b = next;
    }
}

void arena_deinit(struct arena *a)
{
    free_blocks(a->head);
    arena_init(a, a->max);
}

void arena_reset(struct arena *a)
{
    struct arena_block *b = a->head;
    if (b == NULL)
        return;
    while (b->next != NULL) { /* keep the oldest, smallest block */
        struct arena_block *next = b->next;
        free(b);
        b = next;
    }
    b->used = 0;
    a->head = b;
    a->used_bytes = b->cap;
}

static struct arena_block *block_new(struct arena *a, size_t size)
{
    size_t cap = MAX(size, ARENA_BLOCK_BYTES);
    size_t all = cap + sizeof(struct arena_block) + ARENA_ALIGN;
    if (a->used_bytes > a->max || cap > a->max - a->used_bytes)
        return NULL;
    struct arena_block *b = malloc(all);
    if (b == NULL)
        return NULL;
    b->next = a->head;
    b->cap = cap;
    b->used = 0;
    a->head = b;
    a->used_bytes += cap;
    return b;
}

void *arena_alloc(struct arena *a, size_t size)
{
    if (size > SIZE_MAX - ARENA_ALIGN)
        return NULL;
    size_t need = (MAX(size, (size_t)1) + ARENA_ALIGN - 1) & ~(ARENA_ALIGN - 1);
    struct arena_block *b = a->head;
    if (b == NULL || b->cap - b->used < need)
        b = block_new(a, need);
    if (b == NULL)
        return NULL;
    void *p = block_bytes(b) + b->used;
    b->used += need;
    memset(p, 0, size);
    return p;
}

char *arena_strdup(struct arena *a, struct slice s)
{
    char *p = s.len == SIZE_MAX ? NULL : arena_alloc(a, s.len + 1);
    if (p != NULL && s.len > 0)
        memcpy(p, s.ptr, s.len);
    return p;
}

struct slice arena_copy(struct arena *a, struct slice s)
{
    return (struct slice){ arena_strdup(a, s), s.len };
}
