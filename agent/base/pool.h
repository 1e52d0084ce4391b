/*
 * pool.h - blocks that come and go together, apart from the heap: in chunks of whole pages, each given back when the last
 * block in it is freed. On the heap such blocks would lie between longer-lived ones, and their pages would stay.
 *
 * Owns:    its chunks, while blocks are in them; they are counted in its account (budget.h). Threads: any, a lock inside.
 * Limits:  a block above POOL_BLOCK_MAX is the heap's; all are when the address sanitizer is built in.
 */
#ifndef TAILRACE_BASE_POOL_H
#define TAILRACE_BASE_POOL_H

#include <pthread.h>
#include <stdint.h>

#include "agent/base/budget.h"
#include "agent/base/macros.h"

#define POOL_CHUNK_BYTES (16 * KIB)
#define POOL_BLOCK_MAX (2 * KIB)

struct pool_chunk;

struct pool {
    pthread_mutex_t lock;
    uint8_t account;
    struct pool_chunk *open; /* that blocks are taken from; NULL = none */
};
#define POOL_INIT(account) { PTHREAD_MUTEX_INITIALIZER, (account), NULL }

void *pool_alloc(struct pool *p, size_t n); /* aligned to 8 bytes; NULL when out of memory */
void pool_free(struct pool *p, void *block); /* NULL is fine */

#endif
