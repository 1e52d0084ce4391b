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

struct report {
    struct queue *q;
    struct recovered_row *rows;
    size_t n;
};

/* The names live in the queue's own totals, which only grow: one that only another table has would not outlive it. NULL: no
 * memory. */
static struct recovered_row *kept_row(struct report *to, struct slice input, struct slice tenant)
{
    const struct totals_row *name = totals_get(&to->q->totals, input, tenant);
    return name == NULL ? NULL : row_of(to->rows, &to->n, name->tenant);
}

static int report_waiting(struct recovery *rc, struct report *to)
{
    for (size_t i = 0; i < rc->queued.n; i++) {
        struct recovered_row *row = kept_row(to, rc->queued.rows[i].input, rc->queued.rows[i].tenant);
        if (row == NULL)
            return -ENOMEM;
        row->queued += rc->queued.rows[i].lines;
        rc->rec->queued_lines += rc->queued.rows[i].lines;
    }
    for (size_t i = 0; i < rc->parked.n; i++) {
        struct recovered_row *row = kept_row(to, SLICE(""), rc->parked.rows[i].tenant);
        if (row == NULL)
            return -ENOMEM;
        row->parked += rc->parked.rows[i].dead;
    }
    return 0;
}

static int report_tally(const struct tally *t, struct report *to)
{
    for (size_t i = 0; i < t->n; i++) {
        struct recovered_row *row = kept_row(to, SLICE(""), t->rows[i].tenant);
        if (row == NULL)
            return -ENOMEM;
        row->dead += t->rows[i].dead;
        for (size_t k = 0; k < LOST_REASONS; k++) {
            row->lost[k] += t->rows[i].lost[k];
            row->lost_bytes[k] += t->rows[i].lost_bytes[k];
        }
    }
    return 0;
}

/* Letters whose frames come again, and with them the letters. */
static int report_unsettled(const struct totals *unsettled, struct report *to)
{
    for (size_t i = 0; i < unsettled->n; i++) {
        struct recovered_row *row = kept_row(to, SLICE(""), unsettled->rows[i].tenant);
        if (row == NULL)
            return -ENOMEM;
        row->dead -= MIN(row->dead, unsettled->rows[i].lines);
    }
    return 0;
}

static int report_rows(struct recovery *rc)
{
    struct queue *q = rc->q;
    size_t max = q->totals.n + rc->queued.n + rc->parked.n + q->dead.tally.n + q->losses.n + q->dead.unsettled.n;
    struct report to = { .q = q, .rows = calloc(max + 1, sizeof(*to.rows)) };
    if (to.rows == NULL)
        return -ENOMEM;
    q->rec_rows = to.rows;
    for (size_t i = 0; i < q->totals.n; i++)
        row_of(to.rows, &to.n, q->totals.rows[i].tenant)->accepted += q->totals.rows[i].lines;
    int r = report_waiting(rc, &to);
    if (r == 0)
        r = report_tally(&q->dead.tally, &to);
    if (r == 0)
        r = report_tally(&q->losses, &to);
    if (r == 0)
        r = report_unsettled(&q->dead.unsettled, &to);
    if (r < 0)
        return r;
    for (size_t i = 0; i < to.n; i++)
        balance(&to.rows[i]);
    rc->rec->rows = to.rows;
    rc->rec->n_rows = to.n;
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
