/*
 * halves.c - requests that are too large, or refused for something in them: halves, down to the line.
 *
 * A line that is refused alone is dead only when the server takes others: of its frame, or of its lane since. Until that
 * is known it is deferred; when nothing is taken it is the configuration, and the lane is held.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/base/clock.h"
#include "agent/deliver/dead.h"
#include "agent/deliver/verdict.h"

/* --- decoding --- */

void decoded_free(struct decoded *dec)
{
    if (dec == NULL)
        return;
    loaded_deinit(&dec->ld);
    items_deinit(&dec->items);
    free(dec->row_of);
    free(dec->idx);
    free(dec);
}

int frame_decode(struct frame *f, struct decoded **ret)
{
    struct delivery *d = f->d;
    struct decoded *dec = calloc(1, sizeof(*dec));
    if (dec == NULL)
        return -ENOMEM;
    loaded_init(&dec->ld, d->account);
    int r = loaded_read(&dec->ld, d->q, &f->head);
    if (r == -EBADMSG)
        f->is_damaged = true;
    if (r == 0) {
        r = d->out->ops->items(d->out, buf_slice(&dec->ld.body), dec->ld.fields.route, &dec->items);
        if (r == -EBADMSG || (r == 0 && dec->items.n == 0))
            r = -EPROTO;
    }
    if (r == 0) {
        dec->row_of = calloc(dec->items.n, 1);
        dec->idx = calloc(dec->items.n, sizeof(dec->idx[0]));
        r = dec->row_of == NULL || dec->idx == NULL ? -ENOMEM : 0;
    }
    if (r < 0) {
        decoded_free(dec);
        return r;
    }
    runs_decode(dec->ld.fields.runs, dec->row_of, dec->items.n);
    *ret = dec;
    return 0;
}

/* A frame that cannot be decoded: damaged ones go (the queue has counted them), others are held, for a person to see. */
void verdict_undecodable(struct shipment *sh, struct part *p, int r, int64_t now)
{
    if (r == -EBADMSG) {
        part_settle(p);
        return;
    }
    lane_add(sh->lane, p);
    const bool is_hold = r == -EPROTO;
    (void)lane_refuse(sh->lane, is_hold, 0, is_hold ? "undecodable" : "local",
                      is_hold ? "a body in the queue cannot be taken apart" : "no memory, or the disk cannot be read",
                      -1, now);
}

/* What part p is of its frame, with the frame's items at hand: n indexes in dec->idx. A whole part learns its number. */
static uint32_t indexes_of(struct part *p, struct decoded *dec)
{
    if (p->bits == NULL)
        p->n = (uint32_t)dec->items.n;
    part_indexes(p, dec->idx);
    return p->n;
}

static void halve(struct shipment *sh, struct part *p, struct decoded *dec, int64_t now)
{
    struct frame *f = p->frame;
    const uint32_t n = indexes_of(p, dec), half = n / 2, n_items = (uint32_t)dec->items.n;
    struct part *a = part_some(f, dec->idx, half, n_items, dec->row_of);
    struct part *b = a == NULL ? NULL : part_some(f, dec->idx + half, n - half, n_items, dec->row_of);
    if (b == NULL) {
        if (a != NULL) {
            part_free(a);
            f->n_open--;
        }
        verdict_undecodable(sh, p, -ENOMEM, now);
        return;
    }
    a->as_text = b->as_text = p->as_text;
    lane_add(sh->lane, a);
    lane_add(sh->lane, b);
    part_settle(p);
}

/* One line that the server does not want, whatever is done. */
static void one_dead(struct shipment *sh, struct part *p, struct decoded *dec, const struct judgement *j,
                     const char *reason, int32_t status, int64_t now)
{
    const uint32_t n = indexes_of(p, dec);
    const struct dead_lines lines = { .idx = dec->idx, .n = n, .reason = reason, .text = j->text, .status = status };
    if (dead_letter(p, &dec->ld, &dec->items, dec->row_of, &lines, 1) < 0)
        verdict_undecodable(sh, p, -ENOMEM, now);
    else
        part_settle(p);
}

void verdict_split(struct shipment *sh, struct part *p, const struct judgement *j, int32_t status, int64_t now)
{
    struct decoded *dec = NULL;
    int r = frame_decode(p->frame, &dec);
    if (r < 0) {
        verdict_undecodable(sh, p, r, now);
        return;
    }
    if (indexes_of(p, dec) > 1)
        halve(sh, p, dec, now);
    else
        one_dead(sh, p, dec, j, "too_large", status, now);
    decoded_free(dec);
}

/* --- bisecting --- */

/* Lines of this frame, or of its lane since then, were accepted: a refused line is that line's own fault. */
static bool is_line_to_blame(const struct frame *f)
{
    return f->has_accepted || (f->refused_ns != 0 && f->lane->accepted_ns > f->refused_ns);
}

/* Puts a refused single line aside until it is known whose fault it is. */
static int defer(struct frame *f, uint32_t index, struct decoded *dec, const struct judgement *j, int32_t status)
{
    struct deferral *df = f->deferral;
    if (df == NULL) {
        df = calloc(1, sizeof(*df));
        if (df == NULL)
            return -ENOMEM;
        df->lines = part_some(f, &index, 1, (uint32_t)dec->items.n, dec->row_of);
        if (df->lines == NULL) {
            free(df);
            return -ENOMEM;
        }
        f->deferral = df;
    } else {
        part_add(df->lines, index, dec->row_of[index]);
    }
    df->status = status;
    (void)snprintf(df->reason, sizeof(df->reason), "%s", j->reason);
    (void)snprintf(df->text, sizeof(df->text), "%s", j->text);
    return 0;
}

/* Refused lines wait again, as one part. When the server takes others of the frame by now they are asked once more, for
 * they may have been refused before it was set right; when it takes none, it is the configuration. Nothing here can fail:
 * nobody would come back to them. */
void verdict_deferred(struct frame *f)
{
    struct deferral *df = f->deferral;
    f->deferral = NULL;
    if (f->is_damaged) {
        part_settle(df->lines);
    } else {
        lane_add(f->lane, df->lines);
        if (!is_line_to_blame(f)) {
            f->n_refusals = MAX(f->n_refusals, VERDICT_REFUSALS_MAX);
            const int64_t delay = lane_refuse(f->lane, true, df->status, df->reason, df->text, -1, clock_mono_ns());
            delivery_refused(f->d, f->lane, false, f->lane->attempt, delay, true, df->text);
        }
    }
    free(df);
}

static void bisect_one(struct shipment *sh, struct part *p, struct decoded *dec, const struct judgement *j,
                       int32_t status, int64_t now)
{
    struct frame *f = p->frame;
    (void)indexes_of(p, dec);
    if (is_line_to_blame(f)) {
        one_dead(sh, p, dec, j, j->reason, status, now);
    } else if (defer(f, dec->idx[0], dec, j, status) < 0) {
        verdict_undecodable(sh, p, -ENOMEM, now);
    } else {
        part_settle(p);
    }
}

void verdict_bisect(struct shipment *sh, struct part *p, const struct judgement *j, const struct http_reply *reply,
                   int64_t now)
{
    struct frame *f = p->frame;
    const int32_t status = (int32_t)reply->status;
    if (f->refused_ns == 0)
        f->refused_ns = now;
    const bool is_hopeless = !is_line_to_blame(f) && f->n_refusals >= VERDICT_REFUSALS_MAX;
    f->n_refusals += f->n_refusals < VERDICT_REFUSALS_MAX;
    struct decoded *dec = NULL;
    int r = frame_decode(f, &dec);
    if (r < 0) {
        verdict_undecodable(sh, p, r, now);
        return;
    }
    if (indexes_of(p, dec) > 1)
        halve(sh, p, dec, now);
    else
        bisect_one(sh, p, dec, j, status, now);
    decoded_free(dec);
    if (is_hopeless)
        (void)lane_refuse(sh->lane, true, status, j->reason, j->text, reply->retry_after_ns, now);
    else
        lane_narrow(sh->lane, status, j->reason, j->text, now);
}
