#include "agent/deliver/lane.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/base/bug.h"
#include "agent/base/log.h"
#include "agent/deliver/deliver.h"

/* Frames built further apart than this are not in flight together: their lines may be further apart than Loki likes. */
#define APART_NS (10 * 60 * NS_PER_SEC)

/* --- the table --- */

static struct lane **bucket_of(struct delivery *d, struct slice key)
{
    return &d->buckets[slice_hash(key) % LANE_BUCKETS];
}

struct lane *lane_find(const struct delivery *d, struct slice key)
{
    struct lane *l = d->buckets[slice_hash(key) % LANE_BUCKETS];
    while (l != NULL && !slice_eq(lane_key(l), key))
        l = l->next_in_bucket;
    return l;
}

static void ring_insert(struct delivery *d, struct lane *l)
{
    if (d->lanes == NULL) {
        l->next = l->prev = l;
        d->lanes = l;
    } else { /* behind the last: its turn comes after all others */
        l->next = d->lanes;
        l->prev = d->lanes->prev;
        l->prev->next = l;
        d->lanes->prev = l;
    }
    d->n_lanes++;
}

struct lane *lane_get(struct delivery *d, struct slice key)
{
    struct lane *l = lane_find(d, key);
    if (l != NULL)
        return l;
    l = calloc(1, sizeof(*l));
    if (l == NULL || (l->key = slice_dup(key)) == NULL) {
        free(l);
        return NULL;
    }
    budget_took(ACCOUNT_OF(MEMORY_LANES), l);
    budget_took(ACCOUNT_OF(MEMORY_LANES), l->key);
    l->key_len = key.len;
    l->d = d;
    l->id = ++d->next_lane_id;
    struct lane **bucket = bucket_of(d, key);
    l->next_in_bucket = *bucket;
    *bucket = l;
    ring_insert(d, l);
    return l;
}

void lane_free(struct lane *l)
{
    struct delivery *d = l->d;
    assert(l->first == NULL);
    struct lane **at = bucket_of(d, lane_key(l));
    while (*at != l)
        at = &(*at)->next_in_bucket;
    *at = l->next_in_bucket;

    if (d->lanes == l)
        d->lanes = l->next == l ? NULL : l->next;
    l->next->prev = l->prev;
    l->prev->next = l->next;
    d->n_lanes--;
    if (l->is_told)
        stats_count_code(d->st->keys_held, l->told_reason, -1);
    budget_free(ACCOUNT_OF(MEMORY_LANES), l->parked.heads);
    budget_free(ACCOUNT_OF(MEMORY_LANES), l->key);
    budget_free(ACCOUNT_OF(MEMORY_LANES), l);
}

bool lane_is_forgettable(const struct lane *l, int64_t now)
{
    return l->state == LANE_ACCEPTED && l->first == NULL && l->in_flight == 0 && l->n_frames == 0 &&
           !lane_has_parked(l) && now - l->accepted_ns >= deliver_timing.lane_idle_ns;
}

/* --- what waits --- */

static bool is_before(const struct part *a, const struct part *b)
{
    const struct frame_head *x = &a->frame->head, *y = &b->frame->head;
    if (x->is_parked != y->is_parked)
        return x->is_parked;
    return x->seq != y->seq ? x->seq < y->seq : a->first < b->first;
}

void lane_add(struct lane *l, struct part *p)
{
    if (l->last == NULL || !is_before(p, l->last)) { /* nearly always: frames come in order */
        p->next = NULL;
        if (l->last == NULL)
            l->first = p;
        else
            l->last->next = p;
        l->last = p;
    } else {
        struct part **at = &l->first;
        while (!is_before(p, *at))
            at = &(*at)->next;
        p->next = *at;
        *at = p;
    }
    l->n_waiting++;
    if (l->state == LANE_ACCEPTED)
        l->d->n_ahead++;
}

void lane_remove(struct lane *l, struct part *p)
{
    struct part *before = NULL;
    for (struct part **at = &l->first; *at != NULL; before = *at, at = &(*at)->next) {
        if (*at != p)
            continue;
        *at = p->next;
        if (l->last == p)
            l->last = before;
        p->next = NULL;
        l->n_waiting--;
        if (l->state == LANE_ACCEPTED)
            l->d->n_ahead--;
        return;
    }
    assert(p == NULL); /* it waits in this lane, or we are wrong about it */
}

/* --- the state --- */

static void set_state(struct lane *l, enum lane_state state)
{
    if (l->state == LANE_ACCEPTED && state != LANE_ACCEPTED) {
        l->d->n_ahead -= l->n_waiting;
        /* Bodies are for requests in flight; these have to wait. */
        for (struct part *p = l->first; p != NULL; p = p->next)
            frame_drop_body(p->frame);
    } else if (l->state != LANE_ACCEPTED && state == LANE_ACCEPTED) {
        l->d->n_ahead += l->n_waiting;
    }
    l->state = state;
}

void lane_accept(struct lane *l, int64_t now)
{
    l->accepted_ns = now;
    if (l->state == LANE_ACCEPTED)
        return;
    set_state(l, LANE_ACCEPTED);
    l->attempt = 0;
    l->next_ns = 0;
    l->reason[0] = l->text[0] = '\0';
    if (!l->is_told)
        return;
    l->is_told = false;
    stats_count_code(l->d->st->keys_held, l->told_reason, -1);
    log_info("deliver", "key.released", "a route key is accepted again", LOG_SLICE("key", lane_key(l)),
             LOG_SLICE("output", l->d->conf->name), LOG_CSTR("reason", l->told_reason),
             LOG_NUM("seconds", (now - l->refused_ns) / NS_PER_SEC), LOG_NUM("parked_frames", l->parked.n));
}

static void copy_text(char *to, size_t cap, const char *from)
{
    (void)snprintf(to, cap, "%s", from);
}

static void set_reason(struct lane *l, int32_t status, const char *reason, const char *text)
{
    l->status = status;
    copy_text(l->reason, sizeof(l->reason), reason);
    copy_text(l->text, sizeof(l->text), text);
}

int64_t lane_refuse(struct lane *l, bool is_hold, int32_t status, const char *reason, const char *text,
                    int64_t retry_after_ns, int64_t now)
{
    if (l->state == LANE_ACCEPTED)
        l->refused_ns = now;
    const bool is_ours = l->state == LANE_ACCEPTED || now >= l->next_ns; /* not an echo of requests sent before */
    if (is_ours) {
        l->attempt++;
        l->next_ns = now + (is_hold ? deliver_timing.hold_ns : backoff_delay_ns(l->attempt, &l->d->s->rng));
        set_state(l, is_hold ? LANE_HELD : LANE_BACKOFF);
    } else if (is_hold && l->state == LANE_BACKOFF) {
        l->next_ns = MAX(l->next_ns, now + deliver_timing.hold_ns);
        set_state(l, LANE_HELD);
    }
    if (retry_after_ns > 0)
        l->next_ns = MAX(l->next_ns, now + MIN(retry_after_ns, RETRY_AFTER_MAX_NS));
    set_reason(l, status, reason[0] != '\0' ? reason : is_hold ? "held" : "refused", text);
    lane_tell(l, now);
    return l->next_ns - now;
}

void lane_narrow(struct lane *l, int32_t status, const char *reason, const char *text, int64_t now)
{
    if (l->state != LANE_ACCEPTED)
        return;
    l->refused_ns = now;
    l->next_ns = now;
    set_reason(l, status, reason[0] != '\0' ? reason : "refused", text);
    set_state(l, LANE_BACKOFF);
}

bool lane_may_send(const struct lane *l, int64_t now)
{
    if (l->state == LANE_ACCEPTED)
        return l->in_flight < LANE_IN_FLIGHT;
    return l->in_flight == 0 && now >= l->next_ns;
}

bool lane_takes_company(const struct lane *l, const struct frame *f)
{
    if (l->in_flight == 0 || BUG(34))
        return true;
    const int64_t apart = f->head.built_ns - l->flight_built_ns;
    return !l->is_alone_in_flight && !(f->head.flags & FRAME_FLAG_ALONE) && apart < APART_NS && apart > -APART_NS;
}

void lane_in_flight(struct lane *l, const struct frame *f)
{
    l->is_alone_in_flight |= (f->head.flags & FRAME_FLAG_ALONE) != 0;
    l->flight_built_ns = f->head.built_ns;
}

void lane_tell(struct lane *l, int64_t now)
{
    const bool is_long = now - l->refused_ns >= deliver_timing.park_after_ns;
    if (l->state == LANE_ACCEPTED || l->is_told || (l->state == LANE_BACKOFF && !is_long))
        return;
    l->is_told = true;
    copy_text(l->told_reason, sizeof(l->told_reason), l->reason);
    stats_count_code(l->d->st->keys_held, l->told_reason, 1);
    log_at(l->state == LANE_HELD ? LOG_ERROR : LOG_WARN, "deliver", "key.held",
           "a route key is refused; its lines are kept and tried again", LOG_SLICE("key", lane_key(l)),
           LOG_SLICE("output", l->d->conf->name), LOG_CSTR("reason", l->reason), LOG_NUM("status", l->status),
           LOG_NUM("delay_ms", (l->next_ns - now) / NS_PER_MS), LOG_CSTR("error", l->text));
}

/* --- parked frames --- */

int parked_push(struct parked *p, const struct frame_head *head)
{
    if (p->first > 0 && p->first >= p->n) { /* the room in front is the larger half */
        memmove(p->heads, p->heads + p->first, p->n * sizeof(p->heads[0]));
        p->first = 0;
    }
    if (p->first + p->n == p->cap) {
        const size_t cap = MAX(p->cap * 2, (size_t)16);
        struct frame_head *more = budget_realloc(ACCOUNT_OF(MEMORY_LANES), p->heads, cap * sizeof(more[0]));
        if (more == NULL)
            return -ENOMEM;
        p->heads = more;
        p->cap = cap;
    }
    /* By seq, which a parked frame keeps: one that was in flight as later ones were parked goes before those. */
    size_t at = p->first + p->n++;
    for (; at > p->first && p->heads[at - 1].seq > head->seq; at--)
        p->heads[at] = p->heads[at - 1];
    p->heads[at] = *head;
    p->bytes += (uint64_t)head->meta_len + head->body_len;
    return 0;
}

bool parked_pop(struct parked *p, struct frame_head *ret_head)
{
    if (p->n == 0)
        return false;
    *ret_head = p->heads[p->first++];
    p->bytes -= (uint64_t)ret_head->meta_len + ret_head->body_len;
    if (--p->n == 0)
        p->first = 0;
    return true;
}
