/*
 * rig.h - a real queue, a real sender, a writer's thread for its jobs, and an output whose wire form can be read:
 *
 *     wire: "KEY ID WORDS\n"…     request: POST URL, X-Key: the route
 *     reply: 204 sent · 207 items, one letter each: d done, r retry, h hold, t text, x dead · 400 bisect · 413 split ·
 *            401 403 404 hold · the rest, and no reply: retry
 *
 * A line sent as text has "T:" before its words.
 */
#ifndef TESTS_UNIT_DELIVER_RIG_H
#define TESTS_UNIT_DELIVER_RIG_H

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/tenants.h"
#include "agent/deliver/backoff.h"
#include "agent/deliver/deliver.h"
#include "agent/deliver/jobs.h"
#include "agent/deliver/sender.h"
#include "tests/unit/deliver/server.h"

/* --- the toy output --- */

struct toy {
    struct output base;
    /* local */
    char *delivered_text;
    size_t delivered_len;
    uint64_t delivered_seq, durable_seq;
    unsigned checkpoints;
    int fail_next;      /* deliver() fails so often */
    int setup_steps;
};

static inline int toy_request(struct output *out, struct slice route, size_t url, struct http_request *ret)
{
    int r = buf_append_slice(&ret->url, out->conf->http.urls.items[url]);
    if (r == 0)
        r = buf_append_lit(&ret->headers, "Content-Type: text/plain\nX-Key: ");
    if (r == 0)
        r = buf_append_slice(&ret->headers, route);
    return r == 0 ? buf_append_byte(&ret->headers, '\n') : r;
}

static inline void toy_judge(struct output *out, const struct http_reply *reply, struct slice wire,
                             struct judgement *ret)
{
    (void)out;
    (void)wire;
    (void)snprintf(ret->reason, sizeof(ret->reason), "status_%ld", reply->status);
    (void)snprintf(ret->text, sizeof(ret->text), "%.*s", (int)MIN(reply->body.len, (size_t)100), reply->body.ptr);
    switch (reply->status) {
    case 0: ret->verdict = strcmp(reply->failure, "tls") == 0 ? VERDICT_HOLD : VERDICT_RETRY; break;
    case 204: ret->verdict = VERDICT_SENT; break;
    case 207: ret->verdict = VERDICT_ITEMS; break;
    case 400: ret->verdict = VERDICT_BISECT; break;
    case 413: ret->verdict = VERDICT_SPLIT; break;
    case 200: case 302: case 401: case 403: case 404: ret->verdict = VERDICT_HOLD; break;
    default: ret->verdict = VERDICT_RETRY; break;
    }
}

static inline void toy_judge_items(struct output *out, const struct http_reply *reply, const struct items *items,
                                   struct judgement *ret)
{
    (void)out;
    if (reply->body.len != items->n) {
        ret->verdict = VERDICT_RETRY;
        return;
    }
    for (size_t i = 0; i < items->n; i++) {
        const char c = reply->body.ptr[i];
        ret->items[i] = c == 'd' ? ITEM_DONE : c == 'r' ? ITEM_RETRY : c == 'h' ? ITEM_HOLD : c == 't' ? ITEM_TEXT
                                                                                              : ITEM_DEAD;
        (void)snprintf(ret->item_reasons[i], sizeof(ret->item_reasons[i]), "item_%c", c);
    }
}

static inline int toy_items(const struct output *out, struct slice wire, struct slice route, struct items *ret)
{
    (void)out;
    (void)route;
    buf_init(&ret->raw, 64 * MIB);
    if (buf_append_slice(&ret->raw, wire) < 0)
        return -ENOMEM;
    struct slice rest = buf_slice(&ret->raw);
    while (rest.len > 0) {
        const ptrdiff_t end = slice_find_byte(rest, '\n'), blank = slice_find_byte(rest, ' ');
        if (end < 0 || blank < 0 || blank > end)
            return -EBADMSG;
        if (ret->n == ret->cap) {
            struct item *more = realloc(ret->item, (ret->cap == 0 ? 64 : ret->cap * 2) * sizeof(ret->item[0]));
            if (more == NULL)
                return -ENOMEM;
            ret->item = more;
            ret->cap = ret->cap == 0 ? 64 : ret->cap * 2;
        }
        ret->item[ret->n++] = (struct item){ .key = slice_first(rest, (size_t)blank),
                                             .data = slice_first(rest, (size_t)end) };
        rest = slice_from(rest, (size_t)end + 1);
    }
    return 0;
}

static inline int toy_build(struct output *out, const struct items *items, const uint8_t *choose, bool as_text,
                            struct buf *wire)
{
    (void)out;
    int r = 0;
    for (size_t i = 0; r == 0 && i < items->n; i++) {
        if (!choose[i])
            continue;
        const struct slice line = items->item[i].data;
        const size_t words = (size_t)slice_rfind_byte(line, ' ') + 1;
        r = buf_append_slice(wire, slice_first(line, words));
        if (r == 0 && as_text)
            r = buf_append_lit(wire, "T:");
        if (r == 0)
            r = buf_append_slice(wire, slice_from(line, words));
        if (r == 0)
            r = buf_append_byte(wire, '\n');
    }
    return r;
}

static inline int toy_join(struct output *out, const struct slice *wires, size_t n, struct buf *wire)
{
    (void)out;
    int r = 0;
    for (size_t i = 0; r == 0 && i < n; i++)
        r = buf_append_slice(wire, wires[i]);
    return r;
}

static inline bool toy_setup(struct output *out, unsigned step, size_t url, struct http_request *ret, struct buf *body)
{
    if ((int)step >= ((struct toy *)out)->setup_steps)
        return false;
    assert_int_equal(buf_append_slice(&ret->url, out->conf->http.urls.items[url]), 0);
    assert_int_equal(buf_append_lit(&ret->headers, "X-Key: setup\n"), 0);
    ret->method = "PUT";
    return buf_append_lit(body, "{}") == 0;
}

static inline int toy_deliver(struct output *out, const struct frame_ref *frame, struct err *err)
{
    struct toy *t = (struct toy *)out;
    if (t->fail_next > 0) {
        t->fail_next--;
        return err_set(err, -ENOSPC, "cannot write");
    }
    assert_true(frame->seq > t->delivered_seq);
    t->delivered_text = realloc(t->delivered_text, t->delivered_len + frame->wire.len);
    assert_non_null(t->delivered_text);
    memcpy(t->delivered_text + t->delivered_len, frame->wire.ptr, frame->wire.len);
    t->delivered_len += frame->wire.len;
    t->delivered_seq = frame->seq;
    return 0;
}

static inline int toy_checkpoint(struct output *out, uint64_t seq, struct err *err)
{
    struct toy *t = (struct toy *)out;
    (void)err;
    assert_true(seq <= t->delivered_seq);
    t->durable_seq = seq;
    t->checkpoints++;
    return 0;
}

static inline uint64_t toy_delivered(const struct output *out)
{
    return ((const struct toy *)out)->durable_seq;
}

static const struct output_ops toy_ops = { .wire_form = WIRE_NDJSON, .request = toy_request, .judge = toy_judge,
                                           .judge_items = toy_judge_items, .items = toy_items, .build = toy_build };
static const struct output_ops toy_join_ops = { .wire_form = WIRE_NDJSON, .request = toy_request, .judge = toy_judge,
                                                .judge_items = toy_judge_items, .items = toy_items,
                                                .build = toy_build, .join = toy_join };
static const struct output_ops toy_setup_ops = { .wire_form = WIRE_NDJSON, .request = toy_request,
                                                 .judge = toy_judge, .judge_items = toy_judge_items,
                                                 .items = toy_items, .build = toy_build,
                                                 .setup_request = toy_setup };
static const struct output_ops toy_local_ops = { .wire_form = WIRE_NDJSON, .is_local = true, .deliver = toy_deliver,
                                                 .checkpoint = toy_checkpoint, .delivered = toy_delivered,
                                                 .items = toy_items };

/* --- the rig --- */

struct rig {
    char dir[64];
    struct output_conf conf;
    struct slice urls[4];
    char url_text[4][64];
    struct toy toy;
    struct output *out;      /* the toy, or a real one */
    struct queue *q;
    struct sender *s;
    uint64_t recovered_acked;
    struct inbox jobs;       /* the writer's */
    pthread_t writer;
    atomic_bool is_stopping;
    atomic_uint spaces;
    uint64_t last_seq;
    bool is_alone;      /* frames from now on go without company */
};

static const char *rig_folder = "/tmp"; /* where rigs keep their queues */
static struct rig *rig_writers; /* jobs_post has no context of its own */

static inline void rig_post(struct writer *w, struct writer_job *job)
{
    (void)w;
    inbox_post(&rig_writers->jobs, &job->link);
}

static inline void rig_sleep(int64_t ns)
{
    const struct timespec t = { .tv_sec = ns / NS_PER_SEC, .tv_nsec = ns % NS_PER_SEC };
    (void)nanosleep(&t, NULL);
}

static inline void *rig_writer_main(void *ctx)
{
    struct rig *g = ctx;
    for (;;) {
        struct inbox_link *list = inbox_take_all(&g->jobs);
        if (list == NULL) {
            if (atomic_load(&g->is_stopping))
                return NULL;
            rig_sleep(200 * 1000);
        }
        while (list != NULL) {
            struct inbox_link *next = list->next;
            struct writer_job *j = CONTAINER_OF(list, struct writer_job, link);
            j->run(j);
            j->done(j);
            list = next;
        }
    }
}

static inline void rig_on_space(void *ctx, uint32_t output)
{
    (void)output;
    atomic_fetch_add(&((struct rig *)ctx)->spaces, 1);
}

static inline void rig_url(struct rig *g, size_t i, uint16_t port)
{
    (void)snprintf(g->url_text[i], sizeof(g->url_text[i]), "http://127.0.0.1:%u/push", port);
    g->urls[i] = slice_cstr(g->url_text[i]);
    g->conf.http.urls = (struct slices){ g->urls, MAX(g->conf.http.urls.n, i + 1) };
}

/* Fast clocks: what takes minutes takes tens of milliseconds. */
static inline void rig_timing(void)
{
    deliver_timing = (struct deliver_timing){ .backoff_min_ns = 3 * NS_PER_MS, .backoff_max_ns = 20 * NS_PER_MS,
                                              .hold_ns = 50 * NS_PER_MS, .park_after_ns = 120 * NS_PER_MS,
                                              .cursor_ns = 10 * NS_PER_MS, .cursor_blocked_ns = 5 * NS_PER_MS,
                                              .job_retry_ns = 50 * NS_PER_MS, .lane_idle_ns = 30 * NS_PER_SEC };
}

static inline void rig_init(struct rig *g, const struct output_ops *ops, uint16_t port)
{
    static uint32_t next_index;
    *g = (struct rig){ 0 };
    (void)snprintf(g->dir, sizeof(g->dir), "%s/tailrace-deliver-XXXXXX", rig_folder);
    assert_non_null(mkdtemp(g->dir));
    g->conf = (struct output_conf){ .name = SLICE_INIT("toy"), .index = next_index++ % OUTPUTS_MAX };
    stats_forget_output(g->conf.index); /* of a rig before */
    g->conf.state_dir = slice_cstr(g->dir);
    g->conf.queue = (struct queue_conf){ .max_bytes = 64 * MIB, .batch_bytes = MIB, .batch_wait_ns = NS_PER_SEC,
                                         .sync_interval_ns = 200 * NS_PER_MS, .key_share_percent = 25,
                                         .dead_max_bytes = 64 * MIB, .group_bytes = MIB };
    g->conf.http.timeout_ns = 10 * NS_PER_SEC;
    g->conf.http.concurrency = 16;
    rig_url(g, 0, port);
    g->toy.base.ops = ops;
    g->toy.base.conf = &g->conf;
    g->out = &g->toy.base;
    rig_timing();
    rig_writers = g;
    jobs_post = rig_post;
}

static inline void rig_open_queue(struct rig *g)
{
    struct err err = { 0 };
    struct queue_recovery rec = { 0 };
    const struct queue_open_conf qc = { .output = &g->conf, .wire_form = g->out->ops->wire_form,
                                        .allow_network_fs = true };
    assert_int_equal(queue_open(&qc, &g->q, &rec, &err), 0);
    g->recovered_acked = rec.acked_seq;
    queue_recovered_free(g->q);
}

static const struct slice rig_inputs[] = { SLICE_INIT("in") };

static inline void rig_start(struct rig *g)
{
    struct err err = { 0 };
    if (g->q == NULL)
        rig_open_queue(g);
    assert_int_equal(inbox_init(&g->jobs), 0);
    atomic_store(&g->is_stopping, false);
    assert_int_equal(pthread_create(&g->writer, NULL, rig_writer_main, g), 0);
    const struct sender_output so = { g->out, g->q };
    const struct sender_conf sc = { .outputs = &so, .n_outputs = 1, .inputs = rig_inputs, .n_inputs = 1,
                                    .on_space = rig_on_space, .ctx = g };
    assert_int_equal(sender_start(&sc, &g->s, &err), 0);
}

static inline void rig_stop(struct rig *g, int64_t grace_ns)
{
    sender_stop(g->s, grace_ns);
    g->s = NULL;
    atomic_store(&g->is_stopping, true);
    (void)pthread_join(g->writer, NULL);
    inbox_deinit(&g->jobs);
    queue_close(g->q);
    g->q = NULL;
}

static inline int rig_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static inline void rig_deinit(struct rig *g)
{
    if (g->s != NULL)
        rig_stop(g, NS_PER_SEC);
    queue_close(g->q);
    (void)nftw(g->dir, rig_remove, 16, FTW_DEPTH | FTW_PHYS);
    free(g->toy.delivered_text);
    jobs_post = writer_post;
}

/* --- lines in --- */

/* Frames are appended on the writer's thread, as in life. */
struct rig_append {
    struct writer_job job;
    struct rig *g;
    struct frame_in in;
    atomic_bool is_done;
};

static inline void rig_append_run(struct writer_job *job)
{
    struct rig_append *a = CONTAINER_OF(job, struct rig_append, job);
    const struct group_end end = { 0 };
    uint64_t seq = 0;
    struct output_row *row = stats_output_row(a->g->conf.index, tenant_intern(a->in.rows[0].tenant));
    int r = queue_append(a->g->q, &a->in, &end, &seq);
    if (r == 0)
        r = queue_sync(a->g->q);
    if (r == 0) {
        a->g->last_seq = seq;
        counter_add(&row->accepted_lines, a->in.lines);
        gauge_add(&row->queued_lines, a->in.lines);
    }
    job->result = r;
}

static inline void rig_append_done(struct writer_job *job)
{
    atomic_store(&CONTAINER_OF(job, struct rig_append, job)->is_done, true);
}

/* A frame of ready bytes. Before rig_start it is written at once. */
static inline void rig_frame(struct rig *g, const char *route, struct slice wire, uint32_t lines, uint32_t raw_len,
                             const char *tenant)
{
    if (g->q == NULL)
        rig_open_queue(g);
    const struct frame_row row = { .input = SLICE("in"), .tenant = slice_cstr(tenant), .lines = lines };
    struct rig_append a = { .g = g, .job = { .run = rig_append_run, .done = rig_append_done } };
    a.in = (struct frame_in){ .route = slice_cstr(route), .wire = wire, .raw_len = raw_len, .lines = lines,
                              .rows = &row, .n_rows = 1, .built_ns = clock_wall_ns(), .is_alone = g->is_alone };
    if (g->s == NULL) {
        a.job.run(&a.job);
    } else {
        inbox_post(&g->jobs, &a.job.link);
        while (!atomic_load(&a.is_done))
            rig_sleep(100 * 1000);
        sender_wake(g->s);
    }
    assert_int_equal(a.job.result, 0);
}

/* A frame of n lines of one key, with ids from first on. The tenant of its ledger row is the key. */
static inline void rig_lines(struct rig *g, const char *route, const char *key, unsigned first, unsigned n)
{
    struct buf wire;
    buf_init(&wire, 64 * MIB);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(buf_printf(&wire, "%s %u words-of-%u\n", key, first + i, first + i), 0);
    rig_frame(g, route, buf_slice(&wire), n, (uint32_t)wire.len, key);
    buf_deinit(&wire);
}

/* --- waiting and asking --- */

/* Only a test that fails waits so long: how slow the machine is decides nothing. */
#define RIG_PATIENCE_NS (600 * NS_PER_SEC)
#define rig_until(cond)                                                        \
    do {                                                                       \
        const int64_t rig_end_ = clock_mono_ns() + RIG_PATIENCE_NS;            \
        while (!(cond) && clock_mono_ns() < rig_end_)                          \
            rig_sleep(500 * 1000);                                             \
        assert_true(cond);                                                     \
    } while (0)

static inline bool rig_all_acked(struct rig *g)
{
    return queue_acked_seq(g->q) >= g->last_seq;
}

static inline struct output_row *rig_row(const struct rig *g, const char *tenant)
{
    return stats_output_row(g->conf.index, tenant_intern(slice_cstr(tenant)));
}

/* Returns when the sender has ended the turn it is in: what it acknowledged is in the ledger then. */
static inline void rig_settle(struct rig *g)
{
    struct buf text;
    buf_init(&text, 4 * MIB);
    assert_int_equal(sender_status(g->s, &text, RIG_PATIENCE_NS), 0);
    buf_deinit(&text);
}

struct rig_ledger {
    uint64_t accepted, delivered, dead, lost;
    int64_t queued, parked;
};

static inline struct rig_ledger rig_ledger(const struct rig *g, const char *tenant)
{
    const struct output_row *r = rig_row(g, tenant);
    struct rig_ledger l = { counter_get(&r->accepted_lines), counter_get(&r->delivered_lines),
                            counter_get(&r->dead_lines), 0, gauge_get(&r->queued_lines), gauge_get(&r->parked_lines) };
    for (size_t i = 0; i < LOST_REASONS; i++)
        l.lost += counter_get(&r->lost_lines[i]);
    return l;
}

static inline void rig_assert_balance(const struct rig *g, const char *tenant)
{
    const struct rig_ledger l = rig_ledger(g, tenant);
    assert_int_equal(l.accepted, l.delivered + l.dead + l.lost + (uint64_t)l.queued + (uint64_t)l.parked);
}

static inline uint64_t rig_code(const struct code_count *table, const char *code)
{
    for (size_t i = 0; i < CODES_MAX; i++) {
        const char *have = atomic_load(&((struct code_count *)(uintptr_t)&table[i])->code);
        if (have != NULL && strcmp(have, code) == 0)
            return counter_get(&table[i].n);
    }
    return 0;
}

/* How often a line "KEY ID words" is in requests that were answered by status; status 0: in any request. */
static inline unsigned rig_times(struct server *srv, const char *key, unsigned id)
{
    char needle[96];
    unsigned n = 0;
    (void)snprintf(needle, sizeof(needle), "%s %u ", key, id);
    const size_t len = strlen(needle);
    pthread_mutex_lock(&srv->lock);
    for (size_t i = 0; i < srv->n_requests; i++) {
        const struct server_request *r = srv->requests[i];
        for (const char *p = r->body; p != NULL && p < r->body + r->body_len;) {
            n += (size_t)(r->body + r->body_len - p) >= len && memcmp(p, needle, len) == 0;
            p = memchr(p, '\n', (size_t)(r->body + r->body_len - p));
            p = p == NULL ? NULL : p + 1;
        }
    }
    pthread_mutex_unlock(&srv->lock);
    return n;
}


#endif
