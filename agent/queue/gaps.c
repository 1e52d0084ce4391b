/*
 * Where lost lines came from: the ranges of source files that the damaged groups of a segment covered, from the positions
 * on both sides; and what the good frames of the same groups hold of these ranges.
 */
#include <errno.h>
#include <stdlib.h>

#include "agent/base/array.h"
#include "agent/base/log.h"
#include "agent/queue/damage.h"
#include "agent/queue/rereads.h"
#include "agent/queue/scan.h"

/* Events for people: a damaged group of a thousand files is not a thousand lines of log. */
#define GAPS_SAID 16

struct place {
    struct file_position pos; /* as of the last good group that names the file */
    uint64_t first;           /* where the first group that names it began; of a SNAP: where it stood */
    bool is_holed;            /* lost frames lie behind it: where the file goes on tells what they held of it */
    bool is_spoiled;          /* and such of which nobody knows what became of their lines */
    unsigned placed_at;       /* the group's number in which records that were unfinished at its end are no more; 0: none */
    uint8_t placed;           /* mask: of which streams */
    uint8_t at_hole;          /* mask: streams of which a record was unfinished where frames are lost, and may be no more in these */
};

struct search {
    struct queue *q;
    const struct segment *seg;
    struct span lost;     /* whatever the disk says of them now */
    bool is_between;      /* they lie behind this segment; in it nothing is looked for */
    struct damage *ret;
    struct place *places;
    size_t n, cap;
    struct buf idents;    /* FILE items seen so far, for their paths */
    struct buf held;      /* HELD items of the group at hand, and of what may be of it */
    bool has_snap;        /* this segment's own, or what stands in for it */
    bool has_hole;        /* frames of it are lost */
    bool is_hit;          /* a frame of the group at hand is lost */
    bool is_holed;        /* lost frames lie directly before the group at hand */
    bool is_spoiled;      /* of a frame of it, or directly before it, nobody knows what became of its lines */
    bool has_spoiled;     /* the segment has such */
    unsigned n_ends;      /* groups so far, this one included */
    unsigned n_said;
    int r;
};

/* ---- places ---- */

static struct place *place_of(const struct search *s, uint64_t incarnation)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->places[i].pos.incarnation == incarnation)
            return &s->places[i];
    return NULL;
}

static uint8_t streams_of(const struct file_position *pos)
{
    uint8_t streams = 0;
    for (uint8_t i = 0; i < pos->n_parts; i++)
        streams |= (uint8_t)(1u << pos->parts[i].stream);
    return streams;
}

static void place_set(struct search *s, const struct file_position *pos, bool is_snap)
{
    struct place *p = place_of(s, pos->incarnation);
    if (p == NULL) {
        struct place *places = array_room(s->places, s->n, &s->cap, sizeof(*places));
        if (places == NULL) {
            s->r = -ENOMEM;
            return;
        }
        s->places = places;
    }
    uint64_t first = p != NULL ? p->first : is_snap ? pos->end : pos->start;
    uint8_t placed = p != NULL && p->pos.end == pos->end ? (uint8_t)(streams_of(&p->pos) & ~streams_of(pos)) : 0;
    uint8_t at_hole = p != NULL ? p->at_hole : 0;
    if (p == NULL)
        p = &s->places[s->n++];
    *p = (struct place){ .pos = *pos, .first = first, .placed = placed, .placed_at = placed != 0 ? s->n_ends : 0,
                         .at_hole = at_hole };
    p->pos.start = pos->end;
}

static void hole(struct search *s, uint64_t first, uint64_t last)
{
    spans_put(&s->ret->holes, first, last);
    s->is_holed = s->has_hole = true;
    for (size_t i = 0; i < s->n; i++) {
        s->places[i].is_holed = true;
        s->places[i].at_hole |= streams_of(&s->places[i].pos);
    }
}

/* They may have been sent before damage came to them, or they are counted and their range is read again: a range in which their
 * lines may be is read no more, or these would come twice. */
static void spoil(struct search *s)
{
    s->is_spoiled = s->has_spoiled = true;
    for (size_t i = 0; i < s->n; i++)
        s->places[i].is_spoiled = true;
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

static struct slice folder_of(struct slice path)
{
    while (path.len > 0 && path.ptr[path.len - 1] != '/')
        path.len--;
    return path;
}

/* Streams with which the file may begin in the middle of a record, of which the first part ends another file, as after a rotation:
 * that part was placed with the rest, in frames of the same group, of lost ones, or later. Read again by itself, the rest would
 * be half a record. */
static uint8_t continued(const struct search *s, uint64_t incarnation)
{
    struct slice folder = folder_of(path_of(s, incarnation));
    uint8_t streams = 0;
    for (size_t i = 0; i < s->n; i++) {
        const struct place *p = &s->places[i];
        bool is_other = p->pos.incarnation != incarnation && slice_eq(folder_of(path_of(s, p->pos.incarnation)), folder);
        if (is_other)
            streams |= (uint8_t)(streams_of(&p->pos) | p->at_hole | (p->placed_at == s->n_ends ? p->placed : 0));
    }
    return streams;
}

/* to.start: where the group that holds to says that it began. */
static void found(struct search *s, const struct file_position *from, const struct file_position *to, bool knows_to,
                  bool is_spoiled)
{
    struct reread_range g = { .from = *from, .to = *to, .knows_to = knows_to };
    g.from.start = g.from.end;
    g.to.start = g.from.end;
    if (g.from.end >= g.to.end)
        return;
    if (s->n_said++ < GAPS_SAID)
        log_error("queue", "lines.lost", "the lost lines are from this range of a file", LOG_CSTR("output", s->q->name),
                  LOG_SLICE("file", path_of(s, to->incarnation)), LOG_NUM("from", g.from.end), LOG_NUM("to", g.to.end));
    for (uint8_t i = 0, streams = g.from.end > 0 ? 0 : continued(s, to->incarnation); streams != 0; i++, streams >>= 1)
        if (streams & 1)
            g.from.parts[g.from.n_parts++] = (struct position_part){ .stream = i, .start = 0 };
    if (!is_spoiled && !s->is_spoiled)
        s->r = gaps_put(&s->ret->gaps, &g);
}

/* A SEAL, or the next SNAP, says where the file stood at this segment's: a lost group may have been the first to name it. */
static void take_beginning(struct search *s, const struct place *last, const struct file_position *pos)
{
    struct file_position from = { .incarnation = pos->incarnation, .end = pos->start };
    struct file_position to = { .incarnation = pos->incarnation, .end = last == NULL ? pos->end : last->first };
    found(s, &from, last == NULL ? pos : &to, last == NULL, s->has_spoiled);
}

/* One position: of a SNAP or SEAL, or of a group's end. */
static void take_position(struct search *s, const struct file_position *pos, bool is_snap, bool is_hit)
{
    const struct place *last = place_of(s, pos->incarnation);
    struct file_position begins = { .incarnation = pos->incarnation, .end = is_snap ? pos->end : pos->start };
    if (is_snap && s->has_snap && s->has_hole)
        take_beginning(s, last, pos);
    bool is_holed = last != NULL && last->is_holed, is_spoiled = last != NULL && last->is_spoiled;
    if (is_holed && (is_snap || !is_hit || last->pos.end >= begins.end))
        found(s, &last->pos, is_snap ? pos : &begins, is_snap, is_spoiled);
    if (is_hit && !is_snap)
        found(s, last != NULL && (is_holed || last->pos.end == begins.end) ? &last->pos : &begins, pos, true, is_spoiled);
    place_set(s, pos, is_snap);
}

/* Behind a hole, this group begins where the last good one ended: then what is lost was of this one. A file that no SNAP and no
 * good group has named is taken to have begun in the lost one, when it goes on here: where records stood between the two,
 * nobody knows. */
static bool is_unbroken(const struct search *s, struct slice meta)
{
    struct meta_item item;
    struct file_position pos;
    while (meta_next(&meta, &item) > 0) {
        if (item.tag != META_POS || meta_get_position(item.bytes, &pos) < 0)
            continue;
        const struct place *last = place_of(s, pos.incarnation);
        if (last != NULL ? last->pos.end < pos.start : s->has_snap && pos.start > 0)
            return false;
    }
    return true;
}

static void take_positions(struct search *s, struct slice meta, bool is_snap, bool is_hit)
{
    struct file_position pos = { 0 };
    bool has = false;
    while (s->r == 0) {
        struct meta_item item;
        int more = meta_next(&meta, &item);
        bool is_next = more > 0 && item.tag == META_POS;
        if (has && (more <= 0 || is_next)) {
            take_position(s, &pos, is_snap, is_hit);
            has = false;
        }
        if (more <= 0)
            return;
        if (is_next)
            has = meta_get_position(item.bytes, &pos) == 0;
        else if (has && item.tag == META_PART)
            meta_add_part(item.bytes, &pos);
    }
}

static void take_idents(struct search *s, struct slice meta)
{
    struct meta_item item;
    while (s->r == 0 && meta_next(&meta, &item) > 0)
        if (item.tag == META_FILE)
            s->r = meta_put(&s->idents, META_FILE, true, item.bytes);
}

/* The last frame of a group, or a SNAP. */
static void take_end(struct search *s, const struct frame_hdr *h, struct slice meta)
{
    size_t before = s->ret->gaps.n;
    bool is_hit = s->is_hit || (s->is_holed && is_unbroken(s, meta));
    s->n_ends++;
    take_idents(s, meta);
    take_positions(s, meta, h->type == FRAME_SNAP || h->type == FRAME_SEAL, is_hit);
    if (s->r == 0 && (is_hit || s->is_holed || s->ret->gaps.n > before))
        s->r = buf_append_slice(&s->ret->gaps.held, buf_slice(&s->held));
    buf_reset(&s->held);
    s->is_hit = s->is_holed = s->is_spoiled = false;
    s->has_snap |= h->type == FRAME_SNAP;
}

/* ---- the segment before ---- */

/* True when each of its groups could be read; then *ret_has_snap: its SNAP as well. */
static bool walk_before(struct search *s, struct scan *scan, const struct segment *before, bool *ret_has_snap)
{
    struct buf meta;
    struct frame_hdr h;
    uint64_t off = SEGMENT_HEAD_BYTES, due = before->first_seq;
    bool is_whole = true;
    buf_init(&meta, SNAP_RAW_MAX);
    while (s->r == 0 && is_whole && due <= before->last_seq && scan_find(scan, off, due, before->last_seq, &off, &h)) {
        int r = scan_meta(scan, off, &h, &meta);
        *ret_has_snap |= r == 0 && h.type == FRAME_SNAP;
        is_whole = (r == 0 || h.type == FRAME_SNAP) && (h.seq == due || (due == before->first_seq && h.seq == due + 1));
        if (r < 0 && r != -EBADMSG)
            s->r = r;
        else if (r == 0 && is_whole && !(h.flags & FRAME_FLAG_MORE)) {
            take_idents(s, buf_slice(&meta));
            take_positions(s, buf_slice(&meta), true, false);
        }
        due = h.seq + 1;
        off += frame_bytes(&h);
    }
    if (s->r == 0 && scan->error < 0)
        s->r = scan->error;
    buf_deinit(&meta);
    return is_whole && due > before->last_seq;
}

/* The SNAP is damaged, which says where the files stood when its segment began: where they stood at the end of the one before. Of
 * lines that that one has lost itself nobody knows here what became of them, so then it tells nothing. */
static void look_before(struct search *s)
{
    struct scan scan = { 0 };
    struct segment before;
    uint64_t size;
    int fd;
    if (!segment_neighbour(s->q, s->seg, -1, &before) || before.last_seq < before.first_seq)
        return;
    int r = segment_open(s->q, before.id, &fd, &size);
    if (r < 0) {
        s->r = fs_is_passing(r) ? r : 0;
        return;
    }
    bool has_snap = false;
    s->r = scan_init(&scan, fd, MIN(size, before.bytes), before.salt);
    if (s->r == 0 && walk_before(s, &scan, &before, &has_snap))
        s->has_snap = has_snap;
    else
        s->n = 0;
    for (size_t i = 0; i < s->n; i++)
        s->places[i] = (struct place){ .pos = s->places[i].pos, .first = s->places[i].pos.end };
    scan_deinit(&scan);
    (void)s->q->fs->close(fd);
}

/* ---- frames ---- */

static bool is_in(struct span s, uint64_t first, uint64_t last)
{
    return first <= s.last && s.first <= last;
}

/* Lost, and nobody has counted it. What was handed out before says so itself when it is loaded. */
static bool is_news(const struct search *s, uint64_t first, uint64_t last)
{
    if (is_in(s->lost, first, last))
        return true;
    if (s->is_between || first < s->q->read_seq)
        return false;
    pthread_mutex_lock(&s->q->lock);
    bool is = !are_settled_locked(s->q, first, last);
    pthread_mutex_unlock(&s->q->lock);
    return is;
}

/* Frames of which nothing is left. The SNAP, the first of a segment, has no lines. */
static void gone(struct search *s, uint64_t first, uint64_t last)
{
    if (first == s->seg->first_seq) {
        look_before(s);
        if (first++ == last)
            return;
    }
    bool is = is_news(s, first, last);
    pthread_mutex_lock(&s->q->lock);
    bool is_known = any_is_settled_locked(s->q, first, last);
    pthread_mutex_unlock(&s->q->lock);
    if (is)
        hole(s, first, last);
    if (is_known || !is)
        spoil(s);
}

static void bad_body(struct search *s, const struct frame_hdr *h, struct slice meta)
{
    struct damage *d = s->ret;
    if (d->bodies.n == SPANS_MAX - 1 || !spans_put(&d->bodies, h->seq, h->seq)) {
        s->is_spoiled = true; /* it is counted when the sender comes to it, and its group's range is read then */
        return;
    }
    s->is_hit = true;
    int r = totals_add_meta(&d->rows, meta);
    if (r == -ENOMEM)
        s->r = r;
    d->bytes += h->body_len;
}

static void data_frame(struct search *s, struct scan *scan, uint64_t off, const struct frame_hdr *h, struct slice meta)
{
    bool is_lost = is_in(s->lost, h->seq, h->seq) || (!s->is_between && !scan_body_is_good(scan, off, h));
    if (scan->error < 0)
        s->r = scan->error;
    else if (is_lost && is_news(s, h->seq, h->seq))
        bad_body(s, h, meta);
    else
        s->r = held_put(&s->held, meta);
}

static void bad_meta(struct search *s, const struct frame_hdr *h)
{
    if (h->type == FRAME_SNAP) { /* it has no lines that could be lost, or sent */
        look_before(s);
        return;
    }
    if (!is_news(s, h->seq, h->seq)) {
        spoil(s);
        return;
    }
    hole(s, h->seq, h->seq);
    s->ret->hole_lines += h->lines;
    s->is_hit = h->flags & FRAME_FLAG_MORE; /* else its group ends here, and the next one is whole */
}

/* Frame by frame; only the last of a group has positions. */
static void walk(struct search *s, struct scan *scan, uint64_t last_seq)
{
    struct buf meta;
    struct frame_hdr h;
    uint64_t off = SEGMENT_HEAD_BYTES, due = s->seg->first_seq;
    buf_init(&meta, SNAP_RAW_MAX);
    while (s->r == 0 && due <= last_seq && scan_find(scan, off, due, last_seq, &off, &h)) {
        if (h.seq != due) {
            gone(s, due, h.seq - 1);
            s->is_hit = false; /* whether what is gone was of this group, its positions tell */
        }
        int r = scan_meta(scan, off, &h, &meta);
        if (r == -EBADMSG)
            bad_meta(s, &h);
        else if (r < 0)
            s->r = r;
        else if (h.type == FRAME_DATA)
            data_frame(s, scan, off, &h, buf_slice(&meta));
        if (s->r == 0 && r == 0 && !(h.flags & FRAME_FLAG_MORE))
            take_end(s, &h, buf_slice(&meta));
        due = h.seq + 1;
        off += frame_bytes(&h);
    }
    if (s->r == 0 && scan->error < 0)
        s->r = scan->error;
    if (s->r == 0 && due <= last_seq)
        gone(s, due, last_seq);
    buf_deinit(&meta);
}

/* Files that no group behind the lost frames names: the next one's SNAP says where the files stood behind them. */
static void look_behind(struct search *s, const struct segment *next)
{
    struct scan scan = { 0 };
    struct frame_hdr h;
    struct buf meta;
    uint64_t size;
    int fd;
    int r = segment_open(s->q, next->id, &fd, &size);
    if (r < 0) {
        s->r = fs_is_passing(r) ? r : 0;
        return;
    }
    buf_init(&meta, SNAP_RAW_MAX);
    r = scan_init(&scan, fd, size, next->salt);
    if (r == 0)
        r = scan_head(&scan, SEGMENT_HEAD_BYTES, &h);
    if (r == 0 && h.type == FRAME_SNAP && (r = scan_meta(&scan, SEGMENT_HEAD_BYTES, &h, &meta)) == 0)
        take_end(s, &h, buf_slice(&meta));
    if (fs_is_passing(r))
        s->r = r;
    scan_deinit(&scan);
    buf_deinit(&meta);
    (void)s->q->fs->close(fd);
}

/* after: the segment behind the hole that is looked into; NULL: what is lost lies in this one. */
static int search_in(struct search *s, const struct segment *after)
{
    struct scan scan = { 0 };
    struct segment next;
    uint64_t size;
    int fd;
    int r = segment_open(s->q, s->seg->id, &fd, &size);
    if (r < 0)
        return fs_is_passing(r) ? r : 0;
    buf_init(&s->idents, SNAP_RAW_MAX);
    buf_init(&s->held, SNAP_RAW_MAX);
    s->r = scan_init(&scan, fd, MIN(size, s->seg->bytes), s->seg->salt);
    if (s->r == 0)
        walk(s, &scan, s->q->is_opening ? s->seg->last_seq : MIN(s->seg->last_seq, atomic_load(&s->q->durable_seq)));
    if (s->r == 0 && after != NULL)
        hole(s, s->lost.first, s->lost.last);
    if (s->r == 0 && any_is_holed(s) && (after != NULL || segment_neighbour(s->q, s->seg, 1, &next)))
        look_behind(s, after != NULL ? after : &next);
    scan_deinit(&scan);
    buf_deinit(&s->idents);
    buf_deinit(&s->held);
    free(s->places);
    (void)s->q->fs->close(fd);
    return s->r;
}

int damage_find(struct queue *q, const struct segment *seg, uint64_t first, uint64_t last, struct damage *ret)
{
    *ret = (struct damage){ 0 };
    buf_init(&ret->gaps.held, HELD_BYTES_MAX);
    struct search s = { .q = q, .seg = seg, .lost = { .first = first, .last = last }, .ret = ret };
    int r = seg->id == 0 ? 0 : search_in(&s, NULL);
    if (r < 0)
        damage_deinit(ret);
    return r;
}

int damage_between(struct queue *q, const struct segment *before, const struct segment *after, struct damage *ret)
{
    *ret = (struct damage){ 0 };
    buf_init(&ret->gaps.held, HELD_BYTES_MAX);
    struct search s = { .q = q, .seg = before, .lost = { .first = before->last_seq + 1, .last = after->fence },
                        .is_between = true, .ret = ret };
    int r = search_in(&s, after);
    if (r < 0)
        damage_deinit(ret);
    return r;
}

void damage_deinit(struct damage *d)
{
    gaps_deinit(&d->gaps);
    totals_deinit(&d->rows);
}
