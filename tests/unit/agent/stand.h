/*
 * stand.h - a real writer and a real queue in a fresh folder; an output whose bodies are plain lines; what the writer told
 * the reader. The disk can be made to fail.
 */
#ifndef TAILRACE_TESTS_AGENT_STAND_H
#define TAILRACE_TESTS_AGENT_STAND_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the above first */
#include <cmocka.h>

#include <errno.h>
#include <ftw.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/tenants.h"
#include "agent/queue/fs.h"
#include "agent/writer.h"

struct told { /* by the writer, in its thread */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned spaces, fences, frames;
    uint64_t durable;
    uint32_t epoch;
    uint64_t fence_end, fence_lines; /* of the one file and the one row */
};

struct stand {
    char dir[64];
    struct output_conf conf;
    struct output out;
    struct queue *queue;
    struct writer *writer;
    struct origin origin;
    struct record rec;
    struct told told;
    uint64_t off; /* of the next group's end */
};

static _Atomic int stand_append_error, stand_seal_error, stand_write_error, stand_sync_errors;
static _Atomic unsigned stand_seals;

static int stand_seal(struct output *out, struct body *b, struct buf *wire)
{
    (void)out;
    atomic_fetch_add(&stand_seals, 1);
    int r = atomic_load(&stand_seal_error);
    return r < 0 ? r : buf_append_slice(wire, buf_slice(&b->raw));
}

static void stand_discard(struct output *out, struct body *b)
{
    (void)out;
    (void)b;
}

static int stand_append(struct output *out, const struct record *rec, struct append_result *ret)
{
    struct body *b = bodies_get(&out->open, SLICE("r"));
    ret->body = b;
    if (b == NULL || atomic_load(&stand_append_error) < 0)
        return -ENOMEM;
    if (b->raw.len + rec->line.len > out->open.body_max)
        return -ENOBUFS;
    assert_int_equal(buf_append_slice(&b->raw, rec->line), 0);
    b->raw_bytes += rec->line.len;
    out->open.raw_bytes += rec->line.len;
    return body_count(b, rec);
}

static const struct output_type stand_type = { .name = "stand" };
static const struct output_ops stand_ops = { .type = &stand_type, .append = stand_append, .seal = stand_seal,
                                             .discard = stand_discard };

static ssize_t stand_pwritev(int fd, const struct iovec *iov, int n, uint64_t off)
{
    int r = atomic_load(&stand_write_error);
    return r < 0 ? r : fs_real.pwritev(fd, iov, n, off);
}

static int stand_fdatasync(int fd)
{
    if (atomic_load(&stand_sync_errors) > 0) {
        atomic_fetch_sub(&stand_sync_errors, 1);
        return -EIO;
    }
    return fs_real.fdatasync(fd);
}

/* ---- what the writer tells ---- */

static void stand_on_space(void *ctx, uint32_t output)
{
    struct told *t = ctx;
    (void)output;
    pthread_mutex_lock(&t->lock);
    t->spaces++;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
}

static void stand_on_durable(void *ctx, uint32_t output, uint64_t number)
{
    struct told *t = ctx;
    (void)output;
    pthread_mutex_lock(&t->lock);
    t->durable = number;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
}

static void stand_on_fence(void *ctx, uint32_t output, const struct writer_fence *f)
{
    struct told *t = ctx;
    (void)output;
    pthread_mutex_lock(&t->lock);
    t->fences++;
    t->epoch = f->epoch;
    t->fence_end = f->n_files == 0 ? 0 : f->files[0].position.end;
    t->fence_lines = f->n_ledger == 0 ? 0 : f->ledger[0].read_lines;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
}

static void stand_on_frames(void *ctx)
{
    struct told *t = ctx;
    pthread_mutex_lock(&t->lock);
    t->frames++;
    pthread_mutex_unlock(&t->lock);
}

/* Waits for an event of the writer, not for a time. */
#define stand_wait(s, condition)                                                                              \
    do {                                                                                                      \
        struct timespec until;                                                                                \
        clock_gettime(CLOCK_REALTIME, &until);                                                                \
        until.tv_sec += 30;                                                                                   \
        int e = 0;                                                                                            \
        pthread_mutex_lock(&(s)->told.lock);                                                                  \
        while (!(condition) && e == 0)                                                                        \
            e = pthread_cond_timedwait(&(s)->told.changed, &(s)->told.lock, &until);                          \
        pthread_mutex_unlock(&(s)->told.lock);                                                                \
        assert_int_equal(e, 0);                                                                               \
    } while (0)

/* Polls a counter: the writer posts nothing when it is blocked. */
#define stand_poll(condition)                                                                                 \
    do {                                                                                                      \
        int64_t deadline = clock_mono_ns() + 30 * NS_PER_SEC;                                                 \
        while (!(condition)) {                                                                                \
            assert_true(clock_mono_ns() < deadline);                                                          \
            (void)poll(NULL, 0, 1);                                                                           \
        }                                                                                                     \
    } while (0)

static inline struct slice stand_input(void *ctx, uint32_t input)
{
    (void)ctx;
    (void)input;
    return SLICE("in");
}

static inline bool stand_quiet(enum log_level level, const char *target)
{
    (void)level;
    (void)target;
    return false;
}

/* ---- life ---- */

static inline void stand_start(struct stand *s)
{
    struct queue_open_conf qc = { .output = &s->conf, .wire_form = WIRE_NDJSON, .allow_network_fs = true };
    struct queue_recovery rec;
    struct err err = { 0 };
    if (queue_open(&qc, &s->queue, &rec, &err) < 0)
        fail_msg("%s", err.text);
    queue_recovered_free(s->queue);
    struct writer_output wo = { &s->out, s->queue };
    struct writer_conf wc = { .outputs = &wo, .n_outputs = 1, .input_name = stand_input,
                              .events = { &s->told, stand_on_space, stand_on_durable, stand_on_fence } };
    static struct writer_output kept;
    kept = wo;
    wc.outputs = &kept;
    assert_int_equal(writer_start(&wc, &s->writer, &err), 0);
    writer_set_listener(s->writer, stand_on_frames, &s->told);
}

static inline void stand_stop(struct stand *s)
{
    writer_stop(s->writer, 10 * NS_PER_SEC);
    writer_free(s->writer);
    s->writer = NULL;
    queue_close(s->queue);
    s->queue = NULL;
}

static inline struct stand *stand_new(void)
{
    static struct fs_ops ops;
    struct stand *s = calloc(1, sizeof(*s));
    assert_non_null(s);
    log_set_filter(stand_quiet);
    ops = fs_real;
    ops.pwritev = stand_pwritev;
    ops.fdatasync = stand_fdatasync;
    fs_set_ops(&ops);
    stand_append_error = stand_seal_error = stand_write_error = stand_sync_errors = 0;
    stand_seals = 0;
    memset(&stats, 0, sizeof(stats));
    stats_forget_rows();
    memcpy(s->dir, "/tmp/tailrace-stand-XXXXXX", sizeof("/tmp/tailrace-stand-XXXXXX"));
    assert_non_null(mkdtemp(s->dir));
    s->conf = (struct output_conf){ .name = SLICE("out"), .state_dir = slice_cstr(s->dir), .type = &stand_type };
    s->conf.queue = (struct queue_conf){ .max_bytes = 64 * MIB, .batch_bytes = MIB, .batch_wait_ns = NS_PER_SEC,
                                         .sync = QUEUE_SYNC_INTERVAL, .sync_interval_ns = 5 * NS_PER_MS,
                                         .group_bytes = 4 * MIB, .key_share_percent = 25, .dead_max_bytes = MIB };
    s->out = (struct output){ .ops = &stand_ops, .conf = &s->conf };
    assert_int_equal(bodies_init(&s->out.open, 2 * MIB), 0);
    s->origin.input = SLICE("in");
    s->rec = (struct record){ .origin = &s->origin, .read_ns = 1, .line = SLICE("line\n"),
                              .tenant_id = tenant_intern(SLICE("t")) };
    pthread_mutex_init(&s->told.lock, NULL);
    pthread_cond_init(&s->told.changed, NULL);
    stand_start(s);
    return s;
}

static inline int stand_rm(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static inline void stand_free(struct stand *s)
{
    stand_stop(s);
    fs_set_ops(NULL);
    bodies_deinit(&s->out.open);
    pthread_mutex_destroy(&s->told.lock);
    pthread_cond_destroy(&s->told.changed);
    (void)nftw(s->dir, stand_rm, 16, FTW_DEPTH | FTW_PHYS);
    log_set_filter(NULL);
    free(s);
}

/* ---- groups ---- */

/* `lines` lines of the one file, which goes on by one byte a line. With is_end the group's last part. */
static inline struct group *stand_group(struct stand *s, uint64_t number, unsigned lines, bool is_end, uint32_t epoch)
{
    struct group *g = calloc(1, sizeof(*g));
    assert_non_null(g);
    if (lines > 0) {
        struct append_result res;
        for (unsigned i = 0; i < lines; i++)
            assert_int_equal(stand_append(&s->out, &s->rec, &res), 0);
        bodies_take(&s->out.open, res.body);
        g->bodies = res.body;
        g->raw_bytes = res.body->raw_bytes;
    }
    g->is_end = is_end;
    g->number = number;
    g->epoch = epoch;
    if (!is_end)
        return g;
    struct {
        struct file_ident file;
        struct file_position pos;
        struct ledger_row row;
    } *st = calloc(1, sizeof(*st));
    assert_non_null(st);
    st->file = (struct file_ident){ .incarnation = 7, .ino = 7, .path = SLICE("/a"), .input = SLICE("in") };
    st->pos = (struct file_position){ .incarnation = 7, .start = s->off, .end = s->off + 1 };
    s->off++;
    st->row = (struct ledger_row){ .input = SLICE("in"), .tenant = SLICE("t"), .read_lines = s->off };
    g->storage = st;
    g->end = (struct group_end){ .files = &st->file, .n_files = 1, .positions = &st->pos, .n_positions = 1,
                                 .ledger = &st->row, .n_ledger = 1 };
    return g;
}

static inline uint64_t stand_accepted(const struct stand *s)
{
    return counter_get(&stats_output_row(0, s->rec.tenant_id)->accepted_lines);
}

static inline int64_t stand_queued(const struct stand *s)
{
    return gauge_get(&stats_output_row(0, s->rec.tenant_id)->queued_lines);
}

#endif
