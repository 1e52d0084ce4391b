#include "agent/feeder.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "agent/base/array.h"
#include "agent/base/log.h"
#include "agent/base/must.h"

/* Positions of a quiet output are written this seldom: a crash then reads again at most what was filtered away. */
#define IDLE_POSITIONS_NS (30 * NS_PER_SEC)
#define MEMORY_RETRY_NS (200 * NS_PER_MS)
/* A name that nobody knew is told within this time: names that come together are told together. */
#define NEW_NAMES_NS (20 * NS_PER_MS)
/* Names that come by the thousand take this many a group: each is 300 bytes until the writer has them. */
#define NEW_NAMES_MAX 500

void feeder_init(struct feeder *f, struct output *output, struct writer *writer, struct tallies *tallies,
                 int64_t mono_ns)
{
    *f = (struct feeder){ .output = output,
                          .index = output->conf->index,
                          .writer = writer,
                          .tallies = tallies,
                          .last_end_ns = mono_ns };
    output->open.account = ACCOUNT_BATCHES(f->index);
}

/* The batches take their share of memory. While the writer is behind they are let grow to it whole; else half of it is on
 * its way as the other half grows. */
static bool is_share_used(const struct feeder *f)
{
    size_t used = budget_of(f->output->open.account), share = budget_batches_share();
    return f->opened_ns != 0 &&
           (used >= share || (f->output->open.raw_bytes >= share / 2 && !writer_is_writing(f->writer, f->index)));
}

/* The queue makes room for a group of this size; what is with the writer already is part of it. When but one body more is
 * to come it closes as that is half full: a little later there would be a full one, and one of a few lines behind it. */
static bool is_group_full(const struct feeder *f)
{
    const struct queue_conf *q = &f->output->conf->queue;
    const size_t open = f->output->open.raw_bytes;
    return f->pushed_bytes + open >= q->group_bytes ||
           (f->pushed_bytes > 0 && f->pushed_bytes + q->batch_bytes >= q->group_bytes && open >= q->batch_bytes / 2);
}

static void group_is_empty(struct feeder *f)
{
    f->opened_ns = f->hurry_ns = 0;
    f->is_in_group = false;
    f->pushed_bytes = 0;
    f->n_lost = 0;
}

static void drop_open(struct feeder *f)
{
    struct output *out = f->output;
    group_free(f->pending, out);
    f->pending = NULL;
    while (out->open.first != NULL) {
        struct body *b = out->open.first;
        bodies_take(&out->open, b);
        out->ops->discard(out, b);
        body_free(b);
    }
    group_is_empty(f);
}

void feeder_deinit(struct feeder *f)
{
    if (f->output != NULL)
        drop_open(f);
    free(f->lost);
    f->lost = NULL;
}

static void out_of_memory(struct feeder *f, int64_t mono_ns)
{
    log_error("pipeline", "memory.exhausted", "out of memory: this output waits a moment; its lines stay in their files",
              LOG_SLICE("output", f->output->conf->name));
    f->is_blocked = true;
    f->retry_at_ns = mono_ns + MEMORY_RETRY_NS;
}

/* Hands over, or keeps it as pending and blocks. */
static void push(struct feeder *f, struct group *g)
{
    g->epoch = f->epoch;
    if (f->pending == NULL && writer_push(f->writer, f->index, g) == 0)
        return;
    f->pending = g; /* the caller pushes nothing while one is pending */
    f->is_blocked = true;
}

static void push_more(struct feeder *f, struct body *b, int64_t mono_ns)
{
    struct group *g = calloc(1, sizeof(*g));
    if (g == NULL) {
        out_of_memory(f, mono_ns); /* the body stays open; it is pushed with the next record */
        return;
    }
    bodies_take(&f->output->open, b);
    b->next = NULL;
    g->bodies = b;
    g->raw_bytes = b->raw_bytes;
    g->is_gap = f->is_rereading;
    f->is_in_group = true;
    f->pushed_bytes += b->raw_bytes;
    push(f, g);
}

int feeder_append(struct feeder *f, const struct record *rec, int64_t mono_ns, struct append_result *ret)
{
    struct output *out = f->output;
    *ret = (struct append_result){ 0 };
    int r = out->ops->append(out, rec, ret);
    if (r == -ENOBUFS && ret->body != NULL && f->pending == NULL) {
        push_more(f, ret->body, mono_ns);
        *ret = (struct append_result){ 0 };
        r = out->ops->append(out, rec, ret);
    }
    if (r < 0) {
        out_of_memory(f, mono_ns);
        return r;
    }
    if (ret->body == NULL)
        return 0;
    if (f->opened_ns == 0)
        f->opened_ns = mono_ns;
    if (ret->body->raw_bytes >= out->conf->queue.batch_bytes && f->pending == NULL)
        push_more(f, ret->body, mono_ns);
    return 0;
}

int64_t feeder_due_at(const struct feeder *f)
{
    if (f->pending != NULL)
        return INT64_MAX; /* the writer speaks first */
    if (f->is_blocked)
        return f->retry_at_ns;
    if (f->is_rereading)
        return INT64_MAX;
    if (is_group_full(f) || is_share_used(f))
        return 0;
    int64_t at = f->opened_ns != 0 ? f->opened_ns + f->output->conf->queue.batch_wait_ns
                                   : f->last_end_ns + IDLE_POSITIONS_NS;
    return f->hurry_ns != 0 ? MIN(at, f->hurry_ns) : at;
}

void feeder_hurry(struct feeder *f, int64_t mono_ns)
{
    if (f->hurry_ns == 0)
        f->hurry_ns = mono_ns + NEW_NAMES_NS;
}

/* ---- the end of a group: deep copies, for the tail's arrays live only until its next call ---- */

static size_t strings_bytes(const struct group_end *e)
{
    size_t n = 0;
    for (size_t i = 0; i < e->n_files; i++)
        n += e->files[i].path.len + e->files[i].input.len;
    return n;
}

static void *copy_array(char **at, const void *from, size_t bytes)
{
    void *to = *at;
    if (bytes > 0)
        memcpy(to, from, bytes);
    *at += (bytes + 7) & ~(size_t)7;
    return to;
}

static struct slice copy_text(char **at, struct slice s)
{
    char *to = *at;
    if (s.len > 0)
        memcpy(to, s.ptr, s.len);
    *at += s.len;
    return slice_of(to, s.len);
}

/* Ledger names are the configuration's and the tenants' table's: they outlive the group. */
static int group_set_end(struct group *g, const struct group_end *e)
{
    size_t bytes = e->n_files * sizeof(*e->files) + e->n_positions * sizeof(*e->positions) +
                   e->n_gone * sizeof(*e->gone) + e->n_lost * sizeof(*e->lost) + e->n_ledger * sizeof(*e->ledger) +
                   5 * 8 + strings_bytes(e);
    char *at = g->storage = malloc(bytes);
    if (at == NULL)
        return -ENOMEM;
    g->is_end = true;
    g->end = *e;
    g->end.positions = copy_array(&at, e->positions, e->n_positions * sizeof(*e->positions));
    g->end.gone = copy_array(&at, e->gone, e->n_gone * sizeof(*e->gone));
    g->end.lost = copy_array(&at, e->lost, e->n_lost * sizeof(*e->lost));
    g->end.ledger = copy_array(&at, e->ledger, e->n_ledger * sizeof(*e->ledger));
    struct file_ident *files = copy_array(&at, e->files, e->n_files * sizeof(*e->files));
    for (size_t i = 0; i < e->n_files; i++) {
        files[i].path = copy_text(&at, files[i].path);
        files[i].input = copy_text(&at, files[i].input);
    }
    g->end.files = files;
    return 0;
}

static void take_all_bodies(struct output *out, struct group *g)
{
    struct body **link = &g->bodies;
    while (out->open.first != NULL) {
        struct body *b = out->open.first;
        bodies_take(&out->open, b);
        if (b->lines == 0) { /* memory ran out when its first line came */
            out->ops->discard(out, b);
            body_free(b);
            continue;
        }
        b->next = NULL;
        *link = b;
        link = &b->next;
        g->raw_bytes += b->raw_bytes;
    }
}

static void close_group(struct feeder *f, struct tail *t, int64_t mono_ns, bool has_all)
{
    struct group_end end = { 0 };
    struct group *g = calloc(1, sizeof(*g));
    const struct ledger_row *ledger;
    size_t n_ledger;
    if (g == NULL || tallies_collect(f->tallies, f->index, &ledger, &n_ledger) < 0) {
        free(g);
        out_of_memory(f, mono_ns);
        return;
    }
    bool has_progress = tail_collect(t, f->index, has_all ? SIZE_MAX : NEW_NAMES_MAX, &end);
    f->last_end_ns = mono_ns;
    if (!has_progress && f->output->open.first == NULL && !f->is_in_group && n_ledger == 0) {
        group_is_empty(f);
        free(g);
        return;
    }
    end.ledger = ledger;
    end.n_ledger = n_ledger;
    end.lost = f->lost;
    end.n_lost = f->n_lost;
    f->collected += has_progress; /* the tail counts those with positions */
    g->number = f->collected;
    struct must must = { 0 };
    while (group_set_end(g, &end) < 0)
        must_wait(&must); /* the positions were collected: without them lines would come twice */
    take_all_bodies(f->output, g);
    group_is_empty(f);
    push(f, g);
}

void feeder_close_if_due(struct feeder *f, struct tail *t, int64_t mono_ns, bool is_forced)
{
    if (f->pending != NULL || f->is_blocked || f->is_rereading)
        return;
    if (is_forced || mono_ns >= feeder_due_at(f))
        close_group(f, t, mono_ns, is_forced);
}

void feeder_lost(struct feeder *f, const struct lost_range *lost)
{
    struct lost_range *more = array_room(f->lost, f->n_lost, &f->cap_lost, sizeof(*more));
    if (more == NULL)
        return; /* it was counted and said; a restart forgets it */
    f->lost = more;
    f->lost[f->n_lost++] = *lost;
}

bool feeder_on_space(struct feeder *f, int64_t mono_ns)
{
    if (f->pending != NULL) {
        struct group *g = f->pending;
        if (writer_push(f->writer, f->index, g) < 0)
            return false;
        f->pending = NULL;
    }
    if (!f->is_blocked || mono_ns < f->retry_at_ns)
        return false;
    f->is_blocked = false;
    f->retry_at_ns = 0;
    return true;
}

/* ---- ranges that are read again ---- */

void feeder_begin_reread(struct feeder *f, bool (*is_held)(void *ctx, struct slice route, const struct record *rec), void *ctx)
{
    assert(f->output->open.first == NULL && !f->is_in_group && f->pending == NULL);
    f->is_rereading = true;
    f->reread_lines = 0;
    f->output->open.is_held = is_held;
    f->output->open.held_ctx = ctx;
}

static void leave_reread(struct feeder *f)
{
    f->is_rereading = false;
    f->output->open.is_held = NULL;
}

int feeder_end_reread(struct feeder *f, struct letter_id id, int64_t mono_ns)
{
    struct group_end end = { .reread = id };
    struct group *g = calloc(1, sizeof(*g));
    assert(f->is_rereading && f->pending == NULL);
    if (g == NULL || group_set_end(g, &end) < 0) {
        free(g);
        return -ENOMEM;
    }
    g->is_gap = true;
    g->number = f->collected;
    take_all_bodies(f->output, g);
    f->opened_ns = 0;
    f->is_in_group = false;
    f->pushed_bytes = 0;
    f->last_end_ns = mono_ns;
    leave_reread(f);
    push(f, g);
    return 0;
}

void feeder_relieve(struct feeder *f, int64_t mono_ns)
{
    while (!f->is_blocked && f->pending == NULL && f->output->open.first != NULL && is_share_used(f))
        push_more(f, f->output->open.first, mono_ns);
}

void feeder_on_fence(struct feeder *f, uint32_t epoch)
{
    drop_open(f);
    leave_reread(f);
    f->epoch = epoch;
    f->is_blocked = false;
    f->retry_at_ns = 0;
}
