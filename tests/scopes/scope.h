/*
 * scope.h - a small queue on the model disk with everything in it, and an account of each of its lines.
 *
 * The source is one file of LINES lines; line n ends at position 10 n. Each frame holds some of them as text, "3 4 ".
 * scope_live() opens whatever is on the disk, delivers what comes out, reads the rest of the source again from where the
 * queue says, delivers that, closes, opens once more: then each line must be done before, delivered, dead, or counted lost.
 */
#ifndef TAILRACE_TESTS_SCOPES_SCOPE_H
#define TAILRACE_TESTS_SCOPES_SCOPE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/queue/core.h"
#include "agent/queue/scan.h"
#include "tests/sim/disk.h"

#define LINES_MAX 64
#define DIR "/state/queue/out"

struct scope {
    struct disk *d;
    struct output_conf output;
    struct queue_open_conf conf;
    struct queue *q;
    struct queue_recovery rec;
    struct err err;
    uint64_t refused; /* bit n: the frame that begins with line n becomes a dead letter */
};

/* All of it with TAILRACE_SCOPES=all (make scopes); else one case in `n`, which differ from place to place. */
static inline bool scope_skips(uint64_t i, uint64_t n)
{
    static int is_all = -1;
    if (is_all < 0)
        is_all = getenv("TAILRACE_SCOPES") != NULL && strcmp(getenv("TAILRACE_SCOPES"), "all") == 0;
    return is_all == 0 && (i * UINT64_C(0x9e3779b97f4a7c15) >> 32) % n != 0;
}

static inline bool scope_quiet(enum log_level level, const char *target)
{
    (void)level;
    (void)target;
    return false;
}

static int64_t scope_now = 1000 * NS_PER_SEC;
static inline int64_t scope_clock(void)
{
    return scope_now;
}

static inline void scope_init(struct scope *s, uint64_t seed)
{
    *s = (struct scope){ .d = disk_new() };
    log_set_filter(scope_quiet);
    clock_set_source(scope_clock, scope_clock);
    (void)mallopt(M_MMAP_THRESHOLD, 1 << 30); /* a hundred thousand opens: pages that stay are cheaper */
    (void)mallopt(M_TRIM_THRESHOLD, 1 << 30);
    disk_reset(s->d, &(struct disk_conf){ 0 }, seed);
    disk_use(s->d);
    assert_int_equal(disk_mkdir(s->d, "/state", DISK_STATE), 0);
    s->output.name = SLICE("out");
    s->output.index = 3;
    s->output.state_dir = SLICE("/state");
    s->output.queue = (struct queue_conf){ .max_bytes = 64 * MIB, .key_share_percent = 100, .dead_max_bytes = MIB };
    s->conf = (struct queue_open_conf){ .output = &s->output, .wire_form = 3, .allow_network_fs = true };
    queue_tuning = (struct queue_tuning){ 0 };
}

static inline void scope_deinit(struct scope *s)
{
    queue_close(s->q);
    disk_free(s->d);
    clock_set_source(NULL, NULL);
    queue_tuning = (struct queue_tuning){ 0 };
}

static inline void scope_open(struct scope *s)
{
    int r = queue_open(&s->conf, &s->q, &s->rec, &s->err);
    if (r < 0)
        fail_msg("queue_open: %d %s", r, s->err.text);
}

static inline void scope_close(struct scope *s)
{
    queue_close(s->q);
    s->q = NULL;
}

/* The process dies; the disk keeps what `loss` says. */
static inline void scope_crash(struct scope *s, enum disk_loss loss, uint64_t seed)
{
    disk_die(s->d);
    scope_close(s);
    disk_crash(s->d, loss, seed);
}

/* ---- writing ---- */

struct scope_frame {
    char body[512];
    struct frame_row row;
    struct frame_in in;
};

static inline struct frame_in *scope_frame(struct scope_frame *f, unsigned first, unsigned last, const char *tenant)
{
    size_t at = 0;
    for (unsigned n = first; n <= last; n++)
        at += (size_t)snprintf(f->body + at, sizeof(f->body) - at, "%u ", n);
    f->row = (struct frame_row){ SLICE("in"), slice_cstr(tenant), last - first + 1 };
    f->in = (struct frame_in){ .route = slice_cstr(tenant), .wire = slice_of(f->body, at), .raw_len = (uint32_t)at,
                               .lines = last - first + 1, .rows = &f->row, .n_rows = 1, .built_ns = 1000 + first };
    return &f->in;
}

struct scope_end {
    struct file_ident ident;
    struct file_position pos;
    struct ledger_row ledger;
    struct group_end end;
};

static inline struct group_end *scope_end(struct scope_end *e, uint64_t start, uint64_t end)
{
    e->ident = (struct file_ident){ .incarnation = 1, .dev = 1, .ino = 1, .fp_len = 10, .fp_crc = 77,
                                    .path = SLICE("/var/log/app.log"), .input = SLICE("in") };
    e->pos = (struct file_position){ .incarnation = 1, .start = start, .end = end, .head_crc = (uint32_t)end,
                                     .tail_crc = 5, .tail_len = 8 };
    e->ledger = (struct ledger_row){ .input = SLICE("in"), .tenant = SLICE("t"), .read_lines = end / 10,
                                     .read_bytes = end, .kept_lines = end / 10 };
    e->end = (struct group_end){ .files = &e->ident, .n_files = 1, .positions = &e->pos, .n_positions = 1,
                                 .ledger = &e->ledger, .n_ledger = 1 };
    return &e->end;
}

/* A frame that goes on (more) or ends its group at line `last`; first > last: positions only. `from`: of the group. */
static inline uint64_t scope_put(struct scope *s, unsigned first, unsigned last, const char *tenant, bool more,
                                 uint64_t from, uint64_t to)
{
    struct scope_frame f;
    struct scope_end e;
    uint64_t seq;
    int r = queue_append(s->q, first > last ? NULL : scope_frame(&f, first, last, tenant),
                         more ? NULL : scope_end(&e, from, to), &seq);
    assert_int_equal(r, 0);
    return seq;
}

static inline uint64_t scope_put_one(struct scope *s, unsigned first, unsigned last)
{
    return scope_put(s, first, last, "t", false, 10 * (first - 1), 10 * last);
}

static inline void scope_sync(struct scope *s)
{
    assert_int_equal(queue_sync(s->q), 0);
}

static inline void scope_roll(struct scope *s)
{
    assert_int_equal(segment_seal(s->q, false), 0);
    assert_int_equal(segment_begin(s->q), 0);
}

/* ---- what became of each line ---- */

struct account {
    unsigned out[LINES_MAX];  /* times it came out of the queue */
    uint64_t end;             /* the position at open */
    uint64_t lost, dead, calls;
    uint64_t damaged_frames, torn_bytes;
};

static inline uint64_t scope_file_end(const struct queue_recovery *rec)
{
    for (size_t i = 0; i < rec->n_files; i++)
        if (rec->files[i].ident.incarnation == 1)
            return rec->files[i].position.end;
    return 0;
}

static inline void scope_count_body(struct account *a, struct slice body)
{
    unsigned n = 0;
    for (size_t i = 0; i < body.len; i++) {
        if (body.ptr[i] != ' ') {
            assert_true(body.ptr[i] >= '0' && body.ptr[i] <= '9');
            n = n * 10 + (unsigned)(body.ptr[i] - '0');
            continue;
        }
        assert_true(n > 0 && n < LINES_MAX);
        a->out[n]++;
        n = 0;
    }
}

static inline bool scope_is_refused(struct scope *s, const struct frame_head *h, struct slice body)
{
    struct scope_frame f;
    char text[16] = "";
    memcpy(text, body.ptr, MIN(body.len, sizeof(text) - 1));
    unsigned first = (unsigned)strtoul(text, NULL, 10);
    if (!(s->refused >> first & 1))
        return false;
    struct frame_orig o = { .seq = h->seq, .status = 400, .reason = SLICE("refused"), .text = SLICE("for the test") };
    struct frame_in *in = scope_frame(&f, first, first + h->lines - 1, "t");
    assert_int_equal(queue_dead_append(s->q, in, &o), 0);
    return true;
}

static inline void scope_deliver_parked(struct scope *s, struct account *a, struct buf *meta, struct buf *body)
{
    struct frame_head h;
    uint64_t iter = 0;
    while (queue_parked_next(s->q, &iter, &h) == 1) {
        int r = queue_load(s->q, &h, meta, body);
        if (r == -EBADMSG) {
            assert_int_equal(queue_park_drop(s->q, h.segment_id, LOST_DAMAGE), 0);
            continue;
        }
        assert_int_equal(r, 0);
        scope_count_body(a, buf_slice(body));
        assert_int_equal(queue_unpark(s->q, h.segment_id), 0);
    }
}

/* Everything that comes out is delivered and acknowledged. */
static inline void scope_deliver(struct scope *s, struct account *a)
{
    struct frame_head h;
    struct buf meta, body;
    buf_init(&meta, FRAME_META_MAX);
    buf_init(&body, FRAME_BODY_MAX);
    for (unsigned i = 0;; i++) {
        assert_true(i < 1000);
        int r = queue_next(s->q, &h);
        assert_true(r >= 0);
        if (r == 0)
            break;
        r = queue_load(s->q, &h, &meta, &body);
        if (r == -EBADMSG)
            continue;
        assert_int_equal(r, 0);
        if (!scope_is_refused(s, &h, buf_slice(&body)))
            scope_count_body(a, buf_slice(&body));
        assert_true(queue_ack(s->q, h.seq));
    }
    scope_deliver_parked(s, a, &meta, &body);
    assert_int_equal(queue_cursor_sync(s->q), 0);
    assert_int_equal(queue_unlink_acked(s->q), 0);
    buf_deinit(&meta);
    buf_deinit(&body);
}

static inline void scope_count_rows(const struct scope *s, struct account *a)
{
    a->lost = a->dead = 0;
    for (size_t i = 0; i < s->rec.n_rows; i++) {
        const struct recovered_row *r = &s->rec.rows[i];
        for (size_t k = 0; k < LOST_REASONS; k++)
            a->lost += r->lost[k];
        a->dead += r->dead;
        assert_int_equal(r->queued, 0); /* all was delivered */
        assert_int_equal(r->parked, 0);
        assert_true(r->accepted >= r->dead);
    }
}

#define CALLS_MAX 2000 /* of the disk, for one open of a folder this small */

/* Whatever is on the disk. lines: how many the source has. The queue is closed after. */
static inline void scope_live(struct scope *s, unsigned lines, struct account *a)
{
    *a = (struct account){ 0 };
    uint64_t calls = disk_calls(s->d);
    scope_open(s);
    a->calls = disk_calls(s->d) - calls;
    assert_true(a->calls < CALLS_MAX);
    a->end = scope_file_end(&s->rec);
    a->damaged_frames = s->rec.damaged_frames;
    a->torn_bytes = s->rec.torn_bytes;
    assert_true(s->rec.next_seq > s->rec.acked_seq);
    scope_deliver(s, a);
    unsigned first = (unsigned)(a->end / 10) + 1;
    if (first <= lines) {
        (void)scope_put(s, first, lines, "t", false, a->end, 10 * lines);
        scope_sync(s);
        scope_deliver(s, a);
    }
    scope_crash(s, LOSS_ALL, 1);
    scope_open(s);
    struct account none = { 0 };
    scope_deliver(s, &none);
    for (unsigned n = 0; n < LINES_MAX; n++)
        assert_int_equal(none.out[n], 0); /* acknowledged is acknowledged */
    if (lines > 0)
        assert_int_equal(scope_file_end(&s->rec), MAX(10 * lines, a->end));
    scope_count_rows(s, a);
    scope_close(s);
    assert_int_equal(disk_open_fds(s->d), 0);
}

#endif
