#include "agent/base/ring.h"

#include <assert.h>
#include <errno.h>

void ring_init(struct ring *r, size_t cap)
{
    assert(cap >= 1 && cap <= RING_CAP_MAX);
    r->cap = cap;
    atomic_init(&r->head, 0);
    atomic_init(&r->tail, 0);
    atomic_init(&r->wants_space, false);
}

size_t ring_used(const struct ring *r)
{
    size_t head = atomic_load_explicit((_Atomic size_t *)&r->head, memory_order_acquire);
    size_t tail = atomic_load_explicit((_Atomic size_t *)&r->tail, memory_order_acquire);
    return tail - head;
}

int ring_push(struct ring *r, void *item)
{
    size_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    if (tail - atomic_load(&r->head) >= r->cap) {
        atomic_store(&r->wants_space, true);
        /* The consumer may have popped between the look and the wish: look again, so that no wish goes unheard. */
        if (tail - atomic_load(&r->head) >= r->cap)
            return -EAGAIN;
        atomic_store(&r->wants_space, false);
    }
    r->slots[tail % RING_CAP_MAX] = item;
    atomic_store_explicit(&r->tail, tail + 1, memory_order_release);
    return 0;
}

void *ring_pop(struct ring *r, bool *ret_was_wanted)
{
    *ret_was_wanted = false;
    size_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
    if (head == atomic_load_explicit(&r->tail, memory_order_acquire))
        return NULL;
    void *item = r->slots[head % RING_CAP_MAX];
    atomic_store(&r->head, head + 1);
    *ret_was_wanted = atomic_exchange(&r->wants_space, false);
    return item;
}
