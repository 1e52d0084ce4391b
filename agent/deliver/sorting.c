/*
 * sorting.c - replies with a verdict for each line: done, again, held by its key, once more as text, dead.
 */
#include <errno.h>
#include <stdlib.h>

#include "agent/base/clock.h"
#include "agent/deliver/dead.h"
#include "agent/deliver/verdict.h"

/* Keys in one reply that get a lane each; beyond, the lines stay together in their own. */
#define KEYS_MAX 16

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

/* The server's words are those of the worst line; for others the reason has to do. */
static const char *words_for(const struct sorting *so, const char *reason)
{
    return strcmp(reason, so->j->reason) == 0 ? so->j->text : reason;
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
            lots[n_lots++] = (struct dead_lines){ .reason = word, .text = words_for(so, word), .status = so->status,
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
        const char *words = words_for(so, g->reason);
        const int64_t delay = lane_refuse(g->lane, is_hold, (int32_t)reply->status, g->reason, words,
                                          reply->retry_after_ns, now);
        delivery_refused(so->sh->d, g->lane, false, g->lane->attempt, delay, is_hold, words);
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
        verdict_frame_accepted(p->frame);
    }
    let_wait(so, reply, now);
    part_settle(p);
    return true;
}

/* Every line of the request has its own verdict. */
void verdict_sort(struct shipment *sh, const struct http_reply *reply, const struct judgement *j,
                     const struct items *items, int64_t now)
{
    uint32_t n_answered = 0, n_wait = 0;
    for (size_t i = 0; i < items->n; i++) {
        n_wait += j->items[i] == ITEM_RETRY || j->items[i] == ITEM_HOLD;
        n_answered += j->items[i] != ITEM_RETRY && j->items[i] != ITEM_HOLD;
    }
    if (n_answered > 0)
        verdict_accepted(sh, now);
    size_t off = 0;
    while (sh->parts != NULL) {
        struct part *p = shipment_take_part(sh);
        struct sorting *so = calloc(1, sizeof(*so));
        struct decoded *dec = NULL;
        const uint32_t n = sh->n_parts == 0 && off == 0 ? (uint32_t)items->n : p->n;
        p->n = n;
        int r = so == NULL ? -ENOMEM : frame_decode(p->frame, &dec);
        if (r == 0) {
            *so = (struct sorting){ .sh = sh, .p = p, .dec = dec, .items = items, .verdicts = j->items,
                                    .reasons = j->item_reasons, .j = j, .off = off,
                                    .status = (int32_t)reply->status };
            r = sort_part(so, reply, now) ? 0 : -ENOMEM;
        }
        if (r < 0)
            verdict_undecodable(sh, p, r, now);
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
