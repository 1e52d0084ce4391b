/*
 * fixture.h - a queue in a fresh folder, lines with a text that says which they are, and what came out.
 */
#ifndef TAILRACE_TESTS_QUEUE_FIXTURE_H
#define TAILRACE_TESTS_QUEUE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/queue/core.h"

struct fixture {
    char root[64];
    struct output_conf output;
    struct queue_open_conf conf;
    struct queue *q;
    struct queue_recovery rec;
    struct err err;
};

static inline bool fixture_quiet(enum log_level level, const char *target)
{
    (void)level;
    (void)target;
    return false;
}

static inline void fixture_init(struct fixture *f)
{
    *f = (struct fixture){ 0 };
    log_set_filter(fixture_quiet);
    /* In memory where that is possible: thousands of small files are made. */
    static const char shm[] = "/dev/shm/tailrace-queue-XXXXXX", tmp[] = "/tmp/tailrace-queue-XXXXXX";
    bool has_shm = access("/dev/shm", W_OK) == 0;
    memcpy(f->root, has_shm ? shm : tmp, has_shm ? sizeof(shm) : sizeof(tmp));
    assert_non_null(mkdtemp(f->root));
    f->output.name = SLICE("out");
    f->output.index = 3;
    f->output.state_dir = slice_cstr(f->root);
    f->output.queue = (struct queue_conf){ .max_bytes = 64 * MIB, .key_share_percent = 25, .dead_max_bytes = MIB };
    f->conf = (struct queue_open_conf){ .output = &f->output, .wire_form = 3, .allow_network_fs = true };
    queue_tuning = (struct queue_tuning){ 0 };
}

static inline int fixture_rm(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static inline void fixture_close(struct fixture *f)
{
    queue_close(f->q);
    f->q = NULL;
}

static inline void fixture_deinit(struct fixture *f)
{
    fixture_close(f);
    (void)nftw(f->root, fixture_rm, 16, FTW_DEPTH | FTW_PHYS);
    queue_tuning = (struct queue_tuning){ 0 };
}

/* For tests that want nothing else, as their *state. */
static inline int fixture_setup(void **state)
{
    static struct fixture f;
    fixture_init(&f);
    *state = &f;
    return 0;
}

static inline int fixture_teardown(void **state)
{
    fixture_deinit(*state);
    return 0;
}

static inline int fixture_try_open(struct fixture *f)
{
    return queue_open(&f->conf, &f->q, &f->rec, &f->err);
}

static inline void fixture_open(struct fixture *f)
{
    int r = fixture_try_open(f);
    if (r < 0)
        fail_msg("queue_open: %d %s", r, f->err.text);
}

/* As after kill -9: descriptors go, nothing is written. */
static inline void fixture_crash(struct fixture *f)
{
    struct queue *q = f->q;
    if (q->fd >= 0)
        close(q->fd);
    q->fd = -1;
    if (q->spare_fd >= 0)
        close(q->spare_fd);
    q->spare_fd = -1;
    q->must_roll = q->in_group = false;
    q->is_failed = true;
    /* Nothing to write for queue_close() either. */
    q->is_cursor_news = q->is_cursor_unsafe = q->has_losses = false;
    q->damaged.n = 0;
    q->synced_generation = q->generation;
    q->synced_acked_seq = 0;
    q->n_segs = 0;
    queue_close(q);
    f->q = NULL;
}

static inline void fixture_path(const struct fixture *f, char out[512], const char *name)
{
    snprintf(out, 512, "%s/queue/out/%s", f->root, name);
}

/* One frame of n lines whose body says its number. */
struct sample {
    char body[256];
    char tenant[16];
    struct frame_row row;
    struct frame_in in;
};

static inline struct frame_in *sample_frame(struct sample *s, unsigned number, uint32_t lines, const char *tenant)
{
    int n = snprintf(s->body, sizeof(s->body), "frame %u of %s", number, tenant);
    snprintf(s->tenant, sizeof(s->tenant), "%s", tenant);
    s->row = (struct frame_row){ SLICE("in"), slice_cstr(s->tenant), lines };
    s->in = (struct frame_in){ .route = slice_cstr(s->tenant),
                               .wire = slice_of(s->body, (size_t)n),
                               .raw_len = 100,
                               .lines = lines,
                               .rows = &s->row,
                               .n_rows = 1,
                               .built_ns = 1000 + number };
    return &s->in;
}

/* A group end: file `incarnation` from start to end. */
struct sample_end {
    struct file_ident ident;
    struct file_position pos;
    struct ledger_row ledger;
    struct group_end end;
};

static inline struct group_end *sample_end(struct sample_end *s, uint64_t incarnation, uint64_t start, uint64_t end)
{
    s->ident = (struct file_ident){ .incarnation = incarnation, .dev = 1, .ino = incarnation, .fp_len = 10,
                                    .fp_crc = 77, .path = SLICE("/var/log/app.log"), .input = SLICE("in") };
    s->pos = (struct file_position){ .incarnation = incarnation, .start = start, .end = end, .head_crc = (uint32_t)end,
                                     .tail_crc = 5, .tail_len = 8 };
    s->ledger = (struct ledger_row){ .input = SLICE("in"), .tenant = SLICE("t"), .read_lines = end, .read_bytes = end,
                                     .kept_lines = end };
    s->end = (struct group_end){ .files = &s->ident, .n_files = 1, .positions = &s->pos, .n_positions = 1,
                                 .ledger = &s->ledger, .n_ledger = 1 };
    return &s->end;
}

/* A group of one frame, of one line; file 1 advances from number - 1 to number. */
static inline int put_one(struct fixture *f, unsigned number)
{
    struct sample s;
    struct sample_end e;
    uint64_t seq;
    return queue_append(f->q, sample_frame(&s, number, 1, "t"), sample_end(&e, 1, number - 1, number), &seq);
}

static inline void put_synced(struct fixture *f, unsigned first, unsigned last)
{
    for (unsigned i = first; i <= last; i++)
        assert_int_equal(put_one(f, i), 0);
    assert_int_equal(queue_sync(f->q), 0);
}

/* Takes the next frame: its number, 0 when there is none. */
static inline unsigned take_one(struct fixture *f, struct frame_head *head)
{
    struct buf meta, body;
    buf_init(&meta, FRAME_META_MAX);
    buf_init(&body, FRAME_BODY_MAX);
    unsigned number = 0;
    for (;;) {
        int r = queue_next(f->q, head);
        assert_true(r >= 0);
        if (r == 0)
            break;
        r = queue_load(f->q, head, &meta, &body);
        if (r == -EBADMSG)
            continue;
        assert_int_equal(r, 0);
        struct frame_row rows[8];
        struct frame_meta m;
        assert_int_equal(frame_meta_parse(buf_slice(&meta), rows, 8, &m), 0);
        assert_int_equal(buf_terminate(&body), 0);
        assert_int_equal(sscanf(body.ptr, "frame %u", &number), 1);
        assert_true(m.n_rows >= 1);
        assert_int_equal(head->lines, rows[0].lines);
        break;
    }
    buf_deinit(&meta);
    buf_deinit(&body);
    return number;
}

/* Takes and acknowledges first..last, which must be all there is. */
static inline void drain(struct fixture *f, unsigned first, unsigned last)
{
    struct frame_head h;
    for (unsigned i = first; i <= last; i++) {
        assert_int_equal(take_one(f, &h), i);
        assert_true(queue_ack(f->q, h.seq));
    }
    queue_cursor_write(f->q);
    assert_int_equal(take_one(f, &h), 0);
}

/* Takes and acknowledges whatever is there: how many. */
static inline unsigned take_all(struct fixture *f)
{
    struct frame_head h;
    unsigned n = 0;
    for (; take_one(f, &h) != 0; n++)
        assert_true(queue_ack(f->q, h.seq));
    assert_int_equal(queue_cursor_sync(f->q), 0);
    return n;
}

static inline uint64_t file_end(const struct queue_recovery *rec, uint64_t incarnation)
{
    for (size_t i = 0; i < rec->n_files; i++)
        if (rec->files[i].ident.incarnation == incarnation)
            return rec->files[i].position.end;
    return 0;
}

static inline struct recovered_row rec_row(const struct queue_recovery *rec, const char *tenant)
{
    for (size_t i = 0; i < rec->n_rows; i++)
        if (slice_eq(rec->rows[i].tenant, slice_cstr(tenant)))
            return rec->rows[i];
    return (struct recovered_row){ .tenant = SLICE("") };
}

static inline unsigned count_files(const struct fixture *f, const char *sub, const char *suffix)
{
    char path[512];
    fixture_path(f, path, sub);
    DIR *d = opendir(path);
    assert_non_null(d);
    unsigned n = 0;
    for (const struct dirent *e; (e = readdir(d)) != NULL;)
        n += e->d_name[0] != '.' && slice_ends(slice_cstr(e->d_name), slice_cstr(suffix));
    closedir(d);
    return n;
}

#endif
