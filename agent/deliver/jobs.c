#include "agent/deliver/jobs.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "agent/base/bug.h"

#define WIRE_BYTES_MAX (64 * MIB)
#define RUNS_BYTES_MAX (8 * MIB)

void (*jobs_post)(struct writer *w, struct writer_job *job) = writer_post;

/* --- on the writer thread --- */

static int run_cursor(struct job *j)
{
    if (BUG(5))
        (void)!queue_unlink_acked(j->d->q);
    int r = queue_cursor_sync(j->d->q);
    return r < 0 ? r : queue_unlink_acked(j->d->q);
}

static int run_dead(struct job *j)
{
    for (; j->n_done < j->n; j->n_done++) {
        struct job_entry *e = &j->entries[j->n_done];
        int r = queue_dead_append(j->d->q, &e->in, &e->orig);
        if (r < 0)
            return r;
    }
    return 0;
}

static int run_checkpoint(struct job *j)
{
    struct output *out = j->d->out;
    return out->ops->checkpoint == NULL ? 0 : out->ops->checkpoint(out, j->seq, &j->err);
}

static void run(struct writer_job *wj)
{
    struct job *j = CONTAINER_OF(wj, struct job, wj);
    const uint64_t before = queue_bytes(j->d->q);
    switch (j->kind) {
    case JOB_CURSOR:
        wj->result = run_cursor(j);
        break;
    case JOB_PARK:
        wj->result = queue_park(j->d->q, &j->entries[0].in, &j->entries[0].orig, &j->parked_id);
        break;
    case JOB_UNPARK:
        wj->result = queue_unpark(j->d->q, j->parked_id);
        break;
    case JOB_DROP:
        wj->result = queue_park_drop(j->d->q, j->parked_id, j->reason);
        break;
    case JOB_DEAD:
        wj->result = run_dead(j);
        break;
    case JOB_CHECKPOINT:
        wj->result = run_checkpoint(j);
        break;
    }
    j->has_shrunk = queue_bytes(j->d->q) < before;
}

static void done(struct writer_job *wj)
{
    struct job *j = CONTAINER_OF(wj, struct job, wj);
    inbox_post(&j->s->inbox, &wj->link);
}

/* --- on the sender thread --- */

struct job *job_new(struct delivery *d, enum job_kind kind)
{
    struct job *j = calloc(1, sizeof(*j));
    if (j == NULL)
        return NULL;
    j->wj.run = run;
    j->wj.done = done;
    j->kind = kind;
    j->s = d->s;
    j->d = d;
    return j;
}

void job_post(struct job *j)
{
    j->s->n_jobs++;
    jobs_post(j->s->writer, &j->wj);
}

void job_free(struct job *j)
{
    if (j == NULL)
        return;
    for (size_t i = 0; i < j->n; i++) {
        buf_deinit(&j->entries[i].wire);
        buf_deinit(&j->entries[i].runs);
        free(j->entries[i].rows);
        free(j->entries[i].row_lines);
    }
    free(j->entries);
    buf_deinit(&j->meta);
    free(j);
}

static void keep_for_retry(struct job *j, int64_t now)
{
    j->not_before_ns = now + deliver_timing.job_retry_ns;
    j->next = j->s->failed_jobs;
    j->s->failed_jobs = j;
}

int64_t jobs_retry(struct sender *s, int64_t now)
{
    int64_t wake = INT64_MAX;
    for (struct job **at = &s->failed_jobs; *at != NULL;) {
        struct job *j = *at;
        if (now < j->not_before_ns) {
            wake = MIN(wake, j->not_before_ns);
            at = &j->next;
            continue;
        }
        *at = j->next;
        j->next = NULL;
        job_post(j);
    }
    return wake;
}

static void finish_unpark(struct job *j)
{
    const bool is_undropped = j->kind == JOB_DROP && j->wj.result < 0 && j->wj.result != -ENOENT;
    j->d->n_undropped += is_undropped;
    j->d->n_undropped -= j->is_undropped;
    j->is_undropped = is_undropped;
    if (j->lane != NULL) {
        assert(j->lane->n_unparked > 0);
        j->lane->n_unparked--;
    }
    j->lane = NULL; /* the lane goes on; the file is removed later */
}

void job_finish(struct job *j, int64_t now)
{
    struct sender *s = j->s;
    assert(s->n_jobs > 0);
    s->n_jobs--;
    bool is_kept = false;
    switch (j->kind) {
    case JOB_CURSOR:
        j->d->is_cursor_job = false;
        break;
    case JOB_PARK:
        park_done(j, now);
        break;
    case JOB_UNPARK:
    case JOB_DROP:
        finish_unpark(j);
        is_kept = j->wj.result < 0 && j->wj.result != -ENOENT;
        break;
    case JOB_DEAD:
        is_kept = j->wj.result < 0;
        if (!is_kept)
            dead_done(j);
        break;
    case JOB_CHECKPOINT:
        local_checkpoint_done(j->d, j, now);
        break;
    }
    if (j->has_shrunk && s->on_space != NULL)
        s->on_space(s->ctx, j->d->conf->index);
    if (is_kept)
        keep_for_retry(j, now);
    else
        job_free(j);
}

/* --- what parked frames and dead letters are made of --- */

int job_copy_meta(struct job *j, const struct loaded *ld)
{
    buf_init_in(&j->meta, MAX(ld->meta.len, (size_t)1), j->d->account);
    return buf_append_slice(&j->meta, buf_slice(&ld->meta));
}

int job_reserve(struct job *j, size_t n)
{
    j->entries = calloc(n, sizeof(j->entries[0]));
    return j->entries == NULL ? -ENOMEM : 0;
}

/* The rows that have lines, renumbered, and the runs of the chosen lines by the new numbers. */
static int fill_rows(struct job_entry *e, const struct frame_row *all, size_t n_all, const struct entry_lines *lines)
{
    uint8_t number[FRAME_ROWS_MAX] = { 0 };
    uint8_t *row_of = malloc(MAX(lines->n, 1u));
    size_t n = 0;
    if (row_of == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < n_all; i++) {
        if (e->row_lines[i] == 0)
            continue;
        number[i] = (uint8_t)n;
        e->rows[n] = all[i];
        e->rows[n++].lines = e->row_lines[i];
    }
    int r = 0;
    if (n > 1) {
        for (uint32_t i = 0; i < lines->n; i++)
            row_of[i] = number[lines->row_of[lines->idx[i]]];
        r = runs_encode(row_of, lines->n, &e->runs);
    }
    free(row_of);
    e->in.rows = e->rows;
    e->in.n_rows = n;
    e->in.runs = buf_slice(&e->runs);
    return r;
}

static int fill_some(struct job *j, struct job_entry *e, const struct loaded *ld, const struct frame_row *rows,
                     const struct entry_lines *lines)
{
    const struct output_ops *ops = j->d->out->ops;
    uint8_t *chosen = calloc(1, lines->items->n + 1);
    if (chosen == NULL)
        return -ENOMEM;
    size_t raw = 0;
    for (uint32_t i = 0; i < lines->n; i++) {
        const struct item *it = &lines->items->item[lines->idx[i]];
        const uint8_t row = lines->row_of[lines->idx[i]];
        chosen[lines->idx[i]] = 1;
        raw += it->head.len + it->data.len + 2;
        if (row < ld->fields.n_rows)
            e->row_lines[row]++;
    }
    int r = ops->build(j->d->out, lines->items, chosen, false, &e->wire);
    free(chosen);
    if (r < 0)
        return r;
    e->in.wire = buf_slice(&e->wire);
    e->in.lines = lines->n;
    e->in.raw_len = (uint32_t)MIN(raw, (size_t)UINT32_MAX);
    return fill_rows(e, rows, ld->fields.n_rows, lines);
}

static void fill_all(struct job_entry *e, struct loaded *ld, const struct frame *f, struct slice runs,
                     const struct frame_row *rows)
{
    for (size_t i = 0; i < ld->fields.n_rows; i++) {
        e->rows[i] = rows[i];
        e->row_lines[i] = rows[i].lines;
    }
    e->in.rows = e->rows;
    e->in.n_rows = ld->fields.n_rows;
    e->in.runs = runs;
    e->in.lines = f->head.lines;
    e->in.raw_len = f->head.raw_len;
    e->wire = ld->body;
    buf_init(&ld->body, 0);
    e->in.wire = buf_slice(&e->wire);
}

int job_entry_fill(struct job *j, struct job_entry *e, struct frame *f, struct loaded *ld,
                   const struct entry_lines *lines)
{
    struct frame_row rows[FRAME_ROWS_MAX];
    struct frame_meta fields;
    int r = frame_meta_parse(buf_slice(&j->meta), rows, ARRAY_LEN(rows), &fields);
    if (r < 0 && r != -ENOBUFS)
        return r;
    buf_init_in(&e->wire, WIRE_BYTES_MAX, j->d->account);
    buf_init_in(&e->runs, RUNS_BYTES_MAX, j->d->account);
    e->rows = calloc(FRAME_ROWS_MAX, sizeof(e->rows[0]));
    e->row_lines = calloc(FRAME_ROWS_MAX, sizeof(e->row_lines[0]));
    if (e->rows == NULL || e->row_lines == NULL)
        return -ENOMEM;
    e->in.route = fields.route;
    e->in.built_ns = f->head.built_ns;
    e->in.is_alone = (f->head.flags & FRAME_FLAG_ALONE) != 0;
    e->orig.seq = f->head.seq;
    e->orig.item = lines->items == NULL ? UINT32_MAX : lines->idx[0];
    if (lines->items != NULL)
        return fill_some(j, e, ld, rows, lines);
    fill_all(e, ld, f, fields.runs, rows);
    return 0;
}
