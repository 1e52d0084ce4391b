#include "agent/deliver/dead.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/base/bug.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/deliver/jobs.h"

/* Dead letters are single lines; more than this many in one reply go together by reason, for each one costs a sync. */
#define SINGLE_LINES_MAX 16

static size_t count_entries(const struct dead_lines *lots, size_t n_lots, bool *ret_single)
{
    size_t lines = 0;
    for (size_t i = 0; i < n_lots; i++)
        lines += lots[i].n;
    *ret_single = lines <= SINGLE_LINES_MAX;
    return *ret_single ? lines : n_lots;
}

static int add_entry(struct job *j, struct frame *f, struct loaded *ld, const struct dead_lines *lot,
                     const struct entry_lines *lines)
{
    struct job_entry *e = &j->entries[j->n++];
    (void)snprintf(e->reason, sizeof(e->reason), "%s", lot->reason);
    (void)snprintf(e->text, sizeof(e->text), "%s%s", lot->is_partly_stored ? "partly stored: " : "", lot->text);
    int r = job_entry_fill(j, e, f, ld, lines);
    e->orig.status = lot->status;
    e->orig.reason = slice_cstr(e->reason);
    e->orig.text = slice_cstr(e->text);
    return r;
}

int dead_letter(struct part *p, const struct loaded *ld, const struct items *items, const uint8_t *row_of,
                const struct dead_lines *lots, size_t n_lots)
{
    struct frame *f = p->frame;
    bool is_single = false;
    const size_t n = count_entries(lots, n_lots, &is_single);
    struct job *j = job_new(f->d, JOB_DEAD);
    int r = j == NULL ? -ENOMEM : job_copy_meta(j, ld);
    if (r == 0)
        r = job_reserve(j, n);
    for (size_t i = 0; r == 0 && i < n_lots; i++) {
        const uint32_t step = is_single ? 1 : lots[i].n;
        for (uint32_t k = 0; r == 0 && k < lots[i].n; k += step) {
            const struct entry_lines lines = { items, row_of, lots[i].idx + k, step };
            r = add_entry(j, f, (struct loaded *)ld, &lots[i], &lines);
        }
    }
    if (r < 0) {
        job_free(j);
        return r;
    }
    j->frame = f;
    f->n_open++;
    job_post(j);
    if (BUG(15)) /* the letter is on its way, so the frame is done */
        (void)queue_ack(f->d->q, f->head.seq);
    return 0;
}

void dead_done(struct job *j)
{
    struct delivery *d = j->d;
    struct frame *f = j->frame;
    uint64_t n_lines = 0;
    for (size_t i = 0; i < j->n; i++) {
        const struct job_entry *e = &j->entries[i];
        for (uint32_t row = 0; row < f->n_rows; row++) {
            frame_count(f, row, e->row_lines[row], FATE_DEAD);
            if (e->row_lines[row] > 0)
                stats_count_dead_reason(f->rows[row].ledger, e->reason, e->row_lines[row]);
        }
        stats_count_code(d->st->dead, e->reason, e->in.lines);
        n_lines += e->in.lines;
    }
    gauge_set(&d->st->last_dead_wall_ns, clock_wall_ns());
    log_warn("deliver", "dead.written", "the server will not take these lines; they are in dead/ with the reason",
             LOG_SLICE("output", d->conf->name), LOG_CSTR("reason", j->entries[0].reason), LOG_NUM("lines", n_lines),
             LOG_NUM("seq", f->head.seq), LOG_NUM("status", j->entries[0].orig.status),
             LOG_CSTR("error", j->entries[0].text));
    j->frame = NULL;
    frame_settle_one(f);
}
