#include "parsers/json_pool.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* yajl's own blocks are below this; its growing buffers begin with 2,048 bytes. */
#define BIG_FROM ((size_t)1024)
#define HEAD ((size_t)16) /* before a small block: its size; keeps the alignment */

void json_pool_init(struct json_pool *p)
{
    memset(p, 0, sizeof(*p));
}

void json_pool_deinit(struct json_pool *p)
{
    for (size_t i = 0; i < ARRAY_LEN(p->big); i++)
        free(p->big[i].ptr);
    memset(p, 0, sizeof(*p));
}

void json_pool_reset(struct json_pool *p)
{
    p->small_used = 0;
    for (size_t i = 0; i < ARRAY_LEN(p->big); i++)
        p->big[i].is_taken = false;
}

int json_pool_reserve(struct json_pool *p, size_t line_len, bool *ret_moved)
{
    size_t need = MAX(JSON_POOL_KEEP, 2 * (line_len + 1));
    *ret_moved = false;
    for (size_t i = 0; i < ARRAY_LEN(p->big); i++) {
        if (p->big[i].cap >= need)
            continue;
        *ret_moved = true;
        free(p->big[i].ptr);
        p->big[i].cap = 0;
        p->big[i].ptr = malloc(need);
        if (p->big[i].ptr == NULL)
            return -ENOMEM;
        p->big[i].cap = need;
    }
    return 0;
}

bool json_pool_shrink(struct json_pool *p)
{
    bool is_big = false;
    for (size_t i = 0; i < ARRAY_LEN(p->big); i++) {
        if (p->big[i].cap <= 4 * JSON_POOL_KEEP)
            continue;
        free(p->big[i].ptr);
        p->big[i].ptr = NULL;
        p->big[i].cap = 0;
        is_big = true;
    }
    if (is_big)
        json_pool_reset(p);
    return is_big;
}

static void *big_alloc(struct json_pool *p, size_t size)
{
    size_t i = 0;
    while (i < ARRAY_LEN(p->big) && p->big[i].is_taken)
        i++;
    assert(i < ARRAY_LEN(p->big)); /* yajl grows two buffers, not more */
    assert(size <= p->big[i].cap); /* json_pool_reserve saw to it */
    p->big[i].is_taken = true;
    return p->big[i].ptr;
}

static void *pool_alloc(void *ctx, size_t size)
{
    struct json_pool *p = ctx;
    if (size >= BIG_FROM)
        return big_alloc(p, size);

    size_t need = HEAD + (size + HEAD - 1) / HEAD * HEAD;
    assert(need <= sizeof(p->small) - p->small_used);
    unsigned char *block = p->small + p->small_used;
    p->small_used += need;
    memcpy(block, &size, sizeof(size));
    return block + HEAD;
}

static void *pool_realloc(void *ctx, void *ptr, size_t size)
{
    struct json_pool *p = ctx;
    if (ptr == NULL)
        return pool_alloc(ctx, size);
    for (size_t i = 0; i < ARRAY_LEN(p->big); i++) {
        if (ptr != p->big[i].ptr)
            continue;
        assert(size <= p->big[i].cap); /* json_pool_reserve saw to it */
        return ptr;
    }
    size_t old;
    memcpy(&old, (unsigned char *)ptr - HEAD, sizeof(old));
    void *fresh = pool_alloc(ctx, size);
    memcpy(fresh, ptr, MIN(old, size));
    return fresh;
}

static void pool_free(void *ctx, void *ptr)
{
    struct json_pool *p = ctx;
    for (size_t i = 0; i < ARRAY_LEN(p->big); i++) {
        if (ptr != NULL && ptr == p->big[i].ptr)
            p->big[i].is_taken = false;
    }
}

yajl_alloc_funcs json_pool_funcs(struct json_pool *p)
{
    return (yajl_alloc_funcs){ .malloc = pool_alloc, .realloc = pool_realloc, .free = pool_free, .ctx = p };
}
