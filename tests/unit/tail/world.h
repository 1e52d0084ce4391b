/*
 * world.h - a folder on the real disk, a tail over it, a sink that records lines, and queues that keep
 * positions.
 *
 * Lines reach an output's `open` group first; world_commit makes them durable with the positions that
 * tail_collect gave. world_crash throws open lines away and begins again from what is durable, as a restart
 * does. The queues check the chain: a position begins where the last one ended, and its file was told before.
 *
 * A line "1P…" or "1F…" (2P, 2F) is a part or the end of a record of stream 1 (2); all others are whole
 * records.
 */
#ifndef TAILRACE_TESTS_TAIL_WORLD_H
#define TAILRACE_TESTS_TAIL_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the above first */
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/tail/internal.h"

#define W_OUTPUTS 3
#define W_INPUTS 4
#define W_GLOBS 8

struct w_lines {
    char **item;
    size_t n, cap;
};

struct w_queue {
    struct recovered_file *files;
    size_t n, cap;
    struct recovered_mark marks[256]; /* the first ones */
    size_t n_marks;
    struct w_lines open, durable;
    bool is_new;
    bool refuses; /* blocks at the next line */
    uint64_t n_groups;
    uint64_t lost_bytes;
};

struct world {
    char dir[64];
    struct conf conf;
    struct conf_input inputs[W_INPUTS];
    struct slice include[W_INPUTS][W_GLOBS], exclude[W_INPUTS][W_GLOBS];
    struct output_conf outputs[W_OUTPUTS];
    struct conf kept; /* world_keep_names() */
    struct output_conf kept_outputs[W_OUTPUTS];
    size_t n_outputs;
    struct tail *t;
    struct w_queue q[W_OUTPUTS];
    size_t n_files_new, n_files_free;
    size_t feed_max; /* longest feed */
    size_t max_new;  /* of tail_collect(); 0 = all */
    size_t n_cut;
    bool lends;      /* the next file has what is unfinished, and has not ended it */
    char last_captures[256];
    char last_path[512];
    int log_fd;
};

struct w_file {
    struct world *w;
};

/* Unfinished records of a pass. */
struct w_state {
    bool is_open[STREAMS_MAX];
    uint64_t start[STREAMS_MAX];
    struct buf text[STREAMS_MAX];
};

static int64_t w_now = 1000 * NS_PER_SEC;
static inline int64_t w_mono(void)
{
    return w_now;
}

/* For clock_set_source(): the time of day, put back by so much. Each world begins with 0. */
static int64_t w_wall_back_ns;
static inline int64_t w_wall(void)
{
    return w_now - w_wall_back_ns;
}

/* ---- lines ---- */

static inline void w_lines_add(struct w_lines *l, const char *ptr, size_t len)
{
    if (l->n == l->cap) {
        l->cap = MAX(l->cap * 2, (size_t)64);
        l->item = realloc(l->item, l->cap * sizeof(*l->item));
        assert_non_null(l->item);
    }
    char *s = malloc(len + 1);
    assert_non_null(s);
    memcpy(s, ptr, len);
    s[len] = '\0';
    l->item[l->n++] = s;
}

static inline void w_lines_clear(struct w_lines *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->item[i]);
    l->n = 0;
}

/* ---- the sink ---- */

static inline void *w_file_new(void *ctx, struct tail_file *f, const struct tail_file_info *info)
{
    struct world *w = ctx;
    struct w_file *wf = malloc(sizeof(*wf));
    (void)f;
    assert_non_null(wf);
    wf->w = w;
    w->n_files_new++;
    size_t at = 0;
    w->last_captures[0] = '\0';
    for (size_t i = 0; i < info->captures.n; i++)
        at += (size_t)snprintf(w->last_captures + at, sizeof(w->last_captures) - at, "%.*s=%.*s ",
                               SLICE_ARGS(info->captures.items[i].name),
                               SLICE_ARGS(info->captures.items[i].value));
    (void)snprintf(w->last_path, sizeof(w->last_path), "%.*s", SLICE_ARGS(info->ident->path));
    return wf;
}

static inline void w_file_free(void *ctx, void *file)
{
    struct world *w = ctx;
    w->n_files_free++;
    free(file);
}

static inline struct w_state *w_state_of(struct tail_pass *pass)
{
    if (pass->state == NULL) {
        struct w_state *s = calloc(1, sizeof(*s));
        assert_non_null(s);
        for (int i = 0; i < STREAMS_MAX; i++)
            buf_init(&s->text[i], 4 * MIB);
        pass->state = s;
    }
    return pass->state;
}

static inline uint8_t w_parts_of(const struct tail_pass *pass, struct position_part *parts)
{
    const struct w_state *s = pass->state;
    uint8_t n = 0;
    for (uint8_t i = 0; s != NULL && i < STREAMS_MAX; i++)
        if (s->is_open[i])
            parts[n++] = (struct position_part){ i, s->start[i] };
    return n;
}

static inline uint8_t w_parts(void *ctx, const struct tail_pass *pass, struct position_part *parts)
{
    (void)ctx;
    return w_parts_of(pass, parts);
}

static inline void w_pass_free(void *ctx, struct tail_pass *pass)
{
    struct w_state *s = pass->state;
    (void)ctx;
    if (s == NULL)
        return;
    for (int i = 0; i < STREAMS_MAX; i++)
        buf_deinit(&s->text[i]);
    free(s);
    pass->state = NULL;
}

/* A whole record for all outputs of the pass; those that refuse leave it, at this place. */
static inline void w_record(struct world *w, struct tail_file *f, struct tail_pass *pass, const char *ptr,
                            size_t len, uint64_t line_off, uint8_t stream)
{
    for (uint32_t o = 0; o < w->n_outputs; o++) {
        struct w_queue *q = &w->q[o];
        if (!(pass->mask & (1u << o)))
            continue;
        if (!q->refuses) {
            w_lines_add(&q->open, ptr, len);
            continue;
        }
        /* Its record is unfinished still: of a record of parts, the first is where it goes on. */
        struct position_part parts[STREAMS_MAX];
        uint8_t n = w_parts_of(pass, parts);
        (void)stream;
        tail_block(f, pass, o, line_off, parts, n);
    }
}

static inline void w_line(struct world *w, struct tail_file *f, struct tail_pass *pass, const char *ptr,
                          size_t len, uint64_t off)
{
    uint8_t stream = len >= 2 && (ptr[0] == '1' || ptr[0] == '2') && (ptr[1] == 'P' || ptr[1] == 'F')
                         ? (uint8_t)(ptr[0] - '0')
                         : 0;
    if (off < pass->resume_until) {
        bool is_wanted = false;
        for (uint8_t i = 0; i < pass->n_parts; i++)
            is_wanted = is_wanted || (pass->parts[i].stream == stream && off >= pass->parts[i].start);
        if (!is_wanted)
            return;
    }
    if (stream == 0) {
        w_record(w, f, pass, ptr, len, off, 0);
        return;
    }
    struct w_state *s = w_state_of(pass);
    if (ptr[1] == 'P') {
        if (!s->is_open[stream]) {
            s->is_open[stream] = true;
            s->start[stream] = off;
            buf_reset(&s->text[stream]);
        }
        assert_int_equal(0, buf_append(&s->text[stream], ptr + 2, len - 2));
        return;
    }
    struct buf whole;
    buf_init(&whole, 4 * MIB);
    if (s->is_open[stream])
        assert_int_equal(0, buf_append_slice(&whole, buf_slice(&s->text[stream])));
    assert_int_equal(0, buf_append(&whole, ptr + 2, len - 2));
    assert_int_equal(0, buf_reserve(&whole, 1));
    w_record(w, f, pass, whole.ptr, whole.len, off, stream);
    buf_deinit(&whole);
    s->is_open[stream] = false;
}

static inline void w_flush(struct world *w, struct tail_file *f, struct tail_pass *pass, uint64_t off)
{
    struct w_state *s = pass->state;
    for (uint8_t i = 0; s != NULL && i < STREAMS_MAX; i++) {
        if (!s->is_open[i])
            continue;
        w_record(w, f, pass, s->text[i].ptr, s->text[i].len, off, i);
        s->is_open[i] = false;
    }
}

static inline struct tail_file *w_tail_file(struct tail_pass *pass)
{
    return pass_of(pass)->file;
}

static inline size_t w_feed(void *ctx, void *file, struct tail_pass *pass, const struct feed *feed)
{
    struct world *w = ctx;
    struct tail_file *f = w_tail_file(pass);
    size_t at = 0;
    assert_non_null(file);
    assert_int_equal(feed->off, pass->off);
    w->feed_max = MAX(w->feed_max, feed->bytes.len);
    while (at < feed->bytes.len && pass->mask != 0) {
        const char *start = feed->bytes.ptr + at;
        const char *nl = memchr(start, '\n', feed->bytes.len - at);
        size_t left = feed->bytes.len - at, len = nl != NULL ? (size_t)(nl - start) : left;
        if (pass->skip_to_newline) {
            at += nl != NULL ? len + 1 : left;
            pass->skip_to_newline = nl == NULL;
            continue;
        }
        if (nl == NULL && !feed->is_last) {
            if (at == 0 && feed->is_full) {
                w_line(w, f, pass, start, LINE_BYTES_MAX, feed->off);
                w->n_cut++;
                at = LINE_BYTES_MAX;
                pass->skip_to_newline = true;
                continue;
            }
            break;
        }
        w_line(w, f, pass, start, len, feed->off + at);
        at += nl != NULL ? len + 1 : left;
    }
    if (feed->is_last && pass->mask != 0 && !w->lends)
        w_flush(w, f, pass, feed->off + at);
    return at;
}

static inline void w_lost(void *ctx, void *file, uint32_t mask, uint64_t start, uint64_t end,
                          enum lost_reason reason)
{
    struct world *w = ctx;
    (void)file;
    (void)reason;
    assert_true(start < end);
    for (size_t o = 0; o < w->n_outputs; o++)
        if (mask & (1u << o))
            w->q[o].lost_bytes += end - start;
}

/* ---- the queues ---- */

static inline struct slice w_dup(struct slice s)
{
    char *p = slice_dup(s);
    assert_non_null(p);
    return slice_of(p, s.len);
}

static inline struct recovered_file *w_find(struct w_queue *q, uint64_t incarnation)
{
    for (size_t i = 0; i < q->n; i++)
        if (q->files[i].ident.incarnation == incarnation)
            return &q->files[i];
    return NULL;
}

static inline void w_drop(struct w_queue *q, struct recovered_file *rf)
{
    free((void *)(uintptr_t)rf->ident.path.ptr);
    free((void *)(uintptr_t)rf->ident.input.ptr);
    q->n--; /* the others keep their order, as in a queue */
    memmove(rf, rf + 1, (size_t)(&q->files[q->n] - rf) * sizeof(*rf));
}

/* One more, all zero. */
static inline struct recovered_file *w_add(struct w_queue *q)
{
    if (q->n == q->cap) {
        q->cap = MAX(q->cap * 2, (size_t)16);
        q->files = realloc(q->files, q->cap * sizeof(*q->files));
        assert_non_null(q->files);
    }
    struct recovered_file *rf = &q->files[q->n++];
    *rf = (struct recovered_file){ 0 };
    return rf;
}

static inline void w_apply(struct w_queue *q, const struct group_end *end)
{
    for (size_t i = 0; i < end->n_files; i++) {
        struct recovered_file *rf = w_find(q, end->files[i].incarnation);
        if (rf == NULL) {
            rf = w_add(q);
            rf->position.end = UINT64_MAX;
        }
        free((void *)(uintptr_t)rf->ident.path.ptr);
        free((void *)(uintptr_t)rf->ident.input.ptr);
        rf->ident = end->files[i];
        rf->ident.path = w_dup(end->files[i].path);
        rf->ident.input = w_dup(end->files[i].input);
    }
    for (size_t i = 0; i < end->n_positions; i++) {
        const struct file_position *pos = &end->positions[i];
        struct recovered_file *rf = w_find(q, pos->incarnation);
        assert_non_null(rf);
        if (rf->position.end != UINT64_MAX)
            assert_int_equal(rf->position.end, pos->start);
        assert_true(pos->start <= pos->end);
        rf->position = *pos;
        rf->position.start = pos->end;
        if (pos->flags == 0 && pos->n_parts == 0 && pos->end > 0 && q->n_marks < ARRAY_LEN(q->marks))
            q->marks[q->n_marks++] = (struct recovered_mark){ pos->incarnation, pos->end, pos->head_crc };
    }
    for (size_t i = 0; i < end->n_gone; i++) {
        struct recovered_file *rf = w_find(q, end->gone[i]);
        if (rf != NULL)
            w_drop(q, rf);
    }
}

/* Closes the group of an output and makes it durable. */
static inline bool world_commit(struct world *w, uint32_t o)
{
    struct group_end end = { 0 };
    struct w_queue *q = &w->q[o];
    if (!tail_collect(w->t, o, w->max_new == 0 ? SIZE_MAX : w->max_new, &end)) {
        assert_int_equal(0, q->open.n);
        return false;
    }
    q->n_groups++;
    w_apply(q, &end);
    for (size_t i = 0; i < q->open.n; i++) {
        w_lines_add(&q->durable, q->open.item[i], strlen(q->open.item[i]));
    }
    w_lines_clear(&q->open);
    tail_durable(w->t, o, q->n_groups);
    return true;
}

static inline void world_commit_all(struct world *w)
{
    for (uint32_t o = 0; o < w->n_outputs; o++)
        (void)world_commit(w, o);
}

/* ---- the world ---- */

static inline void w_glob(struct world *w, struct slice *list, struct slices *s, const char *tail_of)
{
    char text[512];
    (void)snprintf(text, sizeof(text), "%s/%s", w->dir, tail_of);
    assert_true(s->n < W_GLOBS);
    list[s->n] = w_dup(slice_cstr(text));
    s->items = list;
    s->n++;
}

static inline void world_include(struct world *w, size_t input, const char *glob)
{
    w_glob(w, w->include[input], &w->inputs[input].include, glob);
}

static inline void world_exclude(struct world *w, size_t input, const char *glob)
{
    w_glob(w, w->exclude[input], &w->inputs[input].exclude, glob);
}

static inline bool w_log_all(enum log_level level, const char *target)
{
    (void)level;
    (void)target;
    return true;
}

/* The first n of them are configured from the next start on. */
static inline void world_use_outputs(struct world *w, size_t n)
{
    w->n_outputs = w->conf.n_outputs = n;
}

/* Before outputs get other names: the tail that runs knows its own by those that they had. */
static inline void world_keep_names(struct world *w)
{
    w->kept = w->conf;
    memcpy(w->kept_outputs, w->outputs, sizeof(w->outputs));
    w->kept.outputs = w->kept_outputs;
    if (w->t != NULL)
        w->t->conf = &w->kept;
}

/* The second is the first now, with its queue, and n are configured. */
static inline void world_swap_outputs(struct world *w, size_t n)
{
    world_keep_names(w);
    struct w_queue q = w->q[0];
    struct output_conf out = w->outputs[0];
    w->q[0] = w->q[1];
    w->q[1] = q;
    w->outputs[0] = w->outputs[1];
    w->outputs[1] = out;
    world_use_outputs(w, n);
}

static inline struct world *world_new(size_t n_outputs)
{
    struct world *w = calloc(1, sizeof(*w));
    assert_non_null(w);
    clock_set_source(w_mono, NULL);
    w_wall_back_ns = 0;
    memcpy(w->dir, "/tmp/tailrace-tail-XXXXXX", sizeof("/tmp/tailrace-tail-XXXXXX"));
    assert_non_null(mkdtemp(w->dir));
    world_use_outputs(w, n_outputs);
    w->conf.inputs = w->inputs;
    w->conf.n_inputs = 1;
    w->conf.outputs = w->outputs;
    w->conf.held_max_bytes = UINT64_MAX;
    w->inputs[0].name = SLICE("logs");
    w->inputs[1].name = SLICE("second");
    w->outputs[0].name = SLICE("a");
    w->outputs[1].name = SLICE("b");
    w->outputs[2].name = SLICE("c");
    for (size_t i = 0; i < W_OUTPUTS; i++)
        w->q[i].is_new = true;
    w->log_fd = memfd_create("log", MFD_CLOEXEC);
    log_set_fd(getenv("TAILRACE_TRACE") != NULL ? 2 : w->log_fd);
    return w;
}

/* What tail_open() says. */
static inline int world_try_start(struct world *w, struct err *err)
{
    struct queue_recovery rec[W_OUTPUTS];
    const struct queue_recovery *recp[W_OUTPUTS];
    for (size_t o = 0; o < w->n_outputs; o++) {
        rec[o] =
            (struct queue_recovery){ .is_new = w->q[o].is_new, .files = w->q[o].files, .n_files = w->q[o].n,
                                      .marks = w->q[o].marks, .n_marks = w->q[o].n_marks };
        recp[o] = &rec[o];
        w->q[o].refuses = false;
        w->q[o].n_groups = 0;
    }
    struct tail_sink sink = { .ctx = w, .file_new = w_file_new, .file_free = w_file_free, .feed = w_feed, .parts = w_parts,
                              .pass_free = w_pass_free, .lost = w_lost };
    struct tail_conf tc = { &w->conf, (1u << w->n_outputs) - 1, 42 };
    int r = tail_open(&tc, &sink, recp, w->n_outputs, &w->t, err);
    for (size_t o = 0; r == 0 && o < w->n_outputs; o++)
        w->q[o].is_new = false;
    return r;
}

static inline void world_start(struct world *w)
{
    struct err err = { 0 };
    if (world_try_start(w, &err) < 0)
        fail_msg("%s", err.text);
}

static inline void world_stop(struct world *w)
{
    tail_close(w->t);
    w->t = NULL;
    assert_int_equal(w->n_files_new, w->n_files_free); /* a reload moves none from tail to tail */
    for (size_t o = 0; o < w->n_outputs; o++)
        w_lines_clear(&w->q[o].open);
}

static inline void world_crash(struct world *w)
{
    world_stop(w);
    world_start(w);
}

static inline int w_rm(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static inline void world_free(struct world *w)
{
    tail_close(w->t);
    for (size_t o = 0; o < W_OUTPUTS; o++) {
        while (w->q[o].n > 0)
            w_drop(&w->q[o], &w->q[o].files[0]);
        free(w->q[o].files);
        w_lines_clear(&w->q[o].open);
        w_lines_clear(&w->q[o].durable);
        free(w->q[o].open.item);
        free(w->q[o].durable.item);
    }
    for (size_t i = 0; i < W_INPUTS; i++) {
        for (size_t k = 0; k < w->inputs[i].include.n; k++)
            free((void *)(uintptr_t)w->include[i][k].ptr);
        for (size_t k = 0; k < w->inputs[i].exclude.n; k++)
            free((void *)(uintptr_t)w->exclude[i][k].ptr);
    }
    (void)nftw(w->dir, w_rm, 16, FTW_DEPTH | FTW_PHYS);
    log_set_fd(2);
    (void)close(w->log_fd);
    clock_set_source(NULL, NULL);
    free(w);
}

/* Events, turns and the tick, until nothing more happens. */
static inline void world_run(struct world *w)
{
    for (int i = 0; i < 100000; i++) {
        tail_on_events(w->t);
        bool more = tail_turn(w->t, w_now);
        (void)tail_tick(w->t, w_now);
        if (!more && i > 2)
            return;
    }
    struct buf out;
    buf_init(&out, MIB);
    if (tail_status(w->t, &out) == 0)
        fail_msg("the tail never comes to rest: %.*s", (int)out.len, out.ptr);
}

/* A second tail takes over from the first, and has not looked yet. What is not committed is thrown away, as the engine's stop
 * would have committed it. */
static inline void world_hand_over(struct world *w)
{
    struct tail *old = w->t;
    for (size_t o = 0; o < W_OUTPUTS; o++)
        w_lines_clear(&w->q[o].open);
    world_start(w);
    tail_adopt(w->t, old);
    tail_close(old);
}

static inline void world_reload(struct world *w)
{
    world_hand_over(w);
    world_run(w);
}

/* Time passes; every second is looked at. */
static inline void world_pass(struct world *w, int seconds)
{
    for (int i = 0; i < seconds; i++) {
        w_now += NS_PER_SEC;
        world_run(w);
    }
}

/* The same, and then everything is durable. */
static inline void world_settle(struct world *w, int seconds)
{
    world_pass(w, seconds);
    world_commit_all(w);
}

static inline const char *w_path(const struct world *w, const char *name)
{
    static char path[8][1024];
    static unsigned at;
    char *p = path[at++ % 8];
    (void)snprintf(p, 1024, "%s/%s", w->dir, name);
    return p;
}

static inline void w_write(const struct world *w, const char *name, const char *text, int flags)
{
    int fd = open(w_path(w, name), O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0644);
    assert_true(fd >= 0);
    assert_int_equal(strlen(text), write(fd, text, strlen(text)));
    close(fd);
}

static inline void w_append(const struct world *w, const char *name, const char *text)
{
    w_write(w, name, text, O_APPEND);
}

static inline void w_rename(const struct world *w, const char *from, const char *to)
{
    assert_int_equal(0, rename(w_path(w, from), w_path(w, to)));
}

static inline void w_unlink(const struct world *w, const char *name)
{
    assert_int_equal(0, unlink(w_path(w, name)));
}

static inline void w_mkdir(const struct world *w, const char *name)
{
    assert_int_equal(0, mkdir(w_path(w, name), 0755));
}

static inline void w_copy(const struct world *w, const char *from, const char *to)
{
    char raw[65536];
    int in = open(w_path(w, from), O_RDONLY | O_CLOEXEC);
    int out = open(w_path(w, to), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(in >= 0 && out >= 0);
    for (ssize_t n; (n = read(in, raw, sizeof(raw))) > 0;)
        assert_int_equal(n, write(out, raw, (size_t)n));
    close(in);
    close(out);
}

/* As gzip does: NAME to NAME.gz with the same mtime, NAME removed. */
static inline void w_gzip(const struct world *w, const char *name)
{
    char raw[65536], to[1024];
    struct stat st;
    (void)snprintf(to, sizeof(to), "%s.gz", w_path(w, name));
    int in = open(w_path(w, name), O_RDONLY | O_CLOEXEC);
    gzFile out = gzopen(to, "wb");
    assert_true(in >= 0 && out != NULL);
    assert_int_equal(0, fstat(in, &st));
    for (ssize_t n; (n = read(in, raw, sizeof(raw))) > 0;)
        assert_int_equal(n, gzwrite(out, raw, (unsigned)n));
    close(in);
    assert_int_equal(Z_OK, gzclose(out));
    struct timespec times[2] = { st.st_atim, st.st_mtim };
    assert_int_equal(0, utimensat(AT_FDCWD, to, times, 0));
    w_unlink(w, name);
}

/* Durable and open lines of an output are these, in this order: "a|b|c". */
static inline void expect_lines_at(struct world *w, uint32_t o, const char *want, const char *file, int line)
{
    struct buf got;
    buf_init(&got, 64 * MIB);
    for (size_t k = 0; k < 2; k++) {
        const struct w_lines *l = k == 0 ? &w->q[o].durable : &w->q[o].open;
        for (size_t i = 0; i < l->n; i++) {
            if (got.len > 0)
                assert_int_equal(0, buf_append_byte(&got, '|'));
            assert_int_equal(0, buf_append_cstr(&got, l->item[i]));
        }
    }
    assert_int_equal(0, buf_terminate(&got));
    if (strcmp(got.len == 0 ? "" : got.ptr, want) != 0) {
        char log[8192] = "";
        ssize_t n = pread(w->log_fd, log, sizeof(log) - 1, 0);
        (void)n;
        fail_msg("%s:%d: output %u has\n  %s\nnot\n  %s\nlog:\n%s", file, line, o,
                 got.len == 0 ? "" : got.ptr, want, log);
    }
    buf_deinit(&got);
}
#define expect_lines(w, o, want) expect_lines_at((w), (o), (want), __FILE__, __LINE__)

static inline bool log_has(const struct world *w, const char *event)
{
    char log[65536];
    ssize_t n = pread(w->log_fd, log, sizeof(log) - 1, 0);
    if (n < 0)
        return false;
    log[n] = '\0';
    return strstr(log, event) != NULL;
}

#endif
