/*
 * Where lost lines came from: the ranges of source files that a damaged place of a segment covered, from the positions
 * on both sides of it.
 */
#include <errno.h>
#include <stdlib.h>

#include "agent/base/log.h"
#include "agent/queue/core.h"
#include "agent/queue/scan.h"

/* Events for people: a damaged group of a thousand files is not a thousand lines of log. */
#define GAPS_SAID 16

struct place {
    uint64_t incarnation, end;
    bool is_holed; /* lost frames lie behind it: where the file goes on tells what they held of it */
};

struct search {
    struct queue *q;
    const struct segment *seg;
    struct span lost;
    struct place *places; /* where each file stood in the last good group that names it */
    size_t n, cap;
    struct buf idents;    /* metas of FILE items seen so far, for their paths */
    uint64_t group_first; /* the first seq of the group at hand */
    bool is_holed;        /* lost frames lie directly before the group at hand */
    unsigned n_found;
    int r;
};

static struct place *place_of(const struct search *s, uint64_t incarnation)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->places[i].incarnation == incarnation)
            return &s->places[i];
    return NULL;
}

static void place_set(struct search *s, uint64_t incarnation, uint64_t end)
{
    struct place *p = place_of(s, incarnation);
    if (p == NULL && s->n == s->cap) {
        size_t cap = s->cap == 0 ? 64 : s->cap * 2;
        struct place *places = realloc(s->places, cap * sizeof(*places));
        if (places == NULL) {
            s->r = -ENOMEM;
            return;
        }
        s->places = places;
        s->cap = cap;
    }
    if (p == NULL) {
        p = &s->places[s->n++];
        p->incarnation = incarnation;
    }
    p->end = end;
    p->is_holed = false;
}

static void hole(struct search *s)
{
    s->is_holed = true;
    for (size_t i = 0; i < s->n; i++)
        s->places[i].is_holed = true;
}

static bool any_is_holed(const struct search *s)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->places[i].is_holed)
            return true;
    return false;
}

static struct slice path_of(const struct search *s, uint64_t incarnation)
{
    struct slice rest = buf_slice(&s->idents), path = SLICE("");
    struct meta_item item;
    struct file_ident f;
    while (meta_next(&rest, &item) > 0)
        if (meta_get_file(item.bytes, &f) == 0 && f.incarnation == incarnation)
            path = f.path;
    return path;
}

static void found(struct search *s, uint64_t incarnation, uint64_t start, uint64_t end)
{
    if (start >= end)
        return;
    gaps_add(s->q, &(struct lost_range){ .incarnation = incarnation, .start = start, .end = end, .reason = LOST_DAMAGE });
    if (s->n_found++ < GAPS_SAID)
        log_error("queue", "lines.lost", "the lost lines are from this range of a file", LOG_CSTR("output", s->q->name),
                  LOG_SLICE("file", path_of(s, incarnation)), LOG_NUM("from", start), LOG_NUM("to", end));
}

/* One POS: of a SNAP, or of a group's end. */
static void take_position(struct search *s, const struct file_position *pos, bool is_snap, bool is_hit)
{
    const struct place *last = place_of(s, pos->incarnation);
    uint64_t begins = is_snap ? pos->end : pos->start;
    if (last != NULL && last->is_holed)
        found(s, pos->incarnation, last->end, begins);
    if (is_hit && !is_snap)
        found(s, pos->incarnation, pos->start, pos->end);
    place_set(s, pos->incarnation, pos->end);
}

/* Behind a hole, this group begins where the last good one ended: then what is lost was of this one. */
static bool is_unbroken(const struct search *s, struct slice meta)
{
    struct meta_item item;
    struct file_position pos;
    while (meta_next(&meta, &item) > 0) {
        if (item.tag != META_POS || meta_get_position(item.bytes, &pos) < 0)
            continue;
        const struct place *last = place_of(s, pos.incarnation);
        if (last != NULL && last->end < pos.start)
            return false;
    }
    return true;
}

static void take_meta(struct search *s, const struct frame_hdr *h, struct slice meta)
{
    bool is_hit = (s->group_first <= s->lost.last && s->lost.first <= h->seq) || (s->is_holed && is_unbroken(s, meta));
    struct slice rest = meta;
    struct meta_item item;
    struct file_position pos;
    while (s->r == 0 && meta_next(&rest, &item) > 0)
        if (item.tag == META_FILE)
            s->r = meta_put(&s->idents, META_FILE, true, item.bytes);
    while (s->r == 0 && meta_next(&meta, &item) > 0)
        if (item.tag == META_POS && meta_get_position(item.bytes, &pos) == 0)
            take_position(s, &pos, h->type == FRAME_SNAP, is_hit);
}

/* Frame by frame; only the last of a group has positions. */
static void walk(struct search *s, struct scan *scan, uint64_t last_seq)
{
    struct buf meta;
    struct frame_hdr h;
    uint64_t off = SEGMENT_HEAD_BYTES, due = s->seg->first_seq;
    buf_init(&meta, SNAP_RAW_MAX);
    s->group_first = due;
    while (s->r == 0 && due <= last_seq && scan_find(scan, off, due, last_seq, &off, &h)) {
        bool is_hole = h.seq != due;
        if (is_hole && due <= s->lost.last && s->lost.first < h.seq)
            hole(s);
        if (is_hole)
            s->group_first = h.seq; /* whether what is gone was of this group, its positions tell */
        int r = scan_meta(scan, off, &h, &meta);
        if (r == -EBADMSG && s->lost.first <= h.seq && h.seq <= s->lost.last)
            hole(s);
        else if (fs_is_passing(r))
            s->r = r;
        else if (r == 0 && !(h.flags & FRAME_FLAG_MORE)) {
            take_meta(s, &h, buf_slice(&meta));
            s->is_holed = false;
        }
        if (!(h.flags & FRAME_FLAG_MORE))
            s->group_first = h.seq + 1;
        due = h.seq + 1;
        off += frame_bytes(&h);
    }
    if (due <= last_seq && due <= s->lost.last)
        hole(s);
    buf_deinit(&meta);
}

/* Files that no group behind the lost frames names: the next one's SNAP says where the files stood behind them. */
static void look_behind(struct search *s)
{
    struct segment next = { 0 };
    struct scan scan = { 0 };
    struct frame_hdr h;
    struct buf meta;
    uint64_t size;
    int fd;
    pthread_mutex_lock(&s->q->lock);
    for (size_t i = 0; i + 1 < s->q->n_segs; i++)
        if (s->q->segs[i].id == s->seg->id && s->q->segs[i + 1].fence == s->seg->last_seq)
            next = s->q->segs[i + 1];
    pthread_mutex_unlock(&s->q->lock);
    if (next.id == 0 || segment_open(s->q, next.id, &fd, &size) < 0)
        return;
    buf_init(&meta, SNAP_RAW_MAX);
    if (scan_init(&scan, fd, size, next.salt) == 0 && scan_head(&scan, SEGMENT_HEAD_BYTES, &h) == 0 &&
        h.type == FRAME_SNAP && scan_meta(&scan, SEGMENT_HEAD_BYTES, &h, &meta) == 0)
        take_meta(s, &h, buf_slice(&meta));
    scan_deinit(&scan);
    buf_deinit(&meta);
    (void)s->q->fs->close(fd);
}

void gaps_find(struct queue *q, const struct segment *seg, uint64_t first, uint64_t last)
{
    struct search s = { .q = q, .seg = seg, .lost = { .first = first, .last = last } };
    struct scan scan = { 0 };
    uint64_t size;
    int fd;
    if (seg->id == 0 || segment_open(q, seg->id, &fd, &size) < 0)
        return;
    buf_init(&s.idents, SNAP_RAW_MAX);
    s.r = scan_init(&scan, fd, MIN(size, seg->bytes), seg->salt);
    if (s.r == 0)
        walk(&s, &scan, seg->last_seq);
    if (s.r == 0 && any_is_holed(&s))
        look_behind(&s);
    scan_deinit(&scan);
    buf_deinit(&s.idents);
    free(s.places);
    (void)q->fs->close(fd);
}
