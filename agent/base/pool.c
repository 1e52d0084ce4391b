#include "agent/base/pool.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#define ALIGN 8

struct pool_chunk {
    size_t used, n_blocks;
    _Alignas(ALIGN) unsigned char bytes[];
};

struct head { /* before each block */
    _Alignas(ALIGN) struct pool_chunk *chunk; /* NULL: the heap's */
};

static struct pool_chunk *chunk_new(uint8_t account)
{
    void *at = mmap(NULL, POOL_CHUNK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
    budget_add(account, (int64_t)POOL_CHUNK_BYTES);
    return at;
}

static void *heap_alloc(const struct pool *p, size_t n)
{
    struct head *h = malloc(sizeof(*h) + n);
    if (h == NULL)
        return NULL;
    budget_took(p->account, h);
    h->chunk = NULL;
    return h + 1;
}

static struct head *take_locked(struct pool *p, size_t need)
{
    if (p->open == NULL || need > POOL_CHUNK_BYTES - sizeof(struct pool_chunk) - p->open->used) {
        struct pool_chunk *fresh = chunk_new(p->account);
        if (fresh == NULL)
            return NULL;
        p->open = fresh; /* the one before goes with its last block */
    }
    struct head *h = (struct head *)(void *)(p->open->bytes + p->open->used);
    p->open->used += need;
    p->open->n_blocks++;
    h->chunk = p->open;
    return h;
}

void *pool_alloc(struct pool *p, size_t n)
{
    if (n > POOL_BLOCK_MAX || HAS_ASAN) /* which finds a use after it was freed only when it was the heap's */
        return heap_alloc(p, n);
    pthread_mutex_lock(&p->lock);
    struct head *h = take_locked(p, sizeof(struct head) + (n + ALIGN - 1) / ALIGN * ALIGN);
    pthread_mutex_unlock(&p->lock);
    return h == NULL ? NULL : h + 1;
}

void pool_free(struct pool *p, void *block)
{
    if (block == NULL)
        return;
    struct head *h = (struct head *)block - 1;
    struct pool_chunk *c = h->chunk;
    if (c == NULL) {
        budget_gives(p->account, h);
        free(h);
        return;
    }
    pthread_mutex_lock(&p->lock);
    assert(c->n_blocks > 0);
    bool is_empty = --c->n_blocks == 0;
    if (is_empty && c == p->open)
        p->open = NULL;
    pthread_mutex_unlock(&p->lock);
    if (!is_empty)
        return;
    budget_add(p->account, -(int64_t)POOL_CHUNK_BYTES);
    (void)munmap(c, POOL_CHUNK_BYTES);
}
