/*
 * Recovery: what the caller hears of it: where each file stands, the ledger's rows, and by tenant what was accepted and
 * what became of it.
 */
#include <errno.h>
#include <stdlib.h>

#include "agent/base/log.h"
#include "agent/queue/recover.h"

static int report_files(struct recovery *rc)
{
    struct positions *p = &rc->q->positions;
    int r = positions_export(p, &rc->rec->files, &rc->rec->n_files);
    if (r < 0)
        return r;
    positions_trim_marks(p);
    rc->rec->marks = p->marks;
    rc->rec->n_marks = p->n_marks;
    return 0;
}

static int report_ledger(struct recovery *rc)
{
    struct queue *q = rc->q;
    struct ledger_row *rows = calloc(q->totals.n + 1, sizeof(*rows));
    if (rows == NULL)
        return -ENOMEM;
    size_t n = 0;
    for (size_t i = 0; i < q->totals.n; i++) {
        const struct totals_row *row = &q->totals.rows[i];
        if (!row->has_ledger)
            continue;
        rows[n] = row->ledger;
        rows[n].input = row->input;
        rows[n++].tenant = row->tenant;
    }
    q->rec_ledger = rows;
    rc->rec->ledger = rows;
    rc->rec->n_ledger = n;
    return 0;
}

static struct recovered_row *row_of(struct recovered_row *rows, size_t *n, struct slice tenant)
{
    for (size_t i = 0; i < *n; i++)
        if (slice_eq(rows[i].tenant, tenant))
            return &rows[i];
    rows[*n] = (struct recovered_row){ .tenant = tenant };
    return &rows[(*n)++];
}

/* Lines of a tenant that nobody knows (or of damaged totals) were accepted too: nothing is below zero. */
static void balance(struct recovered_row *row)
{
    uint64_t rest = row->queued + row->parked + row->dead;
    for (size_t k = 0; k < LOST_REASONS; k++)
        rest += row->lost[k];
    row->accepted = MAX(row->accepted, rest);
}

/* The names live in the queue's own totals, which only grow. */
static int report_rows(struct recovery *rc)
{
    struct queue *q = rc->q;
    const struct tally *tallies[] = { &q->dead.tally, &q->losses, &rc->parked };
    size_t max = q->totals.n + rc->queued.n + q->dead.unsettled.n, n = 0;
    for (size_t t = 0; t < ARRAY_LEN(tallies); t++)
        max += tallies[t]->n;
    struct recovered_row *rows = calloc(max + 1, sizeof(*rows));
    if (rows == NULL)
        return -ENOMEM;
    q->rec_rows = rows;
    for (size_t i = 0; i < q->totals.n; i++)
        row_of(rows, &n, q->totals.rows[i].tenant)->accepted += q->totals.rows[i].lines;
    for (size_t i = 0; i < rc->queued.n; i++) {
        /* A name that only this table has would not outlive it. */
        const struct totals_row *row = totals_get(&q->totals, rc->queued.rows[i].input, rc->queued.rows[i].tenant);
        if (row == NULL)
            return -ENOMEM;
        row_of(rows, &n, row->tenant)->queued += rc->queued.rows[i].lines;
        rc->rec->queued_lines += rc->queued.rows[i].lines;
    }
    for (size_t i = 0; i < rc->parked.n; i++) {
        const struct totals_row *row = totals_get(&q->totals, SLICE(""), rc->parked.rows[i].tenant);
        if (row == NULL)
            return -ENOMEM;
        row_of(rows, &n, row->tenant)->parked += rc->parked.rows[i].dead;
    }
    for (size_t t = 0; t < 2; t++) {
        for (size_t i = 0; i < tallies[t]->n; i++) {
            const struct tally_row *from = &tallies[t]->rows[i];
            const struct totals_row *name = totals_get(&q->totals, SLICE(""), from->tenant);
            if (name == NULL)
                return -ENOMEM;
            struct recovered_row *row = row_of(rows, &n, name->tenant);
            row->dead += from->dead;
            for (size_t k = 0; k < LOST_REASONS; k++) {
                row->lost[k] += from->lost[k];
                row->lost_bytes[k] += from->lost_bytes[k];
            }
        }
    }
    for (size_t i = 0; i < q->dead.unsettled.n; i++) {
        const struct totals_row *name = totals_get(&q->totals, SLICE(""), q->dead.unsettled.rows[i].tenant);
        if (name == NULL)
            return -ENOMEM;
        struct recovered_row *row = row_of(rows, &n, name->tenant);
        row->dead -= MIN(row->dead, q->dead.unsettled.rows[i].lines);
    }
    for (size_t i = 0; i < n; i++)
        balance(&rows[i]);
    rc->rec->rows = rows;
    rc->rec->n_rows = n;
    return 0;
}

int recover_report(struct recovery *rc)
{
    int r = report_files(rc);
    if (r == 0)
        r = report_ledger(rc);
    return r < 0 ? r : report_rows(rc);
}

void recover_say(const struct queue *q, const struct queue_recovery *rec)
{
    if (rec->is_new)
        return;
    enum log_level level = rec->damaged_frames > 0 ? LOG_WARN : LOG_INFO;
    log_at(level, "queue", "queue.recovered", "the queue is open", LOG_CSTR("output", q->name),
           LOG_NUM("frames", rec->queued_frames), LOG_NUM("lines", rec->queued_lines), LOG_NUM("files", rec->n_files),
           LOG_NUM("torn_bytes", rec->torn_bytes), LOG_NUM("damaged_bytes", rec->damaged_bytes),
           LOG_NUM("damaged_frames", rec->damaged_frames));
}
