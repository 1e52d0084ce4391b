/*
 * ring.h - a bounded queue of pointers from one thread to another.
 *
 * ring_push never waits: -EAGAIN when full, and then the producer wants to hear of it: the consumer's next
 * ring_pop calls on_space once (from the consumer's thread).
 */
#ifndef TAILRACE_BASE_RING_H
#define TAILRACE_BASE_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "agent/base/macros.h"

#define RING_CAP_MAX 64

struct ring {
    void *slots[RING_CAP_MAX];
    size_t cap;              /* 1..RING_CAP_MAX */
    _Atomic size_t head;     /* consumer */
    _Atomic size_t tail;     /* producer */
    _Atomic bool wants_space;
};

void ring_init(struct ring *r, size_t cap);
NODISCARD int ring_push(struct ring *r, void *item);   /* producer; 0 or -EAGAIN */
void *ring_pop(struct ring *r, bool *ret_was_wanted);  /* consumer; NULL = empty */
size_t ring_used(const struct ring *r);
static inline bool ring_is_full(const struct ring *r)
{
    return ring_used(r) >= r->cap;
}

#endif
