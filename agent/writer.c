#include "agent/writer.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "agent/base/bug.h"
#include "agent/base/clock.h"
#include "agent/base/limits.h"
#include "agent/base/log.h"
#include "agent/base/must.h"
#include "agent/base/stats.h"
#include "agent/base/tenants.h"

#define RING_GROUPS 16
#define SYNC_BYTES (8 * MIB)
#define RETRY_MIN_NS (100 * NS_PER_MS)
#define RETRY_MAX_NS (2 * NS_PER_SEC)
#define WIRE_BYTES_MAX (64 * MIB)
/* A wire buffer that one large body made is given back above this, or this part of the output's share. */
#define WIRE_BYTES_KEEP (2 * MIB)
#define WIRE_SHARE_KEEP 4

struct channel { /* one output's */
    struct output *output;
    struct queue *queue;
    struct ring ring;
    _Atomic size_t inflight_bytes;
    _Atomic bool wants_space;

    /* writer thread only */
    struct group *current;      /* popped and not wholly written */
    struct buf wire;            /* of current->bodies, when is_sealed */
    bool is_sealed;
    uint32_t epoch;             /* fences so far; groups pushed before the reader knew are dropped */
    int64_t retry_at_ns, retry_delay_ns;
    int64_t dirty_since_ns;     /* 0 = clean */
    uint64_t unsynced_bytes;
    uint64_t written_number;    /* of the last whole group */
    bool is_blocked;
    enum blocked_reason blocked_reason;
};

struct writer {
    struct writer_conf conf;
    struct channel *channels;
    struct inbox inbox;
    pthread_t thread;
    bool is_started;
    _Atomic bool is_stopping;
    _Atomic int64_t stop_deadline_ns;
    pthread_mutex_t listener_lock; /* on_frames, held while it is called: after writer_set_listener the old one is not */
    void (*on_frames)(void *ctx);
    void *on_frames_ctx;
    struct frame_row rows[BODY_ROWS_MAX];
};

void group_free(struct group *g, const struct output *out)
{
    if (g == NULL)
        return;
    while (g->bodies != NULL) {
        struct body *b = g->bodies;
        g->bodies = b->next;
        out->ops->discard((struct output *)out, b);
        body_free(b);
    }
    free(g->storage);
    free(g);
}

bool writer_is_writing(const struct writer *w, uint32_t output)
{
    return atomic_load(&w->channels[output].inflight_bytes) > 0;
}

int writer_push(struct writer *w, uint32_t output, struct group *g)
{
    struct channel *c = &w->channels[output];
    if (atomic_load(&c->inflight_bytes) > 0 && budget_of(c->wire.account) > budget_batches_share()) {
        atomic_store(&c->wants_space, true);
        /* The writer may have finished between the look and the wish: look again. */
        if (atomic_load(&c->inflight_bytes) > 0)
            return -EAGAIN;
        atomic_store(&c->wants_space, false);
    }
    size_t raw_bytes = g->raw_bytes; /* g belongs to the writer after the push */
    atomic_fetch_add(&c->inflight_bytes, raw_bytes);
    int r = ring_push(&c->ring, g);
    if (r < 0) {
        atomic_fetch_sub(&c->inflight_bytes, raw_bytes);
        atomic_store(&c->wants_space, true);
        inbox_wake(&w->inbox); /* it may have drained meanwhile: have the wish heard, see hear_wish() */
        return r;
    }
    inbox_wake(&w->inbox);
    return 0;
}

void writer_post(struct writer *w, struct writer_job *job)
{
    inbox_post(&w->inbox, &job->link);
}

void writer_wake(struct writer *w)
{
    inbox_wake(&w->inbox);
}

void writer_set_listener(struct writer *w, void (*on_frames)(void *ctx), void *ctx)
{
    pthread_mutex_lock(&w->listener_lock);
    w->on_frames = on_frames;
    w->on_frames_ctx = ctx;
    pthread_mutex_unlock(&w->listener_lock);
}

static void tell_listener(struct writer *w)
{
    pthread_mutex_lock(&w->listener_lock);
    if (w->on_frames != NULL)
        w->on_frames(w->on_frames_ctx);
    pthread_mutex_unlock(&w->listener_lock);
}

static bool run_jobs(struct writer *w)
{
    struct inbox_link *list = inbox_take_all(&w->inbox);
    bool any = list != NULL;
    while (list != NULL) {
        struct writer_job *job = CONTAINER_OF(list, struct writer_job, link);
        list = list->next;
        job->run(job);
        job->done(job); /* frees it, or hands it back: not ours from here on */
    }
    return any;
}

/* ---- the ledger: lines count as accepted when they are written; what the queue makes void is taken back ---- */

static void count_accepted(const struct channel *c, const struct body *b)
{
    for (uint32_t i = 0; i < b->n_rows; i++) {
        struct output_row *row = stats_output_row(c->output->conf->index, b->rows[i].tenant);
        counter_add(&row->accepted_lines, b->rows[i].lines);
        gauge_add(&row->queued_lines, b->rows[i].lines);
    }
}

static void take_back_voided(const struct channel *c)
{
    const struct frame_row *rows;
    size_t n;
    queue_voided(c->queue, &rows, &n);
    for (size_t i = 0; i < n; i++) {
        struct output_row *row = stats_output_row(c->output->conf->index, tenant_intern(rows[i].tenant));
        atomic_fetch_sub_explicit(&row->accepted_lines, rows[i].lines, memory_order_relaxed);
        gauge_add(&row->queued_lines, -(int64_t)rows[i].lines);
    }
}

/* ---- blocked and not ---- */

static void set_blocked(struct channel *c, bool is_blocked, enum blocked_reason reason, int code)
{
    struct output_stats *s = &stats.outputs[c->output->conf->index];
    if (is_blocked && (!c->is_blocked || c->blocked_reason != reason)) {
        for (int i = 0; i < BLOCKED_REASONS; i++)
            gauge_set(&s->blocked[i], i == (int)reason);
        log_warn("queue", "queue.blocked", "the queue takes no more: reading for this output waits",
                 LOG_SLICE("output", c->output->conf->name), LOG_CSTR("reason", blocked_reason_name(reason)),
                 LOG_CSTR("error", strerrordesc_np(-code)));
    } else if (!is_blocked && c->is_blocked) {
        for (int i = 0; i < BLOCKED_REASONS; i++)
            gauge_set(&s->blocked[i], 0);
        log_info("queue", "queue.recovered", "the queue takes lines again",
                 LOG_SLICE("output", c->output->conf->name));
    }
    c->is_blocked = is_blocked;
    c->blocked_reason = reason;
}

static void write_failed(struct channel *c, int code, int64_t now)
{
    enum blocked_reason reason = BLOCKED_WRITE_ERROR;
    if (!queue_is_blocked(c->queue, &reason))
        reason = code == -ENOSPC ? BLOCKED_DISK_FULL : BLOCKED_WRITE_ERROR;
    set_blocked(c, true, reason, code);
    c->retry_delay_ns = MIN(MAX(c->retry_delay_ns * 2, RETRY_MIN_NS), RETRY_MAX_NS);
    c->retry_at_ns = now + c->retry_delay_ns;
}

/* Damage was found: what it took is read again by the reader. */
static void hand_out_rereads(struct writer *w, struct channel *c)
{
    const struct reread *rr;
    while ((rr = queue_reread_next(c->queue)) != NULL)
        w->conf.events.on_reread(w->conf.events.ctx, c->output->conf->index, rr);
}

/* ---- one group ---- */

static void body_drop_first(struct channel *c, struct group *g)
{
    struct body *b = g->bodies;
    g->bodies = b->next;
    c->output->ops->discard(c->output, b);
    body_free(b);
    c->is_sealed = false;
    buf_reset(&c->wire);
    buf_shrink(&c->wire, MIN(WIRE_BYTES_KEEP, budget_batches_share() / WIRE_SHARE_KEEP));
}

static int seal(struct channel *c, struct body *b)
{
    if (c->is_sealed)
        return 0;
    buf_reset(&c->wire);
    int r = c->output->ops->seal(c->output, b, &c->wire);
    c->is_sealed = r == 0;
    return r;
}

static size_t frame_rows(struct writer *w, const struct body *b)
{
    size_t n = MIN((size_t)b->n_rows, (size_t)BODY_ROWS_MAX);
    for (size_t i = 0; i < n; i++)
        w->rows[i] = (struct frame_row){ .input = w->conf.input_name(w->conf.input_ctx, b->rows[i].input),
                                         .tenant = tenant_name(b->rows[i].tenant),
                                         .lines = b->rows[i].lines };
    return n;
}

/* Writes the first body of g, with the end of the group when it is the last. */
static int write_body(struct writer *w, struct channel *c, struct group *g)
{
    struct body *b = g->bodies;
    int r = seal(c, b);
    if (r < 0)
        return r;
    struct frame_in frame = { .route = buf_slice(&b->route),
                              .wire = buf_slice(&c->wire),
                              .raw_len = (uint32_t)b->raw_bytes,
                              .lines = b->lines,
                              .is_alone = b->is_alone,
                              .rows = w->rows,
                              .n_rows = frame_rows(w, b),
                              .runs = buf_slice(&b->runs),
                              .sources = body_end_sources(b),
                              .is_gap = g->is_gap,
                              .built_ns = b->oldest_read_ns };
    bool is_last = b->next == NULL && g->is_end;
    uint64_t seq;
    r = queue_append(c->queue, &frame, is_last ? &g->end : NULL, &seq);
    if (r < 0)
        return r;
    count_accepted(c, b);
    c->unsynced_bytes += c->wire.len;
    body_drop_first(c, g);
    return 0;
}

static int write_group(struct writer *w, struct channel *c)
{
    struct group *g = c->current;
    bool had_bodies = g->bodies != NULL;
    while (g->bodies != NULL) {
        int r = write_body(w, c, g);
        if (r < 0)
            return r;
        stats_turn(THREAD_WRITER);
    }
    if (g->is_end && !had_bodies) {
        uint64_t seq;
        return queue_append(c->queue, NULL, &g->end, &seq);
    }
    return 0;
}

static void drop_current(struct writer *w, struct channel *c)
{
    struct group *g = c->current;
    atomic_fetch_sub(&c->inflight_bytes, g->raw_bytes);
    c->current = NULL;
    c->is_sealed = false;
    group_free(g, c->output);
    if (atomic_exchange(&c->wants_space, false))
        w->conf.events.on_space(w->conf.events.ctx, c->output->conf->index);
}

static void group_done(struct writer *w, struct channel *c, int64_t now)
{
    if (c->current->is_end) {
        c->written_number = c->current->number;
        if (BUG(31)) /* what is written is safe, is it not? */
            w->conf.events.on_durable(w->conf.events.ctx, c->output->conf->index, c->written_number);
        if (c->dirty_since_ns == 0)
            c->dirty_since_ns = now;
    }
    set_blocked(c, false, BLOCKED_FULL, 0);
    c->retry_at_ns = c->retry_delay_ns = 0;
    drop_current(w, c);
}

static void publish_gauges(struct channel *c)
{
    gauge_set(&stats.outputs[c->output->conf->index].queue_bytes, (int64_t)queue_bytes(c->queue));
}

static void drop_pushed(struct channel *c)
{
    bool was_wanted;
    group_free(c->current, c->output);
    c->current = NULL;
    c->is_sealed = false;
    for (struct group *g; (g = ring_pop(&c->ring, &was_wanted)) != NULL;)
        group_free(g, c->output);
    atomic_store(&c->inflight_bytes, 0);
}

/* What is not durable is void: it is read again. */
static void go_back(struct writer *w, struct channel *c)
{
    struct writer_fence fence = { 0 };
    take_back_voided(c);
    struct must must = { 0 };
    while (queue_fenced(c->queue, &fence.files, &fence.n_files) < 0 ||
           queue_fenced_ledger(c->queue, &fence.ledger, &fence.n_ledger) < 0)
        must_wait(&must); /* without them the reader would go on from wrong places */
    /* What was pushed follows positions that are void now; its lines are read again. The epoch tells such groups from
     * those that the reader makes after it has heard of the fence. */
    fence.epoch = ++c->epoch;
    if (c->current != NULL)
        drop_current(w, c);
    w->conf.events.on_fence(w->conf.events.ctx, c->output->conf->index, &fence);
    c->unsynced_bytes = 0;
    c->dirty_since_ns = 0;
}

static void sync_failed(struct writer *w, struct channel *c, int code)
{
    log_error("queue", "queue.sync_failed",
              "a sync of the queue failed: a new segment is begun and what was not durable is read again",
              LOG_SLICE("output", c->output->conf->name), LOG_CSTR("error", strerrordesc_np(-code)));
    go_back(w, c);
}

static void sync_channel(struct writer *w, struct channel *c)
{
    uint64_t number = c->written_number;
    gauge_set(&stats.writer_in_sync, 1);
    int r = queue_sync(c->queue);
    gauge_set(&stats.writer_in_sync, 0);
    stats_turn(THREAD_WRITER);
    if (r < 0) {
        sync_failed(w, c, r);
        return;
    }
    c->unsynced_bytes = 0;
    c->dirty_since_ns = 0;
    w->conf.events.on_durable(w->conf.events.ctx, c->output->conf->index, number);
    tell_listener(w);
}

/* The disk had no room for the rest of a group. What came before it is durable, which the reader is told first. */
static void group_given_up(struct writer *w, struct channel *c)
{
    log_info("queue", "queue.blocked", "the disk is full: a group that was begun is given up and read again",
             LOG_SLICE("output", c->output->conf->name));
    sync_channel(w, c);
    go_back(w, c);
}

/* Whoever sets a short batch_wait wants lines to be there sooner: the sync must not be what they wait for. As each group
 * comes that much after the one before, waiting longer than half of it would save no sync. */
static int64_t sync_after_ns(const struct channel *c)
{
    const struct queue_conf *conf = &c->output->conf->queue;
    return MIN(conf->sync_interval_ns, conf->batch_wait_ns / 2);
}

static bool sync_is_due(const struct channel *c, int64_t now)
{
    if (c->dirty_since_ns == 0)
        return false;
    const struct queue_conf *conf = &c->output->conf->queue;
    return conf->sync != QUEUE_SYNC_INTERVAL || c->unsynced_bytes >= SYNC_BYTES ||
           now - c->dirty_since_ns >= sync_after_ns(c);
}

/* writer_push() may find the ring full and say so only when all is written already: then nothing else would tell it. */
static void hear_wish(struct writer *w, struct channel *c)
{
    if (c->current == NULL && ring_used(&c->ring) == 0 && atomic_exchange(&c->wants_space, false))
        w->conf.events.on_space(w->conf.events.ctx, c->output->conf->index);
}

/* Writes what is there; true when something was done. */
static bool channel_turn(struct writer *w, struct channel *c, int64_t now)
{
    bool was_wanted, any = false;
    while (now >= c->retry_at_ns) {
        if (c->current == NULL && (c->current = ring_pop(&c->ring, &was_wanted)) == NULL)
            break;
        if (c->current->epoch != c->epoch && !BUG(29)) {
            drop_current(w, c);
            continue;
        }
        int r = write_group(w, c);
        if (r == -ESTALE) { /* the queue had to sync before a new segment, and that failed */
            sync_failed(w, c, r);
            continue;
        }
        if (r == -ECANCELED) {
            group_given_up(w, c);
            continue;
        }
        if (r < 0 && BUG(24)) { /* said, and forgotten */
            drop_current(w, c);
            continue;
        }
        if (r < 0) {
            write_failed(c, r, now);
            tell_listener(w); /* who reads may hold the blocks of a segment that is gone, until it looks */
            break;
        }
        group_done(w, c, now);
        any = true;
        if (sync_is_due(c, clock_mono_ns()))
            break; /* the others' turn comes after the sync */
    }
    hear_wish(w, c);
    hand_out_rereads(w, c);
    if (sync_is_due(c, clock_mono_ns()))
        sync_channel(w, c);
    publish_gauges(c);
    return any;
}

static int64_t next_wake(const struct writer *w)
{
    int64_t at = INT64_MAX;
    for (size_t i = 0; i < w->conf.n_outputs; i++) {
        const struct channel *c = &w->channels[i];
        if (c->current != NULL)
            at = MIN(at, c->retry_at_ns);
        if (c->dirty_since_ns != 0)
            at = MIN(at, c->dirty_since_ns + sync_after_ns(c));
    }
    return at;
}

/* Nothing on the way and nothing to sync: buffers that large bodies made go back. */
static void give_memory_back(struct writer *w)
{
    for (size_t i = 0; i < w->conf.n_outputs; i++)
        if (w->channels[i].current == NULL) {
            buf_shrink(&w->channels[i].wire, 0);
            if (w->channels[i].output->ops->rest != NULL)
                w->channels[i].output->ops->rest(w->channels[i].output);
        }
}

static void wait_for_work(struct writer *w, int64_t at)
{
    int64_t now = clock_mono_ns();
    int64_t wait_ns = MIN(at == INT64_MAX ? 10 * NS_PER_SEC : at - now, 10 * NS_PER_SEC);
    struct pollfd p = { .fd = w->inbox.event_fd, .events = POLLIN };
    if (w->conf.stepper != NULL)
        w->conf.stepper->wait(w->conf.stepper->ctx, now + wait_ns);
    else if (wait_ns > 0)
        (void)poll(&p, 1, (int)((wait_ns + NS_PER_MS - 1) / NS_PER_MS)); /* an error only makes a turn more */
}

/* Full, or failing: what it does not take is in the files still. */
static bool is_stuck(const struct channel *c)
{
    enum blocked_reason reason;
    return c->current != NULL && queue_is_blocked(c->queue, &reason);
}

static bool is_drained(struct writer *w)
{
    for (size_t i = 0; i < w->conf.n_outputs; i++)
        if (!is_stuck(&w->channels[i]) && (w->channels[i].current != NULL || ring_used(&w->channels[i].ring) > 0))
            return false;
    return true;
}

static void finish(struct writer *w)
{
    for (size_t i = 0; i < w->conf.n_outputs; i++) {
        struct channel *c = &w->channels[i];
        if (queue_in_group(c->queue)) {
            queue_abandon_group(c->queue);
            take_back_voided(c);
        }
        if (c->dirty_since_ns != 0)
            sync_channel(w, c);
        drop_pushed(c);
    }
}

/* Returns when the next one is wanted, if nothing comes before: 0 = at once. */
static int64_t turn(struct writer *w)
{
    bool any = false;
    stats_turn(THREAD_WRITER);
    (void)run_jobs(w);
    int64_t now = clock_mono_ns();
    for (size_t i = 0; i < w->conf.n_outputs; i++)
        any |= channel_turn(w, &w->channels[i], now);
    if (any)
        return 0;
    int64_t at = next_wake(w);
    if (at == INT64_MAX)
        give_memory_back(w);
    return at;
}

/* Turns until it is told to stop and all is written, or its time is up. */
static void run(struct writer *w)
{
    for (;;) {
        int64_t now = clock_mono_ns(), at = turn(w);
        if (atomic_load(&w->is_stopping) && (is_drained(w) || now >= atomic_load(&w->stop_deadline_ns)))
            break;
        if (at > 0)
            wait_for_work(w, at);
    }
    finish(w);
    (void)run_jobs(w);
}

static void *writer_main(void *arg)
{
    struct writer *w = arg;
    (void)pthread_setname_np(pthread_self(), "writer");
    run(w);
    return NULL;
}

int64_t writer_step(struct writer *w)
{
    return turn(w);
}

bool writer_is_called(const struct writer *w)
{
    return inbox_is_awake(&w->inbox);
}

int writer_start(const struct writer_conf *conf, struct writer **ret_writer, struct err *err)
{
    struct writer *w = calloc(1, sizeof(*w));
    if (w == NULL)
        return err_set(err, -ENOMEM, "cannot start the writer");
    w->conf = *conf;
    w->inbox.event_fd = -1;
    (void)pthread_mutex_init(&w->listener_lock, NULL);
    w->channels = calloc(MAX(conf->n_outputs, (size_t)1), sizeof(*w->channels));
    int r = w->channels == NULL ? -ENOMEM : inbox_init(&w->inbox);
    for (size_t i = 0; r == 0 && i < conf->n_outputs; i++) {
        struct channel *c = &w->channels[i];
        c->output = conf->outputs[i].output;
        c->queue = conf->outputs[i].queue;
        ring_init(&c->ring, RING_GROUPS);
        buf_init_in(&c->wire, WIRE_BYTES_MAX, ACCOUNT_BATCHES(c->output->conf->index));
        gauge_set(&stats.outputs[i].queue_limit_bytes, (int64_t)c->output->conf->queue.max_bytes);
        for (int k = 0; k < BLOCKED_REASONS; k++)
            gauge_set(&stats.outputs[i].blocked[k], 0); /* of the writer before this one */
        publish_gauges(c);
    }
    if (r == 0) {
        r = conf->stepper != NULL ? 0 : -pthread_create(&w->thread, NULL, writer_main, w);
        w->is_started = r == 0;
    }
    if (r < 0) {
        writer_free(w);
        return err_set(err, r, "cannot start the writer");
    }
    *ret_writer = w;
    return 0;
}

void writer_stop(struct writer *w, int64_t grace_ns)
{
    if (w == NULL || !w->is_started)
        return;
    atomic_store(&w->stop_deadline_ns, clock_mono_ns() + grace_ns);
    atomic_store(&w->is_stopping, true);
    inbox_wake(&w->inbox);
    if (w->conf.stepper != NULL)
        run(w);
    else
        (void)pthread_join(w->thread, NULL);
    w->is_started = false;
}

void writer_free(struct writer *w)
{
    if (w == NULL)
        return;
    assert(!w->is_started);
    if (w->inbox.event_fd >= 0) {
        (void)run_jobs(w);
        inbox_deinit(&w->inbox);
    }
    for (size_t i = 0; w->channels != NULL && i < w->conf.n_outputs; i++) {
        struct channel *c = &w->channels[i];
        if (c->output == NULL)
            continue;
        drop_pushed(c);
        buf_deinit(&c->wire);
    }
    (void)pthread_mutex_destroy(&w->listener_lock);
    free(w->channels);
    free(w);
}
