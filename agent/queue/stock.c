/*
 * What a segment holds, by a walk over its good frames, and what it should hold, by the counts in SNAP and SEAL: lines are
 * missing when the two differ.
 */
#include <errno.h>
#include <fcntl.h>

#include "agent/queue/core.h"
#include "agent/queue/scan.h"

int segment_open(struct queue *q, uint64_t id, int *ret_fd, uint64_t *ret_size)
{
    char name[SEGMENT_NAME_BYTES];
    struct stat st;
    segment_name(name, id);
    int fd = queue_open_file(q->fs, q->dir_fd, name, O_RDONLY, &st);
    if (fd < 0)
        return fd;
    *ret_fd = fd;
    *ret_size = MIN((uint64_t)st.st_size, (uint64_t)SEGMENT_READ_MAX);
    return 0;
}

int totals_add_meta(struct totals *rows, struct slice meta)
{
    struct meta_item item;
    int r;
    while ((r = meta_next(&meta, &item)) > 0) {
        if (item.tag != META_COUNT)
            continue;
        struct slice input, tenant;
        uint64_t lines;
        r = meta_get_count(item.bytes, &input, &tenant, &lines);
        if (r == 0)
            r = totals_add(rows, input, tenant, lines);
        if (r < 0)
            return r;
    }
    return r;
}

/* A walk over the valid frames of a segment file, damaged places stepped over. */
struct walk {
    struct scan scan;
    struct buf meta;
    uint64_t off, seq; /* the next seq that may come */
};

static int walk_init(struct walk *w, int fd, uint64_t size, const struct segment *seg)
{
    *w = (struct walk){ .off = SEGMENT_HEAD_BYTES, .seq = seg->first_seq };
    buf_init(&w->meta, SNAP_RAW_MAX);
    return scan_init(&w->scan, fd, size, seg->salt);
}

/* r, or why the walk ended early. */
static int walk_deinit(struct walk *w, int r)
{
    r = w->scan.error < 0 ? w->scan.error : r;
    scan_deinit(&w->scan);
    buf_deinit(&w->meta);
    return r;
}

static bool walk_next(struct walk *w, uint64_t last, uint64_t *ret_off, struct frame_hdr *ret)
{
    if (w->seq > last)
        return false;
    if (scan_head(&w->scan, w->off, ret) < 0 || ret->seq != w->seq)
        if (!scan_find(&w->scan, w->off, w->seq, last, &w->off, ret))
            return false;
    *ret_off = w->off;
    w->off += frame_bytes(ret);
    w->seq = ret->seq + 1;
    return true;
}

int loss_rows(struct queue *q, int fd, const struct segment *seg, uint64_t first, uint64_t last, struct totals *rows,
              uint64_t *ret_frames, bool *ret_has_holes)
{
    struct stat st;
    int r = q->fs->fstat(fd, &st);
    if (r < 0)
        return r;
    struct walk w;
    r = walk_init(&w, fd, (uint64_t)st.st_size, seg);
    struct frame_hdr h;
    uint64_t off, frames = 0, due = seg->first_seq;
    bool has_holes = false;
    while (r == 0 && walk_next(&w, MIN(last, seg->last_seq), &off, &h)) {
        has_holes |= h.seq != due;
        due = h.seq + 1;
        if (h.type != FRAME_DATA || h.seq < first || ack_is_done(q, h.seq))
            continue;
        frames++;
        r = scan_meta(&w.scan, off, &h, &w.meta);
        has_holes |= r == -EBADMSG;
        if (r == 0)
            r = totals_add_meta(rows, buf_slice(&w.meta));
        if (!fs_is_passing(r))
            r = 0;
    }
    r = walk_deinit(&w, r);
    *ret_frames = frames;
    if (ret_has_holes != NULL)
        *ret_has_holes = has_holes || due <= MIN(last, seg->last_seq);
    return r;
}

int totals_from_meta(struct totals *ret, struct slice meta)
{
    struct meta_item item;
    int r;
    while ((r = meta_next(&meta, &item)) > 0) {
        r = totals_take(ret, item.tag, item.bytes);
        if (r < 0)
            return r;
    }
    return r;
}

int segment_totals_begin(struct queue *q, const struct segment *seg, struct totals *ret)
{
    int fd;
    uint64_t size;
    int r = segment_open(q, seg->id, &fd, &size);
    if (r < 0)
        return r;
    struct walk w;
    struct frame_hdr h;
    r = walk_init(&w, fd, size, seg);
    if (r == 0)
        r = scan_head(&w.scan, SEGMENT_HEAD_BYTES, &h);
    if (r == 0)
        r = h.type == FRAME_SNAP ? scan_meta(&w.scan, SEGMENT_HEAD_BYTES, &h, &w.meta) : -EBADMSG;
    if (r == 0)
        r = totals_from_meta(ret, buf_slice(&w.meta));
    r = walk_deinit(&w, r);
    (void)q->fs->close(fd);
    return r;
}

/* Walks the whole segment: rows = lines of good frames, totals = what its SEAL says, and every hole into the spans. */
static int take_stock(struct queue *q, const struct segment *seg, struct totals *rows, struct totals *sealed,
                      bool *ret_has_seal, struct spans *holes)
{
    int fd;
    uint64_t size;
    int r = segment_open(q, seg->id, &fd, &size);
    if (r < 0)
        return r;
    struct walk w;
    r = walk_init(&w, fd, size, seg);
    uint64_t expect = seg->first_seq, off, seq_end = seg->last_seq + 1;
    struct frame_hdr h = { 0 };
    while (r == 0 && expect < seq_end) {
        bool has = walk_next(&w, seg->last_seq, &off, &h);
        uint64_t seq = has ? h.seq : seq_end;
        if (seq > expect)
            spans_put(holes, expect, seq - 1);
        expect = seq + 1;
        if (!has)
            break;
        if (h.type != FRAME_DATA && h.type != FRAME_SEAL)
            continue;
        r = scan_meta(&w.scan, off, &h, &w.meta);
        if (r == -EBADMSG) {
            r = 0;
            spans_put(holes, h.seq, h.seq);
        } else if (r == 0 && h.type == FRAME_SEAL) {
            *ret_has_seal = true;
            r = totals_from_meta(sealed, buf_slice(&w.meta));
        } else if (r == 0) {
            r = totals_add_meta(rows, buf_slice(&w.meta));
        }
    }
    r = walk_deinit(&w, r);
    (void)q->fs->close(fd);
    return r;
}

int segment_totals_end(struct queue *q, const struct segment *seg, struct totals *ret)
{
    struct totals rows = { 0 };
    struct spans holes = { .n = 0 };
    bool has_seal = false;
    int r = segment_totals_begin(q, seg, ret);
    bool has_begin = r == 0;
    if (r == 0 || r == -EBADMSG) /* without its SNAP a SEAL still says all */
        r = take_stock(q, seg, &rows, ret, &has_seal, &holes);
    if (r == 0 && !has_seal)
        r = has_begin ? totals_add_all(ret, &rows) : -EBADMSG;
    totals_deinit(&rows);
    return r;
}

int segment_last_seq(struct queue *q, const struct segment *seg, uint64_t *ret_seq)
{
    int fd;
    uint64_t size, off, last = 0;
    struct walk w;
    struct frame_hdr h;
    int r = segment_open(q, seg->id, &fd, &size);
    if (r < 0)
        return r;
    r = walk_init(&w, fd, size, seg);
    while (r == 0 && walk_next(&w, SEQ_MAX, &off, &h))
        last = h.seq;
    r = walk_deinit(&w, r);
    (void)q->fs->close(fd);
    *ret_seq = last;
    return r;
}

bool segment_neighbour(struct queue *q, const struct segment *seg, int by, struct segment *ret)
{
    bool has = false;
    pthread_mutex_lock(&q->lock);
    for (size_t i = 0; i < q->n_segs; i++) {
        if (q->segs[i].id != seg->id)
            continue;
        has = by < 0 ? i > 0 : i + 1 < q->n_segs;
        if (has)
            *ret = by < 0 ? q->segs[i - 1] : q->segs[i + 1];
        break;
    }
    pthread_mutex_unlock(&q->lock);
    return has && (by < 0 ? ret->last_seq == seg->fence : ret->fence == seg->last_seq);
}

/*
 * Lines at the segment's end minus lines at its beginning minus lines of the good frames. Its own SNAP and SEAL know the
 * first two; when one is damaged, the neighbour on that side does. What was counted of it before is taken off.
 */
int segment_missing(struct queue *q, const struct segment *seg, struct totals *rows, struct spans *ret_holes)
{
    struct totals good = { 0 }, begin = { 0 };
    bool has_end = false;
    struct segment other;
    ret_holes->n = 0;
    int r = segment_totals_begin(q, seg, &begin);
    if (r == -EBADMSG && segment_neighbour(q, seg, -1, &other))
        r = segment_totals_end(q, &other, &begin);
    if (r == 0)
        r = take_stock(q, seg, &good, rows, &has_end, ret_holes);
    if (r == 0 && !has_end && q->is_opening && seg == &q->segs[q->n_segs - 1])
        r = totals_add_all(rows, &q->totals);
    else if (r == 0 && !has_end)
        r = segment_neighbour(q, seg, 1, &other) ? segment_totals_begin(q, &other, rows) : -EBADMSG;
    if (r == 0) {
        totals_subtract(rows, &begin);
        totals_subtract(rows, &good);
        missed_subtract(q, seg->id, rows);
    }
    totals_deinit(&good);
    totals_deinit(&begin);
    return r;
}
