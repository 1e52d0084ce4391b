#include "agent/queue/rereads.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "agent/base/array.h"
#include "agent/base/bytes.h"
#include "agent/queue/core.h"

/* ---- ranges ---- */

void gaps_deinit(struct gaps *g)
{
    free(g->list);
    buf_deinit(&g->held);
    *g = (struct gaps){ 0 };
}

static bool is_same(const struct reread_range *a, const struct reread_range *b)
{
    return a->to.incarnation == b->to.incarnation && a->from.end == b->from.end && a->to.end == b->to.end;
}

static int put_range(struct reread_range **list, size_t *n, size_t *cap, const struct reread_range *range)
{
    struct reread_range *grown = array_room(*list, *n, cap, sizeof(*grown));
    if (grown == NULL)
        return -ENOMEM;
    *list = grown;
    (*list)[(*n)++] = *range;
    return 0;
}

int gaps_put(struct gaps *g, const struct reread_range *range)
{
    for (size_t i = 0; i < g->n; i++)
        if (is_same(&g->list[i], range))
            return 0;
    return g->n == GAPS_MAX ? 0 : put_range(&g->list, &g->n, &g->cap, range);
}

static int write_range(const struct reread_range *g, struct buf *meta)
{
    struct lost_range lost = { .incarnation = g->to.incarnation, .start = g->from.end, .end = g->to.end,
                               .reason = LOST_DAMAGE };
    int r = meta_put_lost(meta, &lost);
    if (r == 0)
        r = meta_put_position(meta, &g->from);
    if (r == 0 && g->knows_to)
        r = meta_put_position(meta, &g->to);
    return r;
}

/* HELD: length of the route (2), 1 = all of this route (1), zero (1), route, sources. An empty one of no route is the mark that
 * the ranges are to be read again. */
#define HELD_BYTES 4

static int write_ranges(const struct reread_range *list, size_t n, struct slice held, struct buf *meta)
{
    static const char mark[HELD_BYTES];
    int r = n > 0 ? meta_put(meta, META_HELD, false, slice_of(mark, sizeof(mark))) : 0;
    for (size_t i = 0; r == 0 && i < n; i++)
        r = write_range(&list[i], meta);
    return r == 0 && n > 0 ? buf_append_slice(meta, held) : r;
}

int gaps_write(const struct gaps *g, struct buf *meta)
{
    return write_ranges(g->list, g->n, buf_slice(&g->held), meta);
}

/* ---- what other frames hold ---- */

int held_put(struct buf *held, struct slice frame_meta)
{
    struct slice route = SLICE(""), sources = SLICE("");
    struct meta_item item;
    bool has_sources = false;
    while (meta_next(&frame_meta, &item) > 0) {
        if (item.tag == META_ROUTE)
            route = slice_first(item.bytes, UINT16_MAX);
        if (item.tag == META_SOURCES) {
            sources = item.bytes;
            has_sources = true;
        }
    }
    uint8_t p[HELD_BYTES] = { 0, 0, !has_sources };
    put_le16(p, (uint16_t)route.len);
    size_t mark;
    int r = meta_begin(held, META_HELD, false, &mark);
    if (r == 0)
        r = buf_append(held, p, sizeof(p));
    if (r == 0)
        r = buf_append_slice(held, route);
    if (r == 0)
        r = buf_append_slice(held, sources);
    if (r == 0)
        meta_end(held, mark);
    return r;
}

static bool is_mark(const struct meta_item *item)
{
    return item->tag == META_HELD && item->bytes.len == HELD_BYTES && get_le32(item->bytes.ptr) == 0;
}

bool reread_is_meant(struct slice meta)
{
    struct meta_item item;
    while (meta_next(&meta, &item) > 0)
        if (is_mark(&item))
            return true;
    return false;
}

bool reread_is_held(const struct reread *rr, struct slice route, uint64_t incarnation, uint8_t stream, uint64_t offset)
{
    struct slice rest = rr->held;
    struct meta_item item;
    while (meta_next(&rest, &item) > 0) {
        size_t len = item.tag != META_HELD || item.bytes.len < HELD_BYTES ? SIZE_MAX : get_le16(item.bytes.ptr);
        if (len > item.bytes.len || len > item.bytes.len - HELD_BYTES)
            continue;
        struct slice s = slice_from(item.bytes, HELD_BYTES);
        if (!slice_eq(slice_first(s, len), route))
            continue;
        if (item.bytes.ptr[2] != 0 || sources_have(slice_from(s, len), incarnation, stream, offset))
            return true;
    }
    return false;
}

/* ---- those that are to be done ---- */

static void reread_deinit(struct reread *r)
{
    free(r->ranges);
    free((void *)(uintptr_t)r->held.ptr);
}

void rereads_clear(struct rereads *rr)
{
    for (size_t i = 0; i < rr->n; i++)
        reread_deinit(&rr->list[i]);
    rr->n = 0;
}

void rereads_deinit(struct rereads *rr)
{
    rereads_clear(rr);
    free(rr->list);
    marks_deinit(&rr->written);
    marks_deinit(&rr->done);
    totals_deinit(&rr->open);
    totals_deinit(&rr->closed);
    totals_deinit(&rr->found);
    *rr = (struct rereads){ 0 };
}

static size_t find(const struct rereads *rr, struct letter_id id)
{
    size_t i = 0;
    while (i < rr->n && (rr->list[i].id.file != id.file || rr->list[i].id.seq != id.seq))
        i++;
    return i;
}

bool rereads_have(const struct rereads *rr, struct letter_id id)
{
    return find(rr, id) < rr->n;
}

void rereads_remove(struct rereads *rr, struct letter_id id)
{
    size_t i = find(rr, id);
    if (i == rr->n)
        return;
    reread_deinit(&rr->list[i]);
    memmove(&rr->list[i], &rr->list[i + 1], (--rr->n - i) * sizeof(*rr->list));
}

struct parse {
    struct reread r;
    size_t cap;
    struct buf held;
    struct file_position *at; /* whose PARTs follow */
    bool has_mark;            /* an empty HELD: it is meant to be read again */
};

/* The two places of the last range, in their order. */
static void take_place(struct parse *p, const struct file_position *pos)
{
    struct reread_range *g = p->r.n_ranges == 0 ? NULL : &p->r.ranges[p->r.n_ranges - 1];
    p->at = NULL;
    if (g == NULL || pos->incarnation != g->to.incarnation)
        return;
    if (pos->end == g->from.end) {
        g->from = *pos;
        p->at = &g->from;
    } else if (pos->end == g->to.end) {
        g->to = *pos;
        g->knows_to = true;
        p->at = &g->to;
    }
}

static int take_item(struct parse *p, const struct meta_item *item)
{
    struct lost_range lost;
    struct file_position pos;
    if (item->tag == META_LOST && meta_get_lost(item->bytes, &lost) == 0 && lost.reason == LOST_DAMAGE) {
        struct reread_range g = { .from = { .incarnation = lost.incarnation, .start = lost.start, .end = lost.start },
                                  .to = { .incarnation = lost.incarnation, .start = lost.start, .end = lost.end } };
        p->at = NULL;
        return p->r.n_ranges == GAPS_MAX ? 0 : put_range(&p->r.ranges, &p->r.n_ranges, &p->cap, &g);
    }
    if (item->tag == META_POS && meta_get_position(item->bytes, &pos) == 0)
        take_place(p, &pos);
    else if (item->tag == META_PART && p->at != NULL)
        meta_add_part(item->bytes, p->at);
    else if (is_mark(item))
        p->has_mark = true;
    else if (item->tag == META_HELD)
        return meta_put(&p->held, META_HELD, false, item->bytes);
    return 0;
}

/* Without the mark it is the note of an older version, that nobody is to act upon. */
static int finish(struct rereads *rr, struct parse *p)
{
    if (p->r.n_ranges == 0 || !p->has_mark || p->r.id.file == 0)
        return 0;
    struct reread *list = array_room(rr->list, rr->n, &rr->cap, sizeof(*list));
    if (list == NULL)
        return -ENOMEM;
    rr->list = list;
    char *held = slice_dup(buf_slice(&p->held));
    if (held == NULL)
        return -ENOMEM;
    p->r.held = slice_of(held, p->held.len);
    rr->list[rr->n++] = p->r;
    p->r.ranges = NULL;
    return 0;
}

static int begin_next(struct rereads *rr, struct parse *p, struct letter_id id)
{
    int r = finish(rr, p);
    if (p->r.ranges != NULL)
        free(p->r.ranges);
    buf_reset(&p->held);
    p->r = (struct reread){ .id = id };
    p->cap = 0;
    p->at = NULL;
    p->has_mark = false;
    return r;
}

int rereads_take(struct rereads *rr, struct letter_id id, struct slice meta)
{
    struct parse p = { .r = { .id = id } };
    struct meta_item item;
    int r = 0;
    buf_init(&p.held, HELD_BYTES_MAX);
    while (r == 0 && meta_next(&meta, &item) > 0) {
        if (item.tag == META_LETTER && item.bytes.len >= 20 && get_le32(item.bytes.ptr + 16) == LETTER_OPEN)
            r = begin_next(rr, &p, (struct letter_id){ get_le64(item.bytes.ptr), get_le64(item.bytes.ptr + 8) });
        else
            r = take_item(&p, &item);
    }
    if (r == 0)
        r = finish(rr, &p);
    free(p.r.ranges);
    buf_deinit(&p.held);
    return r;
}

int rereads_put(const struct rereads *rr, struct buf *meta)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < rr->n; i++) {
        r = marks_put(meta, rr->list[i].id, LETTER_OPEN);
        if (r == 0)
            r = write_ranges(rr->list[i].ranges, rr->list[i].n_ranges, rr->list[i].held, meta);
    }
    return r;
}

/* ---- the writer's calls ---- */

static void move_lines(struct totals *from, struct totals *to)
{
    (void)!totals_add_all(to, from);
    totals_deinit(from);
}

void rereads_bring(struct rereads *rr, const struct frame_row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++)
        (void)!totals_add(&rr->open, SLICE(""), rows[i].tenant, rows[i].lines);
}

void rereads_close(struct rereads *rr, struct letter_id id)
{
    (void)!marks_add(&rr->written, id, LETTER_RESENT);
    move_lines(&rr->open, &rr->closed);
}

void rereads_abandon(struct rereads *rr)
{
    totals_deinit(&rr->open);
}

void rereads_commit(struct rereads *rr)
{
    size_t n = 0;
    move_lines(&rr->closed, &rr->found);
    while (n < rr->written.n && marks_add(&rr->done, rr->written.list[n].id, LETTER_RESENT) == 0)
        n++;
    rr->written.n -= n; /* what no memory was found for waits for the next sync */
    if (n > 0)
        memmove(rr->written.list, rr->written.list + n, rr->written.n * sizeof(*rr->written.list));
}

void rereads_rollback(struct rereads *rr)
{
    rr->written.n = 0;
    totals_deinit(&rr->open);
    totals_deinit(&rr->closed);
    for (size_t i = 0; i < rr->n; i++)
        rr->list[i].is_handed = marks_find(&rr->done, rr->list[i].id) != LETTER_OPEN;
}

const struct reread *queue_reread_next(struct queue *q)
{
    for (size_t i = 0; i < q->rereads.n; i++) {
        if (q->rereads.list[i].is_handed)
            continue;
        q->rereads.list[i].is_handed = true;
        return &q->rereads.list[i];
    }
    return NULL;
}
