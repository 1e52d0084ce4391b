/*
 * verdict.c - from a judged reply to what becomes of each line that was in the request.
 *
 * Whatever cannot be carried out for want of memory ends as a plain retry: the same lines again is always right.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/deliver/dead.h"
#include "agent/deliver/shipment.h"

/* Keys in one reply that get a lane each; beyond, the lines stay together in their own. */
#define KEYS_MAX 16
/* Resets of one frame's request, others accepted meanwhile, after which its size is to blame. */
#define RESETS_MAX 3

/* --- parts --- */

static struct part *take_part(struct shipment *sh)
{
    struct part *p = sh->parts;
    sh->parts = p->next;
    sh->n_parts--;
    p->next = NULL;
    return p;
}

static void give_back(struct shipment *sh, struct part *p)
{
    lane_add(sh->lane, p);
}

static void give_back_all(struct shipment *sh)
{
    while (sh->parts != NULL)
        give_back(sh, take_part(sh));
}

/* Lines that went as text because the mapping refused them as they were. */
static void count_altered(const struct part *p)
{
    const struct frame *f = p->frame;
    for (uint32_t i = 0; i < f->n_rows; i++) {
        const uint32_t lines = p->row_lines != NULL ? p->row_lines[i] : i == 0 ? p->n : 0;
        if (f->rows[i].input < INPUTS_MAX)
            counter_add(&stats.inputs[f->rows[i].input].altered[ALTER_REFUSED_MAPPING], lines);
    }
}

static void note_frame_accepted(struct frame *f)
{
    f->has_accepted = true;
    f->n_refusals = 0;
    if (f->n_deferred > 0)
        verdict_deferred(f);
}

static void part_delivered(struct part *p)
{
    struct frame *f = p->frame;
    if (p->as_text)
        count_altered(p);
    part_count(p, FATE_DELIVERED);
    histogram_observe(&f->d->st->delivery_delay, clock_wall_ns() - f->head.built_ns);
    note_frame_accepted(f);
    part_settle(p);
}

static void accepted(struct shipment *sh, int64_t now)
{
    delivery_accepted(sh->d, sh->lane, sh->url, now);
    lane_accept(sh->lane, now);
}

/* --- retry, hold --- */

static void describe(const struct http_reply *reply, const struct judgement *j, char *to, size_t cap)
{
    if (reply->status != 0)
        (void)snprintf(to, cap, "HTTP %ld %s: %s", reply->status, j->reason, j->text);
    else
        (void)snprintf(to, cap, "%s: %.*s", reply->failure, (int)MIN(reply->failure_text.len, (size_t)300),
                       reply->failure_text.ptr);
}

/* The whole server is away, or one of several: another URL takes over at once. */
static void url_failed(struct shipment *sh, const struct http_reply *reply, bool is_hold, const char *text, int64_t now)
{
    struct delivery *d = sh->d;
    delivery_url_failed(d, sh->url, is_hold, reply->retry_after_ns, now);
    int64_t when = now;
    if (delivery_pick_url(d, now, &when) < 0)
        delivery_refused(d, sh->lane, true, d->urls[sh->url].attempt, MAX(d->urls[sh->url].not_before_ns - now, 0),
                         is_hold, text);
}

/* Nothing of the request counts as settled: its parts wait in their lane. */
static void refused(struct shipment *sh, const struct http_reply *reply, const struct judgement *j, bool is_hold,
                    int64_t now)
{
    char text[400];
    describe(reply, j, text, sizeof(text));
    struct delivery *d = sh->d;
    /* Others were answered while this one was under way: it is this key's trouble. */
    const bool has_failed = reply->status == 0 && !delivery_others_accepted(d, NULL, sh->started_ns);
    const bool may_fail_over = d->n_urls > 1 && reply->status >= 500 && !is_hold;
    if (has_failed || may_fail_over) {
        url_failed(sh, reply, is_hold, text, now);
    } else {
        if (reply->status != 0) /* it answers */
            d->urls[sh->url].attempt = 0;
        const int64_t delay = lane_refuse(sh->lane, is_hold, (int32_t)reply->status, j->reason, j->text,
                                          reply->retry_after_ns, now);
        delivery_refused(d, sh->lane, false, sh->lane->attempt, delay, is_hold, text);
    }
    give_back_all(sh);
}

/* --- halves --- */

/* A frame read and decoded, for what is to be done line by line. */
struct decoded {
    struct loaded ld;
    struct items items;
    uint8_t *row_of;  /* of each item */
    uint32_t *idx;    /* room for as many indexes as items */
};

static void decoded_free(struct decoded *dec)
{
    if (dec == NULL)
        return;
    loaded_deinit(&dec->ld);
    items_deinit(&dec->items);
    free(dec->row_of);
    free(dec->idx);
    free(dec);
}

static int decode(struct frame *f, struct decoded **ret)
{
    struct delivery *d = f->d;
    struct decoded *dec = calloc(1, sizeof(*dec));
    if (dec == NULL)
        return -ENOMEM;
    loaded_init(&dec->ld);
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
static void undecodable(struct shipment *sh, struct part *p, int r, int64_t now)
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
        undecodable(sh, p, -ENOMEM, now);
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
        undecodable(sh, p, -ENOMEM, now);
    else
        part_settle(p);
}

static void split(struct shipment *sh, struct part *p, const struct judgement *j, int32_t status, int64_t now)
{
    struct decoded *dec = NULL;
    int r = decode(p->frame, &dec);
    if (r < 0) {
        undecodable(sh, p, r, now);
        return;
    }
    if (indexes_of(p, dec) > 1)
        halve(sh, p, dec, now);
    else
        one_dead(sh, p, dec, j, "too_large", status, now);
    decoded_free(dec);
}

/* Several frames in one request: each for itself, then it shows whose fault it was. */
static void unjoin(struct shipment *sh)
{
    for (struct part *p = sh->parts; p != NULL; p = p->next)
        p->is_alone = true;
    give_back_all(sh);
}

/* --- bisecting --- */

/* Lines of this frame, or of its lane since then, were accepted: a refused line is that line's own fault. */
static bool is_line_to_blame(const struct frame *f)
{
    return f->has_accepted || (f->refused_ns != 0 && f->lane->accepted_ns > f->refused_ns);
}

/* Puts a refused single line aside until it is known whose fault it is. */
static int defer(struct frame *f, const struct part *p, uint32_t index, uint32_t n_items, const struct judgement *j,
                 int32_t status)
{
    if (f->deferred == NULL) {
        f->deferred = calloc(1, (n_items + 7) / 8);
        if (f->deferred == NULL)
            return -ENOMEM;
    }
    (void)p;
    if (f->n_deferred++ == 0)
        f->n_open++; /* all of them together hold the frame open once */
    f->deferred[index / 8] |= (uint8_t)(1u << index % 8);
    f->deferred_status = status;
    (void)snprintf(f->deferred_reason, sizeof(f->deferred_reason), "%s", j->reason);
    (void)snprintf(f->deferred_text, sizeof(f->deferred_text), "%s", j->text);
    return 0;
}

/* Refused lines back into one part. When the server takes others of the frame by now they are asked once more, for they
 * may have been refused before it was set right; when it takes none, it is the configuration. */
static int requeue_deferred(struct frame *f, struct decoded *dec, uint32_t n, int64_t now)
{
    struct part *p = part_some(f, dec->idx, n, (uint32_t)dec->items.n, dec->row_of);
    if (p == NULL)
        return -ENOMEM;
    lane_add(f->lane, p);
    if (is_line_to_blame(f))
        return 0;
    f->n_refusals = MAX(f->n_refusals, VERDICT_REFUSALS_MAX);
    const int64_t delay = lane_refuse(f->lane, true, f->deferred_status, f->deferred_reason, f->deferred_text, -1, now);
    delivery_refused(f->d, f->lane, false, f->lane->attempt, delay, true, f->deferred_text);
    return 0;
}

void verdict_deferred(struct frame *f)
{
    struct decoded *dec = NULL;
    int r = f->is_damaged ? -EBADMSG : decode(f, &dec);
    uint32_t n = 0;
    for (uint32_t i = 0; r == 0 && i < dec->items.n && n < f->n_deferred; i++)
        if (f->deferred[i / 8] >> i % 8 & 1)
            dec->idx[n++] = i;
    if (r == 0)
        r = requeue_deferred(f, dec, n, clock_mono_ns());
    decoded_free(dec);
    if (r < 0 && r != -EBADMSG)
        return; /* no memory, or the disk: the lines stay deferred, the frame open; the next start sends it again */
    f->n_deferred = 0;
    free(f->deferred);
    f->deferred = NULL;
    frame_settle_one(f);
}

static void bisect_one(struct shipment *sh, struct part *p, struct decoded *dec, const struct judgement *j,
                       int32_t status, int64_t now)
{
    struct frame *f = p->frame;
    (void)indexes_of(p, dec);
    if (is_line_to_blame(f)) {
        one_dead(sh, p, dec, j, j->reason, status, now);
    } else if (defer(f, p, dec->idx[0], (uint32_t)dec->items.n, j, status) < 0) {
        undecodable(sh, p, -ENOMEM, now);
    } else {
        part_settle(p);
    }
}

static void bisect(struct shipment *sh, struct part *p, const struct judgement *j, const struct http_reply *reply,
                   int64_t now)
{
    struct frame *f = p->frame;
    const int32_t status = (int32_t)reply->status;
    if (f->refused_ns == 0)
        f->refused_ns = now;
    const bool is_hopeless = !is_line_to_blame(f) && f->n_refusals >= VERDICT_REFUSALS_MAX;
    f->n_refusals += f->n_refusals < VERDICT_REFUSALS_MAX;
    struct decoded *dec = NULL;
    int r = decode(f, &dec);
    if (r < 0) {
        undecodable(sh, p, r, now);
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
        lane_narrow(sh->lane, now);
}

/* --- line by line --- */

/* Where lines go that are not done: one group for each key, or text, or dead with one reason. */
struct group_of {
    struct lane *lane;
    enum item_verdict verdict;
    const char *reason; /* in the judgement's array */
    uint32_t n;
    struct part *part;
};

struct sorting {
    struct shipment *sh;
    struct part *p;
    struct decoded *dec;
    const struct items *items;      /* of the request */
    const enum item_verdict *verdicts;
    char (*reasons)[64];
    const struct judgement *j;
    int32_t status;                 /* of the reply */
    size_t off;                     /* of the part in the request */
    struct group_of groups[KEYS_MAX * 2 + 1];
    size_t n_groups;
    uint32_t n_done, n_text, n_dead, n_wait;
    bool has_many_keys;
};

static enum item_verdict verdict_of(const struct sorting *so, uint32_t i)
{
    const enum item_verdict v = so->verdicts[so->off + i];
    return v == ITEM_TEXT && so->p->as_text ? ITEM_DEAD : v; /* text was the last word */
}

static struct lane *lane_of(const struct sorting *so, uint32_t i)
{
    const struct slice key = so->items->item[so->off + i].key;
    if (so->has_many_keys || key.len == 0)
        return so->sh->lane;
    return lane_get(so->sh->d, key);
}

static struct group_of *group_for(struct sorting *so, struct lane *lane, enum item_verdict v)
{
    for (size_t i = so->n_groups; i > 0; i--)
        if (so->groups[i - 1].lane == lane && so->groups[i - 1].verdict == v)
            return &so->groups[i - 1];
    if (so->n_groups == ARRAY_LEN(so->groups))
        return NULL;
    struct group_of *g = &so->groups[so->n_groups++];
    *g = (struct group_of){ .lane = lane, .verdict = v };
    return g;
}

/* First pass: how many lines have which fate. -E2BIG: too many keys, begin again with has_many_keys. */
static int survey(struct sorting *so)
{
    so->n_groups = 0;
    so->n_done = so->n_text = so->n_dead = so->n_wait = 0;
    for (uint32_t i = 0; i < so->p->n; i++) {
        const enum item_verdict v = verdict_of(so, i);
        struct group_of *g = NULL;
        switch (v) {
        case ITEM_DONE:
            so->n_done++;
            continue;
        case ITEM_DEAD:
            so->n_dead++;
            continue;
        case ITEM_TEXT:
            so->n_text++;
            g = group_for(so, so->sh->lane, v);
            break;
        case ITEM_RETRY:
        case ITEM_HOLD: {
            struct lane *l = lane_of(so, i);
            if (l == NULL)
                return -ENOMEM;
            so->n_wait++;
            g = group_for(so, l, v);
            break;
        }
        }
        if (g == NULL || (so->n_groups > KEYS_MAX && !so->has_many_keys))
            return -E2BIG;
        if (g->reason == NULL)
            g->reason = so->reasons[so->off + i][0] != '\0' ? so->reasons[so->off + i] : so->j->reason;
        g->n++;
    }
    return 0;
}

/* The frame's indexes of the lines of one group. */
static uint32_t collect(const struct sorting *so, const struct group_of *g, const uint32_t *all, uint32_t *idx)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < so->p->n; i++) {
        const enum item_verdict v = verdict_of(so, i);
        if (v == g->verdict && (v == ITEM_TEXT || lane_of(so, i) == g->lane))
            idx[n++] = all[i];
    }
    return n;
}

static int make_parts(struct sorting *so, const uint32_t *all, uint32_t *idx)
{
    for (size_t k = 0; k < so->n_groups; k++) {
        struct group_of *g = &so->groups[k];
        const uint32_t n = collect(so, g, all, idx);
        g->part = part_some(so->p->frame, idx, n, (uint32_t)so->dec->items.n, so->dec->row_of);
        if (g->part == NULL)
            return -ENOMEM;
        g->part->as_text = g->verdict == ITEM_TEXT || (so->p->as_text && g->verdict != ITEM_HOLD);
    }
    return 0;
}

static void drop_parts(struct sorting *so)
{
    for (size_t k = 0; k < so->n_groups; k++) {
        if (so->groups[k].part == NULL)
            continue;
        part_free(so->groups[k].part);
        so->p->frame->n_open--;
    }
}

#define DEAD_REASONS_MAX 16

/* The dead lines of a part by reason. */
static int bury(struct sorting *so, const uint32_t *all, uint32_t *idx)
{
    struct dead_lines lots[DEAD_REASONS_MAX];
    size_t n_lots = 0;
    uint32_t used = 0;
    uint8_t *lot_of = calloc(so->p->n, 1);
    if (lot_of == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < so->p->n; i++) {
        if (verdict_of(so, i) != ITEM_DEAD)
            continue;
        const char *word = so->reasons[so->off + i][0] != '\0' ? so->reasons[so->off + i] : so->j->reason;
        size_t k = 0;
        while (k < n_lots && strcmp(lots[k].reason, word) != 0)
            k++;
        if (k == DEAD_REASONS_MAX)
            k = DEAD_REASONS_MAX - 1; /* the rest goes under the last one's name */
        if (k == n_lots)
            lots[n_lots++] = (struct dead_lines){ .reason = word, .text = so->j->text, .status = so->status,
                                                  .is_partly_stored = so->j->partly_stored };
        lot_of[i] = (uint8_t)(k + 1);
    }
    for (size_t k = 0; k < n_lots; k++) {
        lots[k].idx = idx + used;
        for (uint32_t i = 0; i < so->p->n; i++)
            if (lot_of[i] == k + 1)
                idx[used + lots[k].n++] = all[i];
        used += lots[k].n;
    }
    free(lot_of);
    return dead_letter(so->p, &so->dec->ld, &so->dec->items, so->dec->row_of, lots, n_lots);
}

static void count_done(struct sorting *so, const uint32_t *all)
{
    struct frame *f = so->p->frame;
    uint32_t n_as_text = 0;
    for (uint32_t i = 0; i < so->p->n; i++) {
        if (verdict_of(so, i) != ITEM_DONE)
            continue;
        const uint32_t row = so->dec->row_of[all[i]];
        frame_count(f, row, 1, FATE_DELIVERED);
        n_as_text += so->p->as_text;
        if (so->p->as_text && row < f->n_rows && f->rows[row].input < INPUTS_MAX)
            counter_add(&stats.inputs[f->rows[row].input].altered[ALTER_REFUSED_MAPPING], 1);
    }
    /* A key whose line was taken is accepted again. */
    if (so->sh->d->n_lanes > 1 && n_as_text == 0)
        for (uint32_t i = 0; i < so->p->n; i++) {
            struct lane *l = verdict_of(so, i) == ITEM_DONE ? lane_find(so->sh->d, so->items->item[so->off + i].key)
                                                            : NULL;
            if (l != NULL && l->state != LANE_ACCEPTED)
                lane_accept(l, clock_mono_ns());
        }
}

static void let_wait(struct sorting *so, const struct http_reply *reply, int64_t now)
{
    for (size_t k = 0; k < so->n_groups; k++) {
        struct group_of *g = &so->groups[k];
        lane_add(g->lane, g->part);
        if (g->verdict == ITEM_TEXT)
            continue;
        const bool is_hold = g->verdict == ITEM_HOLD;
        const int64_t delay = lane_refuse(g->lane, is_hold, (int32_t)reply->status, g->reason, so->j->text,
                                          reply->retry_after_ns, now);
        delivery_refused(so->sh->d, g->lane, false, g->lane->attempt, delay, is_hold, so->j->text);
    }
}

/* One part of the request by the verdicts of its lines. False: not possible now, it goes back as it was. */
static bool sort_part(struct sorting *so, const struct http_reply *reply, int64_t now)
{
    struct part *p = so->p;
    int r = survey(so);
    if (r == -E2BIG) {
        so->has_many_keys = true;
        r = survey(so);
    }
    uint32_t *all = calloc(p->n, sizeof(*all));
    if (r == 0 && all == NULL)
        r = -ENOMEM;
    if (r == 0) {
        part_indexes(p, all);
        r = all[p->n - 1] < so->dec->items.n ? make_parts(so, all, so->dec->idx) : -EPROTO;
    }
    if (r == 0 && so->n_dead > 0)
        r = bury(so, all, so->dec->idx);
    if (r < 0) {
        drop_parts(so);
        free(all);
        return false;
    }
    count_done(so, all);
    free(all);
    if (so->n_done > 0) {
        histogram_observe(&so->sh->d->st->delivery_delay, clock_wall_ns() - p->frame->head.built_ns);
        note_frame_accepted(p->frame);
    }
    let_wait(so, reply, now);
    part_settle(p);
    return true;
}

/* Every line of the request has its own verdict. */
static void sort_all(struct shipment *sh, const struct http_reply *reply, const struct judgement *j,
                     const struct items *items, int64_t now)
{
    uint32_t n_answered = 0, n_wait = 0;
    for (size_t i = 0; i < items->n; i++) {
        n_wait += j->items[i] == ITEM_RETRY || j->items[i] == ITEM_HOLD;
        n_answered += j->items[i] != ITEM_RETRY && j->items[i] != ITEM_HOLD;
    }
    if (n_answered > 0)
        accepted(sh, now);
    size_t off = 0;
    while (sh->parts != NULL) {
        struct part *p = take_part(sh);
        struct sorting *so = calloc(1, sizeof(*so));
        struct decoded *dec = NULL;
        const uint32_t n = sh->n_parts == 0 && off == 0 ? (uint32_t)items->n : p->n;
        p->n = n;
        int r = so == NULL ? -ENOMEM : decode(p->frame, &dec);
        if (r == 0) {
            *so = (struct sorting){ .sh = sh, .p = p, .dec = dec, .items = items, .verdicts = j->items,
                                    .reasons = j->item_reasons, .j = j, .off = off,
                                    .status = (int32_t)reply->status };
            r = sort_part(so, reply, now) ? 0 : -ENOMEM;
        }
        if (r < 0)
            undecodable(sh, p, r, now);
        decoded_free(dec);
        free(so);
        off += n;
    }
    if (n_answered == 0 && n_wait > 0) {
        const int64_t delay = lane_refuse(sh->lane, false, (int32_t)reply->status, j->reason, j->text,
                                          reply->retry_after_ns, now);
        delivery_refused(sh->d, sh->lane, false, sh->lane->attempt, delay, false, j->text);
    }
}

static void apply_whole(struct shipment *sh, const struct http_reply *reply, const struct judgement *j, int64_t now);

/* Asks the output for a verdict per line. */
static void apply_items(struct shipment *sh, const struct http_reply *reply, struct judgement *j, int64_t now)
{
    const struct output_ops *ops = sh->d->out->ops;
    struct items items = { 0 };
    int r = ops->items(sh->d->out, buf_slice(&sh->wire), lane_key(sh->parts->frame->lane), &items);
    j->items = r < 0 ? NULL : calloc(items.n + 1, sizeof(j->items[0]));
    j->item_reasons = r < 0 ? NULL : calloc(items.n + 1, sizeof(j->item_reasons[0]));
    const bool is_other_number = items.n != reply->lines_sent && (sh->n_parts > 1 || sh->parts->bits != NULL);
    if (j->items == NULL || j->item_reasons == NULL || items.n == 0) {
        j->verdict = VERDICT_RETRY;
    } else if (is_other_number) {
        unjoin(sh);
        j->verdict = VERDICT_SENT; /* nothing is left in the shipment */
    } else {
        ops->judge_items(sh->d->out, reply, &items, j);
        if (j->verdict == VERDICT_ITEMS)
            sort_all(sh, reply, j, &items, now);
    }
    if (sh->parts != NULL)
        apply_whole(sh, reply, j, now);
    free(j->items);
    free(j->item_reasons);
    items_deinit(&items);
}

/* --- all together --- */

/* A server that closes before it has read all may mean "too large" (Elasticsearch 9 does). */
static bool is_reset_too_often(struct shipment *sh, const struct http_reply *reply, int64_t now)
{
    struct part *p = sh->parts;
    if (reply->status != 0 || strcmp(reply->failure, "reset") != 0 || sh->n_parts > 1)
        return false;
    if (p->resets++ == 0)
        p->reset_ns = now;
    return p->resets >= RESETS_MAX && delivery_others_accepted(sh->d, NULL, p->reset_ns);
}

static void apply_whole(struct shipment *sh, const struct http_reply *reply, const struct judgement *j, int64_t now)
{
    switch (j->verdict) {
    case VERDICT_SENT:
        accepted(sh, now);
        while (sh->parts != NULL)
            part_delivered(take_part(sh));
        return;
    case VERDICT_ITEMS: /* it was asked, and had none: unknown, so again */
    case VERDICT_RETRY:
        refused(sh, reply, j, false, now);
        return;
    case VERDICT_HOLD:
        refused(sh, reply, j, true, now);
        return;
    case VERDICT_SPLIT:
    case VERDICT_BISECT:
        if (reply->status != 0)
            sh->d->urls[sh->url].attempt = 0; /* it answers */
        if (sh->n_parts > 1)
            unjoin(sh);
        else if (j->verdict == VERDICT_SPLIT)
            split(sh, take_part(sh), j, (int32_t)reply->status, now);
        else
            bisect(sh, take_part(sh), j, reply, now);
        return;
    }
}

void verdict_apply(struct shipment *sh, const struct http_reply *reply)
{
    const int64_t now = clock_mono_ns();
    struct judgement j = { .verdict = VERDICT_RETRY };
    sh->d->out->ops->judge(sh->d->out, reply, buf_slice(&sh->wire), &j);
    if (is_reset_too_often(sh, reply, now)) {
        j.verdict = VERDICT_SPLIT;
        (void)snprintf(j.text, sizeof(j.text), "the server closes the connection before it has read the request");
    }
    if (reply->status != 0) /* only resets in a row count */
        for (struct part *p = sh->parts; p != NULL; p = p->next)
            p->resets = 0;
    if (j.verdict == VERDICT_ITEMS)
        apply_items(sh, reply, &j, now);
    else
        apply_whole(sh, reply, &j, now);
    assert(sh->parts == NULL);
}

/* Setup: a template, say. A refusal is said and tolerated; a server that is away is asked again. */
void verdict_setup(struct shipment *sh, const struct http_reply *reply)
{
    struct delivery *d = sh->d;
    const int64_t now = clock_mono_ns();
    struct judgement j = { 0 };
    char text[400];
    d->is_setup_sent = false;
    (void)snprintf(j.text, sizeof(j.text), "%.*s", (int)MIN(reply->body.len, (size_t)300), reply->body.ptr);
    (void)snprintf(j.reason, sizeof(j.reason), "setup");
    describe(reply, &j, text, sizeof(text));
    if (reply->status == 0) {
        const bool is_hold = strcmp(reply->failure, "tls") == 0;
        delivery_url_failed(d, sh->url, is_hold, -1, now);
        delivery_refused(d, NULL, true, d->urls[sh->url].attempt, d->urls[sh->url].not_before_ns - now, is_hold, text);
        return;
    }
    if (reply->status == 429 || reply->status >= 500) {
        d->setup_tries++;
        delivery_url_failed(d, sh->url, false, MIN(reply->retry_after_ns, deliver_timing.backoff_max_ns), now);
        return;
    }
    d->urls[sh->url].attempt = 0;
    d->setup_tries = 0;
    d->setup_step++;
    if (reply->status >= 300)
        log_warn("deliver", "output.setup", "the server refused a setup request; lines are sent all the same",
                 LOG_SLICE("output", d->conf->name), LOG_CSTR("error", text));
}
