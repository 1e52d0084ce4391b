/*
 * park.c - frames of keys that stay refused while others are accepted: out of the way, and back.
 *
 * A parked frame is synced before the cursor passes it. Until the last parked frame of a key is delivered, the later
 * ones of that key go behind it, so its order holds.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "agent/base/bug.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/deliver/jobs.h"
#include "agent/deliver/shipment.h"

/* Parked frames looked at in one turn at the start. */
#define RECOVER_PER_TURN 16
/* Taken up at once: enough to join small ones. */
#define TAKE_UP_MAX 8
/* While a key drains, a few frames may wait for that instead of being parked as well. */
#define DRAIN_ALMOST 4

/* --- at the start --- */

/* Gives up a parked file; the queue counts its lines lost and says so. */
static void drop(struct delivery *d, uint64_t id, enum lost_reason reason)
{
    struct job *j = job_new(d, JOB_DROP);
    if (j == NULL)
        return; /* it is found again at the next start */
    j->parked_id = id;
    j->reason = reason;
    job_post(j);
}

static void recover_one(struct delivery *d, struct loaded *ld, const struct frame_head *head)
{
    int r = loaded_read(ld, d->q, head);
    struct lane *l = r == 0 ? lane_get(d, ld->fields.route) : NULL;
    if (r == -EBADMSG)
        drop(d, head->segment_id, LOST_DAMAGE);
    else if (r == 0)
        r = l == NULL ? -ENOMEM : parked_push(&l->parked, head);
    if (r < 0 && r != -EBADMSG)
        log_warn("deliver", "output.failing", "a parked frame cannot be read; it stays for the next start",
                 LOG_SLICE("output", d->conf->name), LOG_NUM("parked", head->segment_id), LOG_NUM("errno", -r));
}

bool park_recover(struct delivery *d)
{
    if (d->is_parked_known)
        return true;
    struct loaded *ld = malloc(sizeof(*ld));
    if (ld == NULL)
        return false;
    loaded_init(ld, d->account);
    for (unsigned i = 0; i < RECOVER_PER_TURN && !d->is_parked_known; i++) {
        struct frame_head head;
        if (queue_parked_next(d->q, &d->parked_iter, &head) == 1)
            recover_one(d, ld, &head);
        else
            d->is_parked_known = true;
    }
    loaded_deinit(ld);
    free(ld);
    return d->is_parked_known;
}

/* --- out of the way --- */

static bool should_park(const struct lane *l, int64_t now)
{
    const struct delivery *d = l->d;
    if (l->last == NULL || l->last->frame->head.is_parked || now < l->park_not_before_ns || !delivery_is_up(d))
        return false;
    if (l->state == LANE_ACCEPTED)
        return l->parked.n > DRAIN_ALMOST;
    const int64_t recent = now - 2 * deliver_timing.park_after_ns;
    if (lane_has_parked(l))
        return delivery_others_accepted(d, l, recent);
    return now - l->refused_ns >= deliver_timing.park_after_ns &&
           delivery_others_accepted(d, l, MAX(l->refused_ns, recent));
}

/* The entry's content: the frame as it is, or what is left of it. */
static int fill(struct job *j, struct part *p, struct loaded *ld)
{
    struct delivery *d = j->d;
    int r = loaded_read(ld, d->q, &p->frame->head);
    if (r == 0)
        r = job_copy_meta(j, ld);
    if (r == 0)
        r = job_reserve(j, 1);
    if (r < 0)
        return r;
    j->n = 1;
    struct job_entry *e = &j->entries[0];
    if (p->bits == NULL) {
        const struct entry_lines all = { 0 };
        return job_entry_fill(j, e, p->frame, ld, &all);
    }
    struct items items = { 0 };
    r = d->out->ops->items(d->out, buf_slice(&ld->body), ld->fields.route, &items);
    uint8_t *row_of = r < 0 ? NULL : calloc(1, items.n + 1);
    uint32_t *idx = r < 0 ? NULL : calloc(p->n, sizeof(idx[0]));
    if (r == 0 && (row_of == NULL || idx == NULL))
        r = -ENOMEM;
    if (r == 0) {
        runs_decode(ld->fields.runs, row_of, items.n);
        part_indexes(p, idx);
        const struct entry_lines some = { &items, row_of, idx, p->n };
        r = idx[p->n - 1] < items.n ? job_entry_fill(j, e, p->frame, ld, &some) : -EPROTO;
    }
    free(row_of);
    free(idx);
    items_deinit(&items);
    return r;
}

static int make_job(struct lane *l, struct part *p, struct job **ret_job)
{
    struct loaded *ld = malloc(sizeof(*ld));
    if (ld == NULL)
        return -ENOMEM;
    loaded_init(ld, l->d->account);
    struct job *j = job_new(l->d, JOB_PARK);
    int r = j == NULL ? -ENOMEM : fill(j, p, ld);
    loaded_deinit(ld);
    free(ld);
    if (r < 0) {
        job_free(j);
        return r;
    }
    struct job_entry *e = &j->entries[0];
    (void)memcpy(e->reason, l->reason, sizeof(e->reason));
    e->in.route = lane_key(l); /* the lane stays while the job is out */
    e->orig.status = l->status;
    e->orig.reason = slice_cstr(e->reason);
    j->lane = l;
    j->part = p;
    *ret_job = j;
    return 0;
}

/* False: no more of this lane now. */
static bool park_one(struct lane *l, struct part *p, int64_t now)
{
    struct job *j = NULL;
    int r = p->frame->is_damaged ? -EBADMSG : make_job(l, p, &j);
    if (r == -EBADMSG) {
        p->frame->is_damaged = true;
        lane_remove(l, p);
        part_settle(p);
        return true;
    }
    if (r < 0) {
        l->park_not_before_ns = now + deliver_timing.job_retry_ns;
        return false;
    }
    lane_remove(l, p);
    frame_drop_body(p->frame);
    l->n_parking++;
    l->d->n_parking++;
    job_post(j);
    return true;
}

static struct part *first_of_queue(const struct lane *l)
{
    struct part *p = l->first;
    while (p != NULL && p->frame->head.is_parked)
        p = p->next;
    return p;
}

int64_t park_turn(struct delivery *d, int64_t now)
{
    int64_t wake = INT64_MAX;
    for (size_t i = d->n_lanes; i > 0; i--) {
        struct lane *l = d->lanes;
        d->lanes = l->next;
        if (l->state != LANE_ACCEPTED && l->first != NULL) {
            lane_tell(l, now);
            const int64_t due = l->refused_ns + deliver_timing.park_after_ns;
            wake = due > now ? MIN(wake, due) : wake;
        }
        if (l->park_not_before_ns > now && l->first != NULL)
            wake = MIN(wake, l->park_not_before_ns);
        while (should_park(l, now) && d->n_parking < PARKING_MAX) {
            struct part *p = first_of_queue(l);
            if (p == NULL || !delivery_has_room(d, p->frame->head.body_len) || !park_one(l, p, now))
                break;
        }
    }
    return wake;
}

/* --- parked --- */

/* The head of what the writer has just parked: the queue hands them out in the order of parking. */
static bool take_head(struct delivery *d, uint64_t id, struct frame_head *ret)
{
    struct frame_head head;
    while (d->n_fresh < ARRAY_LEN(d->fresh) && queue_parked_next(d->q, &d->parked_iter, &head) == 1)
        d->fresh[d->n_fresh++] = head;
    for (size_t i = 0; i < d->n_fresh; i++) {
        if (d->fresh[i].segment_id != id)
            continue;
        *ret = d->fresh[i];
        d->fresh[i] = d->fresh[--d->n_fresh];
        return true;
    }
    return false;
}

/* A key has used up its share: its oldest frame goes. */
static void lose_oldest(struct lane *l)
{
    struct frame_head head;
    if (parked_pop(&l->parked, &head))
        drop(l->d, head.segment_id, LOST_KEY_QUOTA);
}

void park_done(struct job *j, int64_t now)
{
    struct delivery *d = j->d;
    struct lane *l = j->lane;
    struct part *p = j->part;
    struct frame_head head;
    assert(l->n_parking > 0 && d->n_parking > 0);
    l->n_parking--;
    d->n_parking--;
    if (j->wj.result == 0) {
        /* Not found, or no memory to remember it: it is found again at the next start. */
        if (take_head(d, j->parked_id, &head) && parked_push(&l->parked, &head) < 0)
            log_warn("deliver", "key.held", "no memory to remember a parked frame; it is sent after the next start",
                     LOG_SLICE("output", d->conf->name));
        part_count(p, FATE_PARKED);
        part_settle(p);
        return;
    }
    lane_add(l, p);
    const bool is_over = j->wj.result == -EXFULL || (BUG(35) && j->wj.result == -ENOSPC);
    if (is_over && l->parked.n > 0 && d->n_undropped == 0) /* else it waits for those: each try would give up one more */
        lose_oldest(l); /* the writer removes it before it parks this one again */
    else
        l->park_not_before_ns = now + deliver_timing.job_retry_ns;
}

/* --- and back --- */

static int take_up_one(struct lane *l, struct loaded *ld)
{
    struct delivery *d = l->d;
    const struct frame_head head = l->parked.heads[l->parked.first];
    struct frame_head gone;
    if (!delivery_has_room(d, head.body_len))
        return -EAGAIN;
    int r = loaded_read(ld, d->q, &head);
    if (r == -EBADMSG) {
        (void)parked_pop(&l->parked, &gone);
        drop(d, head.segment_id, LOST_DAMAGE);
        return 0;
    }
    struct frame *f = r < 0 ? NULL : frame_new(d, &head, ld, l);
    struct part *p = f == NULL ? NULL : part_whole(f);
    if (p == NULL) {
        if (f != NULL)
            frame_free(f);
        return r < 0 ? r : -ENOMEM;
    }
    (void)parked_pop(&l->parked, &gone);
    l->n_unparked++;
    lane_add(l, p);
    if (budget_of(d->account) <= budget_sending_share()) { /* it is among them */
        f->body = ld->body;
        buf_init(&ld->body, 0);
    }
    return 0;
}

bool park_is_oldest(const struct lane *l, const struct part *p)
{
    if (!lane_has_parked(l) || p->frame->head.is_parked)
        return true;
    return l->n_parking == 0 && l->n_unparked == 0 && p->frame->head.seq < l->parked.heads[l->parked.first].seq;
}

void park_take_up(struct lane *l, int64_t now)
{
    (void)now;
    const unsigned most = l->state == LANE_ACCEPTED ? TAKE_UP_MAX : 1;
    if (l->parked.n == 0 || (l->first != NULL && (l->first->frame->head.is_parked || park_is_oldest(l, l->first))))
        return;
    if (l->n_parking > 0 && l->state != LANE_ACCEPTED)
        return; /* what is being parked may be the one that was asked with while later ones were parked already */
    struct loaded *ld = malloc(sizeof(*ld));
    if (ld == NULL)
        return;
    unsigned n = 0;
    int r = 0;
    while (r == 0 && n++ < most && l->parked.n > 0) {
        loaded_init(ld, l->d->account);
        r = take_up_one(l, ld);
        loaded_deinit(ld);
    }
    free(ld);
}
