/*
 * rig.h - the reader's side without threads: the real tail and pipeline over a folder, outputs that only record what they
 * get, and model queues that keep positions and ledger rows of what was committed.
 *
 * Records reach an output's `open` list; rig_commit makes them durable with the positions and rows that belong to them.
 * rig_crash throws open ones away and begins again from what is durable; rig_fence does so for one output, as a failed
 * sync does. Time is rig_now.
 */
#ifndef TAILRACE_TESTS_AGENT_RIG_H
#define TAILRACE_TESTS_AGENT_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the above first */
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/tenants.h"
#include "agent/pipeline.h"

#define RIG_OUTPUTS 2

enum rig_stop { STOP_NOT, STOP_BEFORE, STOP_AFTER }; /* at the next record: it is not in, or it is */

struct rig_record {
    char *text;
    uint64_t offset;
    uint32_t flags, tenant_id;
    enum record_stream stream;
};

struct rig_records {
    struct rig_record *item;
    size_t n, cap;
};

struct rig_output { /* begins with what every output begins with */
    struct output base;
    struct rig *rig;
    enum rig_stop stop;
    unsigned countdown; /* records before the stop */
    bool is_filtering;
    uint32_t alters;
    struct rig_records open, durable;
    struct recovered_file *files; /* durable */
    size_t n_files;
    struct ledger_row *ledger;
    size_t n_ledger;
    uint64_t n_groups, lost_bytes;
    bool is_old;
};

struct rig {
    char dir[64];
    char *yaml; /* of the inputs, routes and so on; "%s" in it stands for the folder */
    struct conf *conf;
    struct rig_output out[RIG_OUTPUTS];
    struct feeder feeders[RIG_OUTPUTS];
    struct tallies *tallies;
    struct pipeline *pipeline;
    struct tail *tail;
    int log_fd;
};

static int64_t rig_now = 1000 * NS_PER_SEC;

static inline int64_t rig_mono(void)
{
    return rig_now;
}

/* ---- the outputs ---- */

static inline void records_add(struct rig_records *l, const struct record *rec)
{
    if (l->n == l->cap) {
        l->cap = MAX(l->cap * 2, (size_t)64);
        l->item = realloc(l->item, l->cap * sizeof(*l->item));
        assert_non_null(l->item);
    }
    char *text = slice_dup(rec->line);
    assert_non_null(text);
    l->item[l->n++] = (struct rig_record){ text, rec->offset, rec->flags, rec->tenant_id, rec->stream };
}

static inline void records_clear(struct rig_records *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->item[i].text);
    free(l->item);
    *l = (struct rig_records){ 0 };
}

static int rig_append(struct output *base, const struct record *rec, struct append_result *ret)
{
    struct rig_output *o = (struct rig_output *)(void *)base;
    struct feeder *f = &o->rig->feeders[base->conf->index];
    assert_false(f->is_blocked);
    bool stops = o->stop != STOP_NOT && o->countdown-- == 0;
    if (stops && o->stop == STOP_BEFORE) {
        o->stop = STOP_NOT;
        return -ENOMEM;
    }
    ret->altered = o->alters;
    ret->is_filtered = o->is_filtering;
    if (!o->is_filtering)
        records_add(&o->open, rec);
    if (stops) {
        o->stop = STOP_NOT;
        f->is_blocked = true; /* as when the writer takes no more bodies */
    }
    return 0;
}

static const struct output_ops rig_ops = { .append = rig_append };
static const struct output_type rig_types[] = { { .name = "rig" }, { .name = NULL } };

/* ---- the model queues ---- */

static inline struct slice rig_dup(struct slice s)
{
    char *p = slice_dup(s);
    assert_non_null(p);
    return slice_of(p, s.len);
}

static inline struct recovered_file *rig_file(struct rig_output *o, uint64_t incarnation)
{
    for (size_t i = 0; i < o->n_files; i++)
        if (o->files[i].ident.incarnation == incarnation)
            return &o->files[i];
    o->files = realloc(o->files, (o->n_files + 1) * sizeof(*o->files));
    assert_non_null(o->files);
    o->files[o->n_files] = (struct recovered_file){ .ident.incarnation = incarnation, .position.end = UINT64_MAX };
    return &o->files[o->n_files++];
}

static inline void rig_file_drop(struct recovered_file *f)
{
    free((void *)(uintptr_t)f->ident.path.ptr);
    free((void *)(uintptr_t)f->ident.input.ptr);
}

static inline void rig_apply(struct rig_output *o, const struct group_end *end)
{
    for (size_t i = 0; i < end->n_files; i++) {
        struct recovered_file *f = rig_file(o, end->files[i].incarnation);
        rig_file_drop(f);
        f->ident = end->files[i];
        f->ident.path = rig_dup(end->files[i].path);
        f->ident.input = rig_dup(end->files[i].input);
    }
    for (size_t i = 0; i < end->n_positions; i++) {
        struct recovered_file *f = rig_file(o, end->positions[i].incarnation);
        assert_true(f->ident.path.len > 0);
        if (f->position.end != UINT64_MAX)
            assert_int_equal(f->position.end, end->positions[i].start); /* the chain */
        f->position = end->positions[i];
        f->position.start = f->position.end;
    }
    for (size_t i = 0; i < end->n_gone; i++) {
        struct recovered_file *f = rig_file(o, end->gone[i]);
        rig_file_drop(f);
        *f = o->files[--o->n_files];
    }
}

static inline void rig_apply_ledger(struct rig_output *o, const struct ledger_row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t k = 0;
        while (k < o->n_ledger && !(slice_eq(o->ledger[k].tenant, rows[i].tenant) &&
                                    slice_eq(o->ledger[k].input, rows[i].input)))
            k++;
        if (k == o->n_ledger) {
            o->ledger = realloc(o->ledger, (k + 1) * sizeof(*o->ledger));
            assert_non_null(o->ledger);
            o->ledger[o->n_ledger++] = (struct ledger_row){ .input = rig_dup(rows[i].input),
                                                            .tenant = rig_dup(rows[i].tenant) };
        }
        struct slice input = o->ledger[k].input, tenant = o->ledger[k].tenant;
        o->ledger[k] = rows[i];
        o->ledger[k].input = input;
        o->ledger[k].tenant = tenant;
    }
}

static inline void rig_commit(struct rig *g, uint32_t index)
{
    struct rig_output *o = &g->out[index];
    struct group_end end = { 0 };
    static const struct ledger_row *rows; /* static: gcc takes the way back through a failed assertion for a use of it */
    static size_t n;
    assert_int_equal(tallies_collect(g->tallies, index, &rows, &n), 0);
    if (!tail_collect(g->tail, index, SIZE_MAX, &end)) {
        assert_int_equal(o->open.n, 0);
        assert_int_equal(n, 0);
        return;
    }
    rig_apply(o, &end);
    rig_apply_ledger(o, rows, n);
    for (size_t i = 0; i < o->open.n; i++) {
        struct rig_record *r = &o->open.item[i];
        struct record rec = { .line = slice_cstr(r->text), .offset = r->offset, .flags = r->flags,
                              .tenant_id = r->tenant_id, .stream = r->stream };
        records_add(&o->durable, &rec);
    }
    records_clear(&o->open);
    tail_durable(g->tail, index, ++o->n_groups);
}

static inline void rig_unblock(struct rig *g, uint32_t index)
{
    g->feeders[index].is_blocked = false;
    g->feeders[index].retry_at_ns = 0;
    tail_unblock(g->tail, index);
}

static inline void rig_fence(struct rig *g, uint32_t index)
{
    struct rig_output *o = &g->out[index];
    records_clear(&o->open);
    o->stop = STOP_NOT;
    feeder_on_fence(&g->feeders[index], g->feeders[index].epoch + 1);
    assert_int_equal(tallies_fence(g->tallies, index, o->ledger, o->n_ledger), 0);
    tail_fence(g->tail, index, o->files, o->n_files);
    tail_unblock(g->tail, index);
}

/* ---- life ---- */

static inline const char *rig_path(const struct rig *g, const char *name)
{
    static char path[4][512];
    static unsigned at;
    char *p = path[at++ % 4];
    (void)snprintf(p, 512, "%s/%s", g->dir, name);
    return p;
}

static inline struct conf *rig_conf(const struct rig *g)
{
    struct buf text, errors;
    struct conf *conf;
    buf_init(&text, MIB);
    buf_init(&errors, MIB);
    const char *at = g->yaml, *mark;
    for (; (mark = strstr(at, "%s")) != NULL; at = mark + 2)
        assert_int_equal(buf_append_slice(&text, slice_of(at, (size_t)(mark - at))) | buf_append_cstr(&text, g->dir), 0);
    assert_int_equal(buf_append_cstr(&text, at), 0);
    assert_int_equal(buf_printf(&text, "\nstate_dir: %s/state\noutputs: { a: { type: rig }, b: { type: rig } }\n", g->dir),
                     0);
    if (conf_load_text("rig", buf_slice(&text), rig_types, &conf, &errors) < 0)
        fail_msg("%.*s", SLICE_ARGS(buf_slice(&errors)));
    buf_deinit(&text);
    buf_deinit(&errors);
    return conf;
}

static inline void rig_start(struct rig *g)
{
    struct queue_recovery rec[RIG_OUTPUTS];
    const struct queue_recovery *recovered[RIG_OUTPUTS];
    struct err err = { 0 };
    size_t ref = 0;
    uint64_t most = 0;
    stats_forget_rows();
    g->tallies = tallies_new(g->conf);
    assert_non_null(g->tallies);
    for (size_t i = 0; i < RIG_OUTPUTS; i++) {
        struct rig_output *o = &g->out[i];
        o->base = (struct output){ .ops = &rig_ops, .conf = &g->conf->outputs[i] };
        o->rig = g;
        o->stop = STOP_NOT;
        o->n_groups = 0;
        rec[i] = (struct queue_recovery){ .is_new = !o->is_old, .files = o->files, .n_files = o->n_files,
                                          .ledger = o->ledger, .n_ledger = o->n_ledger };
        recovered[i] = &rec[i];
        o->is_old = true;
        feeder_init(&g->feeders[i], &o->base, NULL, g->tallies, rig_now);
        uint64_t lines = 0;
        for (size_t k = 0; k < o->n_ledger; k++)
            lines += o->ledger[k].read_lines;
        if (lines > most) {
            most = lines;
            ref = i;
        }
    }
    for (uint32_t i = 0; i < RIG_OUTPUTS; i++)
        assert_int_equal(tallies_restore(g->tallies, i, g->out[i].ledger, g->out[i].n_ledger, i == ref), 0);
    struct pipeline_conf pc = { g->conf, NULL, g->feeders, RIG_OUTPUTS, g->tallies, recovered, (uint32_t)ref };
    if (pipeline_new(&pc, &g->pipeline, &err) < 0)
        fail_msg("%s", err.text);
    struct tail_sink sink = pipeline_sink(g->pipeline);
    struct tail_conf tc = { g->conf, (1u << RIG_OUTPUTS) - 1, 42 };
    if (tail_open(&tc, &sink, recovered, RIG_OUTPUTS, &g->tail, &err) < 0)
        fail_msg("%s", err.text);
}

static inline void rig_stop(struct rig *g)
{
    tail_close(g->tail);
    g->tail = NULL;
    pipeline_free(g->pipeline);
    g->pipeline = NULL;
    tallies_free(g->tallies);
    g->tallies = NULL;
    for (size_t i = 0; i < RIG_OUTPUTS; i++) {
        records_clear(&g->out[i].open);
        feeder_deinit(&g->feeders[i]);
    }
}

static inline void rig_crash(struct rig *g)
{
    rig_stop(g);
    rig_start(g);
}

static inline bool rig_log_all(enum log_level level, const char *target)
{
    (void)level;
    (void)target;
    return true;
}

static inline struct rig *rig_new(const char *yaml)
{
    struct rig *g = calloc(1, sizeof(*g));
    assert_non_null(g);
    clock_set_source(rig_mono, NULL);
    memcpy(g->dir, "/tmp/tailrace-agent-XXXXXX", sizeof("/tmp/tailrace-agent-XXXXXX"));
    assert_non_null(mkdtemp(g->dir));
    g->log_fd = memfd_create("log", MFD_CLOEXEC);
    log_set_fd(g->log_fd);
    g->yaml = strdup(yaml);
    g->conf = rig_conf(g);
    memset(&stats, 0, sizeof(stats));
    return g;
}

static inline int rig_rm(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static inline void rig_free(struct rig *g)
{
    rig_stop(g);
    for (size_t i = 0; i < RIG_OUTPUTS; i++) {
        struct rig_output *o = &g->out[i];
        records_clear(&o->durable);
        for (size_t k = 0; k < o->n_files; k++)
            rig_file_drop(&o->files[k]);
        for (size_t k = 0; k < o->n_ledger; k++) {
            free((void *)(uintptr_t)o->ledger[k].input.ptr);
            free((void *)(uintptr_t)o->ledger[k].tenant.ptr);
        }
        free(o->files);
        free(o->ledger);
    }
    conf_free(g->conf);
    (void)nftw(g->dir, rig_rm, 16, FTW_DEPTH | FTW_PHYS);
    log_set_fd(2);
    (void)close(g->log_fd);
    clock_set_source(NULL, NULL);
    free(g->yaml);
    free(g);
}

/* Events, turns and the tick, until nothing more happens. */
static inline void rig_run(struct rig *g)
{
    for (int i = 0; i < 100000; i++) {
        tail_on_events(g->tail);
        bool more = tail_turn(g->tail, rig_now);
        (void)tail_tick(g->tail, rig_now);
        if (!more && i > 2)
            return;
    }
    fail_msg("the tail never comes to rest");
}

static inline void rig_pass(struct rig *g, int seconds)
{
    for (int i = 0; i < seconds; i++) {
        rig_now += NS_PER_SEC;
        rig_run(g);
    }
}

static inline void rig_write(const struct rig *g, const char *name, const void *text, size_t len)
{
    int fd = open(rig_path(g, name), O_WRONLY | O_CREAT | O_CLOEXEC | O_APPEND, 0644);
    assert_true(fd >= 0);
    assert_int_equal((ssize_t)len, write(fd, text, len));
    (void)close(fd);
}

/* Durable and open records of an output, '\n' inside as '\\', apart by '|'. */
static inline void rig_expect(struct rig *g, uint32_t index, const char *want)
{
    struct buf got;
    buf_init(&got, 64 * MIB);
    for (int k = 0; k < 2; k++) {
        const struct rig_records *l = k == 0 ? &g->out[index].durable : &g->out[index].open;
        for (size_t i = 0; i < l->n; i++) {
            if (got.len > 0)
                assert_int_equal(buf_append_byte(&got, '|'), 0);
            for (const char *c = l->item[i].text; *c != '\0'; c++)
                assert_int_equal(buf_append_byte(&got, *c == '\n' ? '\\' : *c), 0);
        }
    }
    assert_int_equal(buf_terminate(&got), 0);
    assert_string_equal(got.len == 0 ? "" : got.ptr, want);
    buf_deinit(&got);
}

static inline struct tally_cell rig_agent_row(uint32_t tenant)
{
    const struct input_row *row = stats_input_row(0, tenant);
    struct tally_cell c = { counter_get(&row->read_lines), counter_get(&row->read_bytes), counter_get(&row->kept_lines),
                            { 0 } };
    for (int i = 0; i < FILTER_REASONS; i++)
        c.filtered[i] = counter_get(&row->filtered[i]);
    return c;
}

#endif
