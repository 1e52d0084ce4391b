/*
 * Recovery: what is there no more. Files that cannot be used are set aside, and what was in them, or between two segments,
 * is counted as lost: exactly where the counts on both sides of it are good.
 */
#include <errno.h>

#include "agent/base/log.h"
#include "agent/queue/damage.h"
#include "agent/queue/recover.h"
#include "agent/queue/scan.h"

static bool is_covered(const struct queue *q, uint64_t seq)
{
    const struct segment *s = segment_of_locked(q, seq);
    return s == NULL || (s->first_seq <= seq && seq <= s->last_seq) || seq > s->fence;
}

/* What a file without a good header still says: its frames have their own CRCs. */
struct remains {
    struct totals begin, end;    /* of its SNAP, of its SEAL */
    struct totals acked, queued; /* of good frames on either side of the cursor */
    uint64_t first, last;
    bool has_begin, has_end, has_frames;
};

static int read_remains(struct queue *q, int fd, uint64_t size, struct remains *m)
{
    struct scan s;
    struct frame_hdr h;
    struct buf meta;
    buf_init(&meta, SNAP_RAW_MAX);
    int r = scan_init(&s, fd, MIN(size, (uint64_t)SEGMENT_BYTES_MAX * 2), 0);
    s.any_salt = true;
    for (uint64_t off = SEGMENT_HEAD_BYTES, seq = 1; r == 0 && scan_find(&s, off, seq, SEQ_MAX, &off, &h);
         seq = h.seq + 1) {
        uint64_t at = off;
        off += frame_bytes(&h);
        m->has_frames = true;
        if (is_covered(q, h.seq) || spans_have_locked(q, h.seq, h.seq) || scan_meta(&s, at, &h, &meta) < 0)
            continue;
        m->first = m->first == 0 ? h.seq : m->first;
        m->last = h.seq;
        if (h.type == FRAME_SNAP)
            m->has_begin = totals_from_meta(&m->begin, buf_slice(&meta)) == 0;
        else if (h.type == FRAME_SEAL)
            m->has_end = totals_from_meta(&m->end, buf_slice(&meta)) == 0;
        else if (h.type == FRAME_DATA)
            (void)!totals_add_meta(ack_is_done_locked(q, h.seq) ? &m->acked : &m->queued, buf_slice(&meta));
    }
    r = s.error < 0 ? s.error : r;
    scan_deinit(&s);
    buf_deinit(&meta);
    return r;
}

/* What was in it when it ended: its SEAL says, or the next segment's SNAP. False: nobody. */
static bool totals_at_its_end(struct queue *q, struct remains *m, struct totals *ret)
{
    const struct segment *next = segment_of_locked(q, m->last);
    if (m->has_end) {
        *ret = m->end;
        m->end = (struct totals){ 0 };
        return true;
    }
    if (next == NULL || segment_totals_begin(q, next, ret) < 0)
        return false;
    m->last = next->fence;
    return true;
}

/* With the counts at its beginning and end the loss is exact, else it is that of the good frames. */
static int count_remains(struct queue *q, struct remains *m, uint64_t size)
{
    struct totals rows = { 0 };
    if (m->has_begin && totals_at_its_end(q, m, &rows)) {
        totals_subtract(&rows, &m->begin);
        totals_subtract(&rows, &m->acked);
    } else {
        totals_deinit(&rows);
        rows = m->queued;
        m->queued = (struct totals){ 0 };
    }
    int r = 0;
    /* A file that was begun when the power went may hold blocks of an older one, all of which was acknowledged. */
    if (m->first != 0 && rows.lines > 0 && !are_settled_locked(q, m->first, m->last))
        r = loss_count(q, &(struct loss){ .reason = LOST_DAMAGE, .rows = &rows, .bytes = size });
    if (m->first != 0)
        spans_add_locked(q, m->first, m->last);
    totals_deinit(&rows);
    return r;
}

/* *ret_has_frames: the file holds any frame at all. */
static int count_in_bad_file(struct recovery *rc, const struct found *f, bool *ret_has_frames)
{
    struct queue *q = rc->q;
    struct remains m = { 0 };
    int fd;
    uint64_t size;
    *ret_has_frames = true;
    int r = f->is_strange ? -ENOENT : segment_open(q, f->id, &fd, &size);
    if (r < 0)
        return fs_is_passing(r) ? r : 0;
    r = read_remains(q, fd, size, &m);
    (void)q->fs->close(fd);
    if (r == 0)
        r = count_remains(q, &m, size);
    totals_deinit(&m.begin);
    totals_deinit(&m.end);
    totals_deinit(&m.acked);
    totals_deinit(&m.queued);
    *ret_has_frames = m.has_frames;
    return r;
}

static int set_aside_bad(struct recovery *rc, const struct found *f, const char *name)
{
    struct queue *q = rc->q;
    uint64_t newest = q->n_segs > 0 ? q->segs[q->n_segs - 1].id : 0;
    bool has_frames;
    int r = count_in_bad_file(rc, f, &has_frames);
    if (r < 0)
        return r;
    if (!has_frames && f->id > newest) {
        /* Its header was being written when we died. */
        rc->rec->torn_bytes += f->size;
        (void)q->fs->rename(q->dir_fd, name, q->quarantine_fd, name);
        return 0;
    }
    rc->rec->damaged_bytes += f->size;
    rc->rec->damaged_frames++;
    quarantine_rename(q, q->dir_fd, name);
    return 0;
}

int recover_set_aside(struct recovery *rc)
{
    struct queue *q = rc->q;
    int r = 0;
    for (size_t i = 0; i < rc->n && r == 0; i++) {
        const struct found *f = &rc->files[i];
        char name[SEGMENT_NAME_BYTES];
        segment_name(name, f->id);
        if (f->verdict == FILE_EMPTY)
            (void)q->fs->unlink(q->dir_fd, name); /* made early, never used */
        else if (f->verdict == FILE_BAD)
            r = set_aside_bad(rc, f, name);
    }
    return r;
}

static bool spans_touch(const struct queue *q, uint64_t first, uint64_t last)
{
    for (size_t i = 0; i < q->n_spans; i++)
        if (q->spans[i].first <= last && first <= q->spans[i].last)
            return true;
    return false;
}

/* Frames last+1..fence were durable once and no file has them. What they held is the difference of the counts on both
 * sides. */
static int count_gap(struct recovery *rc, const struct segment *before, const struct segment *after)
{
    struct queue *q = rc->q;
    struct totals rows = { 0 };
    uint64_t first = before->last_seq + 1;
    int r = between_rows(q, before, after, &rows);
    if (r == 0) {
        (void)!totals_add_all(&rc->gaps, &rows);
        if (atomic_load(&q->acked_seq) <= before->last_seq && !spans_touch(q, first, after->fence) && rows.lines > 0)
            r = between_count(q, before, after, &rows, NULL);
    }
    if (!fs_is_passing(r))
        spans_add_locked(q, first, after->fence);
    totals_deinit(&rows);
    return fs_is_passing(r) ? r : 0;
}

/* Before the oldest segment there is nothing to compare with: all that can be said is that they are gone. A cursor that
 * is older than the last unlink looks the same, so this is no count. */
static void say_oldest_gap(struct recovery *rc)
{
    struct queue *q = rc->q;
    uint64_t acked = atomic_load(&q->acked_seq);
    if (q->n_segs == 0 && rc->has_cursor && acked > 0) { /* the newest is never removed */
        rc->rec->damaged_frames++;
        log_error("queue", "queue.damaged", "there is a cursor and no file with frames: positions begin anew",
                  LOG_CSTR("output", q->name), LOG_NUM("acked", acked));
    }
    if (q->n_segs == 0 || acked >= q->segs[0].fence || spans_touch(q, acked + 1, q->segs[0].fence))
        return;
    log_error("queue", "lines.lost", "frames that were not acknowledged are in no file any more",
              LOG_CSTR("output", q->name), LOG_NUM("frames", q->segs[0].fence - acked));
}

int recover_gaps(struct recovery *rc)
{
    struct queue *q = rc->q;
    int r = 0;
    say_oldest_gap(rc);
    for (size_t i = 0; r == 0 && i + 1 < q->n_segs; i++)
        if (q->segs[i].last_seq < q->segs[i + 1].fence && q->segs[i + 1].fence > atomic_load(&q->acked_seq))
            r = count_gap(rc, &q->segs[i], &q->segs[i + 1]);
    return r;
}
