/*
 * Lines that a segment lacks and whose loss is counted. What a segment lacks is known for the whole of it alone, as a
 * difference of totals, so what was counted before is taken off it. And segments of which nothing is left.
 */
#include <errno.h>
#include <stdlib.h>

#include "agent/base/array.h"
#include "agent/base/bytes.h"
#include "agent/queue/damage.h"

static struct missed *find(const struct queue *q, uint64_t segment_id)
{
    for (size_t i = 0; i < q->n_missed; i++)
        if (q->missed[i].segment_id == segment_id)
            return &q->missed[i];
    return NULL;
}

static void missed_deinit(struct missed *m)
{
    totals_deinit(&m->logged);
    totals_deinit(&m->news);
}

static bool is_listed(const struct queue *q, uint64_t segment_id)
{
    for (size_t i = 0; i < q->n_segs; i++)
        if (q->segs[i].id == segment_id)
            return true;
    return false;
}

/* Nobody asks for those of a segment that is gone. */
static void drop_old(struct queue *q)
{
    size_t kept = 0;
    for (size_t i = 0; i < q->n_missed; i++) {
        if (is_listed(q, q->missed[i].segment_id))
            q->missed[kept++] = q->missed[i];
        else
            missed_deinit(&q->missed[i]);
    }
    q->n_missed = kept;
}

static struct missed *get(struct queue *q, uint64_t segment_id)
{
    struct missed *m = find(q, segment_id);
    if (m != NULL)
        return m;
    drop_old(q);
    struct missed *list = array_room(q->missed, q->n_missed, &q->cap_missed, sizeof(*list));
    if (list == NULL)
        return NULL;
    q->missed = list;
    m = &q->missed[q->n_missed++];
    *m = (struct missed){ .segment_id = segment_id };
    return m;
}

int missed_add_locked(struct queue *q, uint64_t segment_id, const struct totals *rows)
{
    struct missed *m = get(q, segment_id);
    if (m == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < rows->n; i++)
        if (totals_get(&m->news, rows->rows[i].input, rows->rows[i].tenant) == NULL ||
            totals_get(&m->logged, rows->rows[i].input, rows->rows[i].tenant) == NULL)
            return -ENOMEM; /* later there is room for them in both */
    for (size_t i = 0; i < rows->n; i++)
        (void)!totals_add(&m->news, rows->rows[i].input, rows->rows[i].tenant, rows->rows[i].lines);
    return 0;
}

/* Lines of a tenant that nobody knew are those of any. */
static void subtract(struct totals *rows, const struct totals *counted)
{
    uint64_t rest = 0;
    for (size_t i = 0; i < counted->n; i++) {
        const struct totals_row *c = &counted->rows[i];
        const struct totals_row *row = totals_find(rows, c->input, c->tenant);
        rest += c->lines - MIN(c->lines, row == NULL ? 0 : row->lines);
    }
    totals_subtract(rows, counted);
    for (size_t i = 0; i < rows->n && rest > 0; i++) {
        uint64_t less = MIN(rows->rows[i].lines, rest);
        rows->rows[i].lines -= less;
        rows->lines -= MIN(rows->lines, less);
        rest -= less;
    }
}

void missed_subtract(struct queue *q, uint64_t segment_id, struct totals *rows)
{
    pthread_mutex_lock(&q->lock);
    const struct missed *m = find(q, segment_id);
    if (m != NULL) {
        subtract(rows, &m->logged);
        subtract(rows, &m->news);
    }
    pthread_mutex_unlock(&q->lock);
}

bool missed_any(struct queue *q, uint64_t segment_id)
{
    pthread_mutex_lock(&q->lock);
    bool any = find(q, segment_id) != NULL;
    pthread_mutex_unlock(&q->lock);
    return any;
}

/* ---- dead/ ---- */

static int put_rows(struct buf *meta, uint64_t segment_id, const struct totals *rows)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < rows->n; i++)
        if (rows->rows[i].lines > 0)
            r = meta_put_missed(meta, segment_id, rows->rows[i].input, rows->rows[i].tenant, rows->rows[i].lines);
    return r;
}

int missed_put_locked(struct queue *q, bool is_logged, struct buf *meta)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < q->n_missed; i++)
        r = put_rows(meta, q->missed[i].segment_id, is_logged ? &q->missed[i].logged : &q->missed[i].news);
    return r;
}

static int take_one(struct queue *q, struct slice bytes, bool were_news)
{
    struct slice input, tenant;
    uint64_t segment_id, lines;
    if (meta_get_missed(bytes, &segment_id, &input, &tenant, &lines) < 0)
        return 0;
    struct missed *m = get(q, segment_id);
    int r = m == NULL ? -ENOMEM : totals_add(&m->logged, input, tenant, lines);
    struct totals_row *row = r < 0 || !were_news ? NULL : totals_find(&m->news, input, tenant);
    if (row != NULL)
        row->lines -= MIN(row->lines, lines);
    return r;
}

int missed_take_locked(struct queue *q, struct slice meta, bool were_news)
{
    struct meta_item item;
    int r = 0;
    while (r == 0 && meta_next(&meta, &item) > 0)
        if (item.tag == META_MISSED)
            r = take_one(q, item.bytes, were_news);
    return r;
}

void missed_clear(struct queue *q)
{
    for (size_t i = 0; i < q->n_missed; i++)
        missed_deinit(&q->missed[i]);
    q->n_missed = 0;
}

/* ---- nothing is left ---- */

int between_rows(struct queue *q, const struct segment *before, const struct segment *after, struct totals *rows)
{
    struct totals end = { 0 };
    int r = segment_totals_begin(q, after, rows);
    if (r == 0)
        r = segment_totals_end(q, before, &end);
    if (r == 0)
        totals_subtract(rows, &end);
    totals_deinit(&end);
    return r;
}

int between_count(struct queue *q, const struct segment *before, const struct segment *after, const struct totals *rows,
                  const struct spans *frames)
{
    struct damage d;
    int r = damage_between(q, before, after, &d);
    if (r < 0)
        return r;
    r = loss_count(q, &(struct loss){ .reason = LOST_DAMAGE, .rows = rows, .gaps = &d.gaps, .frames = frames });
    damage_deinit(&d);
    return r;
}
