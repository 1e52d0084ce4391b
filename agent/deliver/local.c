#include "agent/deliver/local.h"

#include <errno.h>
#include <stdlib.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/deliver/jobs.h"

/* Delivered and not checkpointed; more than that asks for a checkpoint at once. */
#define UNSYNCED_MAX 256
/* A turn of one output: the others wait meanwhile. */
#define FRAMES_PER_TURN 8

struct local {
    struct frame_head next;
    bool has_next;
    unsigned attempt;
    int64_t not_before_ns;
    struct frame *first, *last;  /* delivered, waiting for the checkpoint */
    size_t n;
    int64_t checkpoint_ns;       /* last one posted */
    bool is_checkpoint_out;
    struct lane *lane;           /* frames need one; there is no key to be refused here */
    struct loaded ld;
};

int local_init(struct delivery *d)
{
    struct local *lc = calloc(1, sizeof(*lc));
    if (lc == NULL)
        return -ENOMEM;
    loaded_init(&lc->ld, d->account);
    lc->lane = lane_get(d, SLICE(""));
    if (lc->lane == NULL) {
        free(lc);
        return -ENOMEM;
    }
    lc->checkpoint_ns = clock_mono_ns();
    d->local = lc;
    return 0;
}

void local_deinit(struct delivery *d)
{
    struct local *lc = d->local;
    if (lc == NULL)
        return;
    for (struct frame *f; (f = lc->first) != NULL;) {
        lc->first = f->next;
        frame_free(f);
    }
    loaded_deinit(&lc->ld);
    free(lc);
    d->local = NULL;
}

int64_t local_oldest(const struct delivery *d)
{
    const struct local *lc = d->local;
    if (lc == NULL)
        return 0;
    if (lc->first != NULL)
        return lc->first->head.built_ns;
    return lc->has_next ? lc->next.built_ns : 0;
}

/* Into the list that the checkpoint will acknowledge. */
static void remember(struct local *lc, struct frame *f)
{
    if (lc->last == NULL)
        lc->first = f;
    else
        lc->last->next = f;
    lc->last = f;
    lc->n++;
    lc->has_next = false;
}

static void failed(struct delivery *d, int64_t now, const char *text)
{
    struct local *lc = d->local;
    lc->attempt++;
    const int64_t delay = backoff_delay_ns(lc->attempt, &d->s->rng);
    lc->not_before_ns = now + delay;
    delivery_refused(d, lc->lane, true, lc->attempt, delay, false, text);
}

/* 0, or the output's -errno. What the output has already, from before a crash, is not given to it again. */
static int deliver_frame(struct delivery *d, struct err *err)
{
    struct local *lc = d->local;
    const struct output_ops *ops = d->out->ops;
    if (ops->delivered != NULL && lc->next.seq <= ops->delivered(d->out))
        return 0;
    const struct frame_ref ref = { .seq = lc->next.seq, .route = lc->ld.fields.route,
                                   .wire = buf_slice(&lc->ld.body), .lines = lc->next.lines };
    const int64_t begun = clock_mono_ns();
    int r = ops->deliver(d->out, &ref, err);
    histogram_observe(&d->st->request_duration, clock_mono_ns() - begun);
    return r;
}

/* Reads, delivers and remembers one frame. 1, 0 when there is none, or -errno. */
static int deliver_next(struct delivery *d, struct err *err)
{
    struct local *lc = d->local;
    int r = lc->has_next ? 1 : queue_next(d->q, &lc->next);
    if (r <= 0)
        return r < 0 ? err_set(err, r, "cannot read the queue") : 0;
    lc->has_next = true;
    r = loaded_read(&lc->ld, d->q, &lc->next);
    if (r == -EBADMSG) { /* counted and passed by the queue */
        lc->has_next = false;
        return 1;
    }
    if (r < 0)
        return err_set(err, r, "cannot read the queue");
    /* Made first: once delivered, a frame must not be forgotten for want of memory, or it would be written twice. */
    struct frame *f = frame_new(d, &lc->next, &lc->ld, lc->lane);
    if (f == NULL)
        return err_set(err, -ENOMEM, "cannot deliver");
    counter_bump(&d->st->attempts, 1);
    r = deliver_frame(d, err);
    if (r < 0) {
        frame_free(f);
        return r;
    }
    remember(lc, f);
    return 1;
}

static void post_checkpoint(struct delivery *d, int64_t now)
{
    struct local *lc = d->local;
    lc->checkpoint_ns = now;
    struct job *j = job_new(d, JOB_CHECKPOINT);
    if (j == NULL)
        return;
    j->seq = lc->last->head.seq;
    lc->is_checkpoint_out = true;
    job_post(j);
}

void local_checkpoint_done(struct delivery *d, struct job *j, int64_t now)
{
    struct local *lc = d->local;
    lc->is_checkpoint_out = false;
    if (j->wj.result < 0) {
        failed(d, now, j->err.text);
        return;
    }
    while (lc->first != NULL && lc->first->head.seq <= j->seq) {
        struct frame *f = lc->first;
        lc->first = f->next;
        if (lc->first == NULL)
            lc->last = NULL;
        lc->n--;
        frame_count_all(f, FATE_DELIVERED);
        histogram_observe(&d->st->delivery_delay, clock_wall_ns() - f->head.built_ns);
        if (queue_ack(d->q, f->head.seq)) /* else it was dropped meanwhile, and counted so */
            frame_commit(f);
        frame_free(f);
    }
}

enum output_waits local_waits(const struct delivery *d, int64_t now)
{
    const struct local *lc = d->local;
    if (now < lc->not_before_ns)
        return WAITS_SERVER;
    return lc->is_checkpoint_out || lc->n > 0 ? WAITS_DISK : WAITS_NOTHING;
}

int64_t local_turn(struct delivery *d, int64_t now)
{
    struct local *lc = d->local;
    if (lc->is_checkpoint_out)
        return INT64_MAX;
    if (now < lc->not_before_ns)
        return lc->not_before_ns;
    struct err err = { 0 };
    int r = 1;
    for (unsigned i = 0; i < FRAMES_PER_TURN && lc->n < UNSYNCED_MAX && r > 0; i++) {
        r = deliver_next(d, &err);
        if (r > 0) {
            lc->attempt = 0;
            delivery_accepted(d, lc->lane, 0, now);
        }
    }
    if (r < 0)
        failed(d, now, err.text);
    if (lc->n > 0 && (lc->n >= UNSYNCED_MAX || now - lc->checkpoint_ns >= deliver_timing.cursor_ns)) {
        post_checkpoint(d, now);
        return INT64_MAX;
    }
    if (r > 0)
        return now;
    const int64_t next = lc->n > 0 ? lc->checkpoint_ns + deliver_timing.cursor_ns : INT64_MAX;
    return r < 0 ? MIN(next, lc->not_before_ns) : next;
}

bool local_stop(struct delivery *d, int64_t now)
{
    struct local *lc = d->local;
    if (lc == NULL || lc->n == 0)
        return true;
    if (!lc->is_checkpoint_out && now >= lc->not_before_ns)
        post_checkpoint(d, now);
    return false;
}
