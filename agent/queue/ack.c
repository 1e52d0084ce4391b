/*
 * What is acknowledged: a cursor, and bits for what is done beyond it.
 */
#include <assert.h>
#include <errno.h>

#include "agent/queue/core.h"
#include "agent/base/bug.h"

static bool bit_get(const struct queue *q, uint64_t seq)
{
    size_t i = (size_t)(seq % QUEUE_WINDOW);
    return (q->bits[i / 64] >> (i % 64) & 1) != 0;
}

static void bit_set(struct queue *q, uint64_t seq, bool on)
{
    size_t i = (size_t)(seq % QUEUE_WINDOW);
    uint64_t bit = UINT64_C(1) << (i % 64);
    q->bits[i / 64] = on ? q->bits[i / 64] | bit : q->bits[i / 64] & ~bit;
}

bool ack_is_done_locked(const struct queue *q, uint64_t seq)
{
    uint64_t acked = atomic_load(&q->acked_seq);
    return seq <= acked || (seq - acked <= QUEUE_WINDOW && bit_get(q, seq));
}

bool ack_is_done(struct queue *q, uint64_t seq)
{
    pthread_mutex_lock(&q->lock);
    bool is_done = ack_is_done_locked(q, seq);
    pthread_mutex_unlock(&q->lock);
    return is_done;
}

struct segment *segment_of_locked(const struct queue *q, uint64_t seq)
{
    size_t lo = 0, hi = q->n_segs; /* last_seq never falls from one to the next */
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (q->segs[mid].last_seq >= seq)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo < q->n_segs ? &q->segs[lo] : NULL;
}

static void move_to(struct queue *q, uint64_t seq)
{
    atomic_store(&q->acked_seq, seq);
    q->is_cursor_news = true;
}

/* Over bits, and over numbers that no frame has: void after a fence, or between segments. */
static void advance_locked(struct queue *q)
{
    for (;;) {
        uint64_t next = atomic_load(&q->acked_seq) + 1;
        if (bit_get(q, next)) {
            bit_set(q, next, false);
            move_to(q, next);
            continue;
        }
        const struct segment *seg = segment_of_locked(q, next);
        if (seg == NULL || seg->first_seq <= next || next <= seg->fence)
            return;
        move_to(q, seg->first_seq - 1);
    }
}

bool ack_mark_locked(struct queue *q, uint64_t seq)
{
    if (ack_is_done_locked(q, seq) || seq - atomic_load(&q->acked_seq) > QUEUE_WINDOW)
        return false;
    bit_set(q, seq, true);
    q->is_cursor_news = true;
    advance_locked(q);
    return true;
}

bool ack_span_locked(struct queue *q, struct span s)
{
    uint64_t acked = atomic_load(&q->acked_seq);
    if (s.last <= acked)
        return true;
    if (s.first <= acked + 1) {
        for (uint64_t seq = acked + 1; seq <= s.last && seq - acked <= QUEUE_WINDOW; seq++)
            bit_set(q, seq, false);
        move_to(q, s.last);
        advance_locked(q);
        return true;
    }
    if (s.last - acked > QUEUE_WINDOW)
        return false;
    for (uint64_t seq = s.first; seq <= s.last; seq++)
        bit_set(q, seq, true);
    q->is_cursor_news = true;
    return true;
}

void ack_damaged_locked(struct queue *q)
{
    size_t kept = 0;
    for (size_t i = 0; i < q->damaged.n; i++)
        if (!ack_span_locked(q, q->damaged.list[i]))
            q->damaged.list[kept++] = q->damaged.list[i];
    q->damaged.n = kept;
    advance_locked(q);
}

bool queue_ack(struct queue *q, uint64_t seq)
{
    pthread_mutex_lock(&q->lock);
    assert(seq <= atomic_load(&q->durable_seq)); /* only what was handed out is acknowledged */
    bool is_new = ack_mark_locked(q, seq);
    pthread_mutex_unlock(&q->lock);
    return is_new;
}

void queue_cursor_write(struct queue *q)
{
    pthread_mutex_lock(&q->lock);
    bool has_moved = atomic_load(&q->acked_seq) != q->written_acked_seq;
    pthread_mutex_unlock(&q->lock);
    /* A slot that cannot be written is written by the next one, or by queue_cursor_sync(). */
    if (has_moved)
        (void)!cursor_write(q);
}

static bool oldest_is_done_locked(const struct queue *q)
{
    if (q->n_segs < 2)
        return false;
    const struct segment *s = &q->segs[0];
    uint64_t last = s->last_data_seq == UINT64_MAX ? s->last_seq : s->last_data_seq;
    return (BUG(5) ? atomic_load(&q->acked_seq) : q->synced_acked_seq) >= last || s->last_seq < s->first_seq;
}

bool queue_has_cursor_news(const struct queue *q)
{
    struct queue *u = (struct queue *)(uintptr_t)q; /* for the lock */
    pthread_mutex_lock(&u->lock);
    bool has = q->is_cursor_news || q->generation != q->synced_generation || q->has_losses || q->damaged.n > 0 ||
               oldest_is_done_locked(q);
    pthread_mutex_unlock(&u->lock);
    return has;
}

/* Oldest first, each only when the cursor that passed it is durable, and never the newest. One that cannot be removed
 * stops the rest: it is tried again at the next call. */
int queue_unlink_acked(struct queue *q)
{
    int r = 0;
    bool has_unlinked = false;
    for (;;) {
        pthread_mutex_lock(&q->lock);
        bool is_done = oldest_is_done_locked(q);
        struct segment s = q->n_segs > 0 ? q->segs[0] : (struct segment){ 0 };
        pthread_mutex_unlock(&q->lock);
        if (!is_done)
            break;

        assert(s.id != q->last_id); /* the newest holds the positions */
        r = queue_unlink_id(q, q->dir_fd, segment_name, s.id);
        if (r < 0 && r != -ENOENT)
            break;
        r = 0;
        has_unlinked = true;
        pthread_mutex_lock(&q->lock);
        /* What stands behind its last DATA frame went with it. */
        (void)ack_span_locked(q, (struct span){ .first = 1, .last = s.last_seq });
        q->n_segs--;
        memmove(q->segs, q->segs + 1, q->n_segs * sizeof(*q->segs));
        pthread_mutex_unlock(&q->lock);
        atomic_fetch_sub(&q->bytes, s.bytes);
    }
    if (has_unlinked) {
        int synced = q->fs->sync_dir(q->dir_fd);
        r = r < 0 ? r : synced;
    }
    return r;
}
