#include "agent/deliver/pending.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/tenants.h"
#include "agent/deliver/deliver.h"
#include "agent/deliver/jobs.h"
#include "agent/deliver/shipment.h"

#define META_BYTES_MAX (64 * MIB)
#define BODY_BYTES_MAX (64 * MIB)

/* --- reading --- */

void loaded_init(struct loaded *ld, uint8_t account)
{
    buf_init_in(&ld->meta, META_BYTES_MAX, account);
    buf_init_in(&ld->body, BODY_BYTES_MAX, account);
    ld->fields = (struct frame_meta){ 0 };
}

void loaded_deinit(struct loaded *ld)
{
    buf_deinit(&ld->meta);
    buf_deinit(&ld->body);
}

int loaded_read(struct loaded *ld, struct queue *q, const struct frame_head *head)
{
    buf_reset(&ld->meta);
    buf_reset(&ld->body);
    int r = queue_load(q, head, &ld->meta, &ld->body);
    if (r < 0)
        return r;
    r = frame_meta_parse(buf_slice(&ld->meta), ld->rows, ARRAY_LEN(ld->rows), &ld->fields);
    /* More rows than a run can name cannot have been written by us; the lines are delivered all the same. */
    ld->fields.n_rows = MIN(ld->fields.n_rows, ARRAY_LEN(ld->rows));
    return r == -ENOBUFS ? 0 : r;
}

/* --- runs --- */

void runs_decode(struct slice runs, uint8_t *rows, size_t n)
{
    const uint8_t *p = (const uint8_t *)runs.ptr;
    size_t at = 0, i = 0;
    while (i < n && at < runs.len) {
        const uint8_t row = p[at++];
        uint64_t count = 0;
        unsigned shift = 0;
        bool has_more = true;
        while (has_more && at < runs.len && shift < 63) {
            count |= (uint64_t)(p[at] & 0x7f) << shift;
            has_more = (p[at++] & 0x80) != 0;
            shift += 7;
        }
        for (; count > 0 && i < n; count--)
            rows[i++] = row;
    }
    while (i < n)
        rows[i++] = 0;
}

int runs_encode(const uint8_t *rows, size_t n, struct buf *out)
{
    for (size_t i = 0; i < n;) {
        size_t count = 1;
        while (i + count < n && rows[i + count] == rows[i])
            count++;
        int r = buf_append_byte(out, (char)rows[i]);
        i += count;
        do {
            const uint8_t low = count & 0x7f;
            count >>= 7;
            if (r == 0)
                r = buf_append_byte(out, (char)(low | (count > 0 ? 0x80 : 0)));
        } while (count > 0);
        if (r < 0)
            return r;
    }
    return 0;
}

/* --- frames --- */

static uint32_t input_index(const struct sender *s, struct slice name)
{
    for (size_t i = 0; i < s->n_inputs; i++)
        if (slice_eq(s->inputs[i], name))
            return (uint32_t)i;
    return INPUT_UNKNOWN;
}

struct frame *frame_new(struct delivery *d, const struct frame_head *head, const struct loaded *ld, struct lane *lane)
{
    struct frame *f = calloc(1, sizeof(*f));
    const size_t n = ld->fields.n_rows;
    if (f == NULL || (n > 0 && (f->rows = calloc(n, sizeof(f->rows[0]))) == NULL)) {
        free(f);
        return NULL;
    }
    f->d = d;
    f->head = *head;
    f->lane = lane;
    f->n_rows = (uint32_t)n;
    lane->n_frames++;
    buf_init(&f->body, 0); /* a body is moved there, or none */
    budget_took(ACCOUNT_OF(MEMORY_LANES), f);
    budget_took(ACCOUNT_OF(MEMORY_LANES), f->rows);
    for (size_t i = 0; i < n; i++)
        f->rows[i] = (struct line_row){ .ledger = stats_output_row(d->conf->index, tenant_intern(ld->rows[i].tenant)),
                                        .input = input_index(d->s, ld->rows[i].input),
                                        .left = ld->rows[i].lines };
    return f;
}

void frame_drop_body(struct frame *f)
{
    buf_deinit(&f->body);
}

void frame_unlink(struct frame *f)
{
    struct delivery *d = f->d;
    if (f->head.is_parked)
        return;
    if (f->prev == NULL)
        d->first = f->next;
    else
        f->prev->next = f->next;
    if (f->next == NULL)
        d->last = f->prev;
    else
        f->next->prev = f->prev;
    d->n_frames--;
}

void frame_free(struct frame *f)
{
    frame_drop_body(f);
    f->lane->n_frames--;
    if (f->deferral != NULL)
        part_free(f->deferral->lines);
    free(f->deferral);
    budget_free(ACCOUNT_OF(MEMORY_LANES), f->rows);
    budget_free(ACCOUNT_OF(MEMORY_LANES), f);
}

void frame_count(struct frame *f, uint32_t row, uint32_t lines, enum fate fate)
{
    if (row >= f->n_rows)
        return;
    lines = MIN(lines, f->rows[row].left);
    f->rows[row].left -= lines;
    f->rows[row].fates[fate] += lines;
    if (fate == FATE_PARKED) {
        gauge_add(&f->rows[row].ledger->parked_lines, lines);
        gauge_add(&f->rows[row].ledger->queued_lines, -(int64_t)lines);
    }
}

void frame_count_all(struct frame *f, enum fate fate)
{
    for (uint32_t i = 0; i < f->n_rows; i++)
        frame_count(f, i, UINT32_MAX, fate);
}

void frame_commit(const struct frame *f)
{
    for (uint32_t i = 0; i < f->n_rows; i++) {
        const struct line_row *row = &f->rows[i];
        struct output_row *to = row->ledger;
        const uint64_t all = (uint64_t)row->fates[FATE_DELIVERED] + row->fates[FATE_DEAD];
        counter_add(&to->delivered_lines, row->fates[FATE_DELIVERED]);
        counter_add(&to->dead_lines, row->fates[FATE_DEAD]);
        gauge_add(f->head.is_parked ? &to->parked_lines : &to->queued_lines, -(int64_t)all);
    }
}

/* The queue has counted all of the frame as lost, damaged or dropped. What is parked of it goes on all the same: as after a
 * start these lines were accepted twice. */
static void recount_parked(const struct frame *f)
{
    for (uint32_t i = 0; i < f->n_rows; i++) {
        struct output_row *to = f->rows[i].ledger;
        counter_add(&to->accepted_lines, f->rows[i].fates[FATE_PARKED]);
        gauge_add(&to->queued_lines, f->rows[i].fates[FATE_PARKED]);
    }
}

/* A parked frame is done with: its file goes. */
static void finish_parked(struct frame *f)
{
    struct job *j = job_new(f->d, f->is_damaged ? JOB_DROP : JOB_UNPARK);
    if (!f->is_damaged)
        frame_commit(f);
    if (j == NULL) { /* the file stays and is sent again at the next start */
        f->lane->n_unparked--;
        return;
    }
    j->lane = f->lane;
    j->parked_id = f->head.segment_id;
    j->reason = LOST_DAMAGE;
    job_post(j);
}

static void finish(struct frame *f)
{
    assert(f->n_open == 0 && f->deferral == NULL);
    frame_unlink(f);
    frame_count_all(f, FATE_DELIVERED); /* the head's count and the body's lines may differ in a damaged world */
    if (f->head.is_parked)
        finish_parked(f);
    else if (!f->is_damaged && queue_ack(f->d->q, f->head.seq))
        frame_commit(f);
    else
        recount_parked(f);
    frame_free(f);
}

void frame_settle_one(struct frame *f)
{
    assert(f->n_open > 0);
    f->n_open--;
    if (f->n_open == 1 && f->deferral != NULL)
        verdict_deferred(f);
    else if (f->n_open == 0)
        finish(f);
}

void frame_let_go(struct frame *f)
{
    assert(f->n_open > 0);
    if (--f->n_open == (f->deferral != NULL ? 1u : 0u)) {
        frame_unlink(f);
        frame_free(f);
    }
}

/* --- parts --- */

struct part *part_whole(struct frame *f)
{
    struct part *p = calloc(1, sizeof(*p));
    if (p == NULL)
        return NULL;
    p->frame = f;
    p->n = f->head.lines;
    f->n_open++;
    return p;
}

void part_add(struct part *p, uint32_t index, uint32_t row)
{
    p->bits[index / 8] |= (uint8_t)(1u << index % 8);
    if (p->row_lines != NULL && row < p->frame->n_rows)
        p->row_lines[row]++;
    p->first = p->n == 0 ? index : MIN(p->first, index);
    p->n++;
}

struct part *part_some(struct frame *f, const uint32_t *idx, uint32_t n, uint32_t n_items, const uint8_t *row_of)
{
    assert(n > 0 && idx[n - 1] < n_items);
    struct part *p = calloc(1, sizeof(*p));
    if (p == NULL)
        return NULL;
    p->bits = calloc(1, (n_items + 7) / 8);
    p->row_lines = f->n_rows > 1 ? calloc(f->n_rows, sizeof(p->row_lines[0])) : NULL;
    if (p->bits == NULL || (f->n_rows > 1 && p->row_lines == NULL)) {
        free(p->bits);
        free(p->row_lines);
        free(p);
        return NULL;
    }
    p->frame = f;
    for (uint32_t i = 0; i < n; i++)
        part_add(p, idx[i], row_of == NULL ? 0 : row_of[idx[i]]);
    p->is_alone = true;
    f->n_open++;
    return p;
}

void part_free(struct part *p)
{
    if (p == NULL)
        return;
    free(p->bits);
    free(p->row_lines);
    free(p);
}

void part_settle(struct part *p)
{
    struct frame *f = p->frame;
    part_free(p);
    frame_settle_one(f);
}

void part_count(const struct part *p, enum fate fate)
{
    struct frame *f = p->frame;
    if (p->bits == NULL)
        frame_count_all(f, fate);
    else if (p->row_lines == NULL)
        frame_count(f, 0, p->n, fate);
    else
        for (uint32_t i = 0; i < f->n_rows; i++)
            frame_count(f, i, p->row_lines[i], fate);
}

void part_indexes(const struct part *p, uint32_t *idx)
{
    if (p->bits == NULL) {
        for (uint32_t i = 0; i < p->n; i++)
            idx[i] = i;
        return;
    }
    for (uint32_t i = p->first, n = 0; n < p->n; i++)
        if (p->bits[i / 8] >> i % 8 & 1)
            idx[n++] = i;
}
