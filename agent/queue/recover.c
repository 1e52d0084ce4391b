/*
 * Recovery: any bytes in the directory -> an accepted prefix, what is set aside, and counts (queue.md §5).
 *
 *   list, headers -> which queue is it (uuid) -> cursor -> replay the newest segments (positions, totals) -> cut, sync
 *   -> what is missing between segments -> dead letters, parked frames -> what is queued -> go on in a new segment
 *
 * Bounded: every segment costs one header; only the newest is read whole, and the one the cursor stands in by its
 * headers and metas. Damage costs one pass over the damaged file.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/base/array.h"
#include "agent/base/bug.h"
#include "agent/base/bytes.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/queue/damage.h"
#include "agent/queue/replay.h"
#include "agent/queue/scan.h"

/* How far back positions are looked for when SNAPs are damaged. Each is one segment read whole. */
#define REPLAY_SEGMENTS 8
/* Frames built further ahead of the clock than this are of a clock that was wrong. */
#define AHEAD_MAX_NS (24 * 3600 * NS_PER_SEC)

enum verdict { FILE_GOOD, FILE_EMPTY, FILE_BAD };

struct found {
    uint64_t id, size;
    struct segment_head head; /* FILE_GOOD */
    enum verdict verdict;
    bool is_strange; /* FILE_BAD: whole, and another queue's */
};

struct recovery {
    struct queue *q;
    struct queue_recovery *rec;
    struct err *err;
    struct found *files;
    size_t n, cap;
    bool is_out_of_memory;
    struct cursor_slot cursor;
    bool has_cursor;
    uint64_t top_seq;
    struct totals queued, gaps; /* gaps: in segments' totals, but not to be had */
    struct tally parked;
};

/* ---- which files ---- */

static void collect(void *ctx, const char *name)
{
    struct recovery *r = ctx;
    uint64_t id = segment_name_parse(name, ".seg");
    if (id == 0 || r->is_out_of_memory)
        return;
    struct found *files = array_room(r->files, r->n, &r->cap, sizeof(*files));
    if (files == NULL) {
        r->is_out_of_memory = true;
        return;
    }
    r->files = files;
    r->files[r->n++] = (struct found){ .id = id };
}

static int by_id(const void *a, const void *b)
{
    uint64_t x = ((const struct found *)a)->id, y = ((const struct found *)b)->id;
    return x < y ? -1 : x > y;
}

/* A file is set aside for what is in it, not for a moment in which it could not be read. */
static int read_head(struct recovery *rc, struct found *f)
{
    struct queue *q = rc->q;
    int fd;
    f->verdict = FILE_BAD;
    int r = segment_open(q, f->id, &fd, &f->size);
    if (r == 0) {
        if (f->size == 0)
            f->verdict = FILE_EMPTY;
        else if ((r = segment_head_read(fd, f->id, &f->head)) == 0)
            f->verdict = FILE_GOOD;
        (void)q->fs->close(fd);
    }
    if (fs_is_passing(r))
        return err_set(rc->err, r, "queue of output '%s': cannot read segment %016llx now", q->name,
                       (unsigned long long)f->id);
    if (r == -EPROTO)
        return err_say(rc->err, r,
                       "queue of output '%s': segment %016llx was written by a newer version; it is left as it is",
                       q->name, (unsigned long long)f->id);
    return 0;
}

static int list_files(struct recovery *rc)
{
    int r = rc->q->fs->list(rc->q->dir_fd, collect, rc);
    if (rc->is_out_of_memory)
        r = -ENOMEM;
    if (r < 0)
        return err_set(rc->err, r, "queue of output '%s': cannot list the directory", rc->q->name);
    if (rc->n > 0)
        qsort(rc->files, rc->n, sizeof(*rc->files), by_id);
    for (size_t i = 0; i < rc->n && r == 0; i++)
        r = read_head(rc, &rc->files[i]);
    return r;
}

static bool has_uuid(const struct found *f, const uint8_t uuid[UUID_BYTES])
{
    return f->verdict == FILE_GOOD && memcmp(f->head.uuid, uuid, UUID_BYTES) == 0;
}

/* That of most of the newest good files; the newest of them when there are as many. NULL: there is none. */
static const uint8_t *elect_uuid(const struct recovery *rc)
{
    const uint8_t *chosen = NULL;
    size_t best = 0, voters = 0, from = rc->n;
    while (from > 0 && voters < UUID_VOTERS)
        voters += rc->files[--from].verdict == FILE_GOOD;
    for (size_t i = from; i < rc->n; i++) {
        size_t same = 0;
        if (rc->files[i].verdict != FILE_GOOD)
            continue;
        for (size_t k = from; k < rc->n; k++)
            same += has_uuid(&rc->files[k], rc->files[i].head.uuid);
        if (same >= best) {
            best = same;
            chosen = rc->files[i].head.uuid;
        }
        if (same == voters)
            break;
    }
    return chosen;
}

/* The cursor's uuid if a segment has it, else that of most segments: a foreign file must not take the queue over. */
static void choose_uuid(struct recovery *rc)
{
    bool is_known = false;
    for (size_t i = 0; rc->has_cursor && i < rc->n && !is_known; i++)
        is_known = has_uuid(&rc->files[i], rc->cursor.uuid);
    const uint8_t *elected = is_known ? rc->cursor.uuid : elect_uuid(rc);
    if (elected != NULL)
        memcpy(rc->q->uuid, elected, UUID_BYTES);
    else if (rc->has_cursor)
        memcpy(rc->q->uuid, rc->cursor.uuid, UUID_BYTES);
    else
        random_bytes(rc->q->uuid, UUID_BYTES);
    if (rc->has_cursor && memcmp(rc->q->uuid, rc->cursor.uuid, UUID_BYTES) != 0)
        rc->has_cursor = false;
}

/* Strangers, and files whose numbers do not grow with their ids: the newer one is right. */
static void weed(struct recovery *rc)
{
    uint64_t first_above = UINT64_MAX;
    for (size_t i = rc->n; i-- > 0;) {
        struct found *f = &rc->files[i];
        if (f->verdict != FILE_GOOD)
            continue;
        f->is_strange = memcmp(f->head.uuid, rc->q->uuid, UUID_BYTES) != 0;
        if (f->is_strange || f->head.first_seq >= first_above)
            f->verdict = FILE_BAD;
        else
            first_above = f->head.first_seq;
    }
}

static int list_segments(struct recovery *rc)
{
    struct queue *q = rc->q;
    for (size_t i = 0; i < rc->n; i++) {
        const struct found *f = &rc->files[i];
        q->last_id = MAX(q->last_id, f->id);
        if (f->verdict != FILE_GOOD)
            continue;
        struct segment s = { .id = f->id, .first_seq = f->head.first_seq, .fence = f->head.fence,
                             .last_data_seq = UINT64_MAX, .bytes = f->size, .salt = f->head.salt,
                             .wire_form = f->head.wire_form };
        rc->top_seq = MAX(rc->top_seq, s.first_seq);
        int r = segment_list_add(q, &s);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Where each ends: the next one's fence, and no later fence below it. When ids are missing between two, a file may be
 * gone, and only the frames themselves say where the older one ends. The newest is not known yet. */
static int find_ends(struct recovery *rc)
{
    struct queue *q = rc->q;
    uint64_t fence = SEQ_MAX;
    for (size_t i = q->n_segs; i-- > 0;) {
        struct segment *s = &q->segs[i];
        s->last_seq = fence;
        if (i + 1 < q->n_segs && q->segs[i + 1].id != s->id + 1 && fence >= s->first_seq) {
            uint64_t seq;
            int r = segment_last_seq(q, s, &seq);
            if (fs_is_passing(r))
                return r;
            if (r == 0 && seq < fence)
                s->last_seq = MAX(seq, s->first_seq - 1);
        }
        fence = BUG(2) ? SEQ_MAX : MIN(fence, s->fence);
    }
    return 0;
}

/* ---- cursor ---- */

static int read_cursor(struct recovery *rc)
{
    struct queue *q = rc->q;
    struct stat st;
    int r, fd = r = queue_open_file(q->fs, q->dir_fd, "cursor", O_RDONLY, &st);
    if (fd >= 0) {
        r = cursor_read(fd, &rc->cursor);
        (void)q->fs->close(fd);
    }
    rc->has_cursor = r > 0;
    return fs_is_passing(r) ? err_set(rc->err, r, "queue of output '%s': cannot read the cursor now", q->name) : 0;
}

/* Both slots bad: from the start of the oldest segment, everything that is there once more. */
static void place_cursor(struct recovery *rc)
{
    struct queue *q = rc->q;
    if (!rc->has_cursor) {
        atomic_store(&q->acked_seq, q->n_segs > 0 ? q->segs[0].first_seq - 1 : 0);
        return;
    }
    atomic_store(&q->acked_seq, rc->cursor.acked_seq);
    q->generation = q->synced_generation = rc->cursor.generation;
    q->written_acked_seq = rc->cursor.acked_seq; /* synced_acked_seq waits for a sync of ours */
    rc->top_seq = MAX(rc->top_seq, cursor_top(&rc->cursor));
}

static void place_bits(struct recovery *rc, uint64_t last_seq)
{
    struct queue *q = rc->q;
    uint64_t acked = atomic_load(&q->acked_seq);
    for (size_t i = 0; rc->has_cursor && i < QUEUE_WINDOW; i++)
        if ((rc->cursor.bits[i / 64] >> (i % 64) & 1) && acked + 1 + i <= last_seq)
            (void)ack_mark_locked(q, rc->cursor.acked_seq + 1 + i);
}

/* Frames whose loss is in the ledger are not sent as well, and no new frame may take their numbers. */
static void pass_counted(struct recovery *rc)
{
    struct queue *q = rc->q;
    for (size_t i = 0; i < q->n_spans; i++) {
        rc->top_seq = MAX(rc->top_seq, q->spans[i].last);
        if (q->damaged.n < SPANS_MAX) /* each by itself: one that is too long for the window does not hold up its neighbour */
            q->damaged.list[q->damaged.n++] = q->spans[i];
    }
    ack_damaged_locked(q);
}

/* ---- replay of the newest ---- */

/* A segment that was being made when we died: a header perhaps, and not one good frame. */
static bool is_stillborn(struct recovery *rc, const struct segment *s)
{
    struct queue *q = rc->q;
    int fd;
    uint64_t size, off;
    struct scan scan;
    struct frame_hdr h;
    if (segment_open(q, s->id, &fd, &size) < 0)
        return false;
    bool is = false;
    if (scan_init(&scan, fd, size, s->salt) == 0)
        is = !scan_find(&scan, SEGMENT_HEAD_BYTES, s->first_seq, SEQ_MAX, &off, &h) && scan.error == 0;
    scan_deinit(&scan);
    (void)q->fs->close(fd);
    return is;
}

static void drop_stillborn(struct recovery *rc)
{
    struct queue *q = rc->q;
    while (q->n_segs > 0 && is_stillborn(rc, &q->segs[q->n_segs - 1])) {
        const struct segment *s = &q->segs[--q->n_segs];
        char name[SEGMENT_NAME_BYTES];
        segment_name(name, s->id);
        rc->rec->torn_bytes += s->bytes;
        (void)q->fs->rename(q->dir_fd, name, q->quarantine_fd, name);
    }
}

static int replay_from(struct recovery *rc, size_t first, struct replay *rp)
{
    struct queue *q = rc->q;
    int r = 0;
    for (size_t i = first; i < q->n_segs && r == 0; i++) {
        const struct segment *s = &q->segs[i];
        bool is_newest = i + 1 == q->n_segs;
        if (s->last_seq < s->first_seq)
            continue; /* void: positions come from elsewhere */
        r = replay_segment(rp, s, is_newest ? (uint64_t)SEQ_MAX : s->last_seq, is_newest);
    }
    return r;
}

/* From the newest segment whose SNAP is good. */
static size_t replay_start(struct recovery *rc)
{
    struct queue *q = rc->q;
    size_t at = q->n_segs - 1;
    for (unsigned tries = 0; tries < REPLAY_SEGMENTS && at > 0; tries++) {
        struct totals t = { 0 };
        int r = q->segs[at].last_seq < q->segs[at].first_seq ? -EBADMSG : segment_totals_begin(q, &q->segs[at], &t);
        totals_deinit(&t);
        if (r == 0 || fs_is_passing(r)) /* then replay says so */
            break;
        at--;
    }
    return at;
}

/* Where the frames begin that may be in the page cache alone. */
static uint64_t first_unsynced(const struct segment *s, int fd, const struct replay *rp)
{
    struct scan scan;
    struct frame_hdr h;
    uint64_t off = SEGMENT_HEAD_BYTES;
    if (scan_init(&scan, fd, rp->good_end, s->salt) < 0)
        return off;
    while (off < rp->good_end && scan_head(&scan, off, &h) == 0 && h.seq <= rp->synced_seq)
        off += frame_bytes(&h);
    scan_deinit(&scan);
    return off;
}

/* Frames that were known durable are left alone. */
static int make_durable(struct queue *q, const struct segment *s, int fd, const struct replay *rp)
{
    if (q->conf.sync == QUEUE_SYNC_NEVER || BUG(9))
        return 0;
    if (BUG(38))
        return q->fs->fdatasync(fd);
    return fs_make_durable(fd, first_unsynced(s, fd, rp), rp->good_end);
}

/* Cuts what does not count off the newest file and makes the rest durable. */
static int settle_newest(struct recovery *rc, const struct replay *rp)
{
    struct queue *q = rc->q;
    struct segment *s = &q->segs[q->n_segs - 1];
    char name[SEGMENT_NAME_BYTES];
    segment_name(name, s->id);
    int fd = q->fs->open(q->dir_fd, name, O_RDWR, 0);
    if (fd < 0)
        return fd;
    if (s->bytes > rp->good_end) {
        rc->rec->torn_bytes += s->bytes - rp->good_end;
        (void)q->fs->truncate(fd, rp->good_end); /* if not, the next fence makes it void all the same */
    }
    int r = make_durable(q, s, fd, rp);
    (void)q->fs->close(fd);
    s->bytes = MIN(s->bytes, rp->good_end);
    s->last_seq = rp->good_seq;
    s->last_data_seq = UINT64_MAX;
    return r;
}

/* The newest file ends before what is known to have been durable: it was cut by somebody, or the disk lost it. The positions
 * fall back to its end, so the lines are read again while their files are there; those that the server has come twice. */
static void say_cut_end(struct recovery *rc, const struct replay *rp)
{
    if (rp->synced_seq <= rp->good_seq)
        return;
    rc->rec->damaged_frames += rp->synced_seq - rp->good_seq;
    log_error("queue", "queue.damaged",
              "the newest file of the queue ends before frames that were durable: their lines are read again",
              LOG_CSTR("output", rc->q->name), LOG_NUM("frames", rp->synced_seq - rp->good_seq));
}

static int replay(struct recovery *rc)
{
    struct queue *q = rc->q;
    struct replay rp;
    replay_init(&rp, q, cursor_top(&rc->cursor) * rc->has_cursor);
    int r = replay_from(rc, replay_start(rc), &rp);
    replay_deinit(&rp);
    if (r == -EPROTO)
        return err_say(rc->err, r, "queue of output '%s' was written by a newer version; it is left as it is", q->name);
    if (r < 0)
        return err_set(rc->err, r, "queue of output '%s': cannot recover", q->name);
    rc->rec->damaged_bytes += rp.damaged_bytes;
    rc->rec->damaged_frames += rp.damaged_frames;
    rc->top_seq = MAX(rc->top_seq, rp.top_seq);
    rc->rec->newest_ns = MAX(rc->rec->newest_ns, rp.newest_ns);
    say_cut_end(rc, &rp);
    /* What is only in the page cache may not be sent. Nothing of it is cut for that: it may have been sent already. */
    r = settle_newest(rc, &rp);
    return r < 0 ? err_set(rc->err, r, "queue of output '%s': cannot sync", q->name) : 0;
}

/* ---- what is missing ---- */

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
    if (m->first != 0 && rows.lines > 0)
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

static int set_aside(struct recovery *rc)
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

static int count_between(struct queue *q, const struct segment *before, const struct segment *after,
                         const struct totals *rows)
{
    struct damage d;
    int r = damage_between(q, before, after, &d);
    if (r < 0)
        return r;
    r = loss_count(q, &(struct loss){ .reason = LOST_DAMAGE, .rows = rows, .gaps = &d.gaps });
    damage_deinit(&d);
    return r;
}

/* Frames last+1..fence were durable once and no file has them. What they held is the difference of the counts on both
 * sides. */
static int count_gap(struct recovery *rc, const struct segment *before, const struct segment *after)
{
    struct queue *q = rc->q;
    struct totals rows = { 0 }, end = { 0 };
    uint64_t first = before->last_seq + 1;
    int r = segment_totals_begin(q, after, &rows);
    if (r == 0)
        r = segment_totals_end(q, before, &end);
    if (r == 0) {
        totals_subtract(&rows, &end);
        (void)!totals_add_all(&rc->gaps, &rows);
        if (atomic_load(&q->acked_seq) <= before->last_seq && !spans_touch(q, first, after->fence) && rows.lines > 0)
            r = count_between(q, before, after, &rows);
    }
    if (!fs_is_passing(r))
        spans_add_locked(q, first, after->fence);
    totals_deinit(&rows);
    totals_deinit(&end);
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

static int count_gaps(struct recovery *rc)
{
    struct queue *q = rc->q;
    int r = 0;
    say_oldest_gap(rc);
    for (size_t i = 0; r == 0 && i + 1 < q->n_segs; i++)
        if (q->segs[i].last_seq < q->segs[i + 1].fence && q->segs[i + 1].fence > atomic_load(&q->acked_seq))
            r = count_gap(rc, &q->segs[i], &q->segs[i + 1]);
    return r;
}

/* ---- what is queued ---- */

static int add_difference(struct totals *into, const struct totals *now, const struct totals *then)
{
    for (size_t i = 0; i < now->n; i++) {
        const struct totals_row *row = &now->rows[i];
        const struct totals_row *old = totals_find(then, row->input, row->tenant);
        uint64_t before = old == NULL ? 0 : old->lines;
        if (row->lines > before && totals_add(into, row->input, row->tenant, row->lines - before) < 0)
            return -ENOMEM;
    }
    return 0;
}

/* Of one segment. What cannot be read waits as well: it is counted as lost when the sender comes to it. */
static int count_waiting(struct recovery *rc, const struct segment *s, uint64_t *ret_frames)
{
    struct queue *q = rc->q;
    struct totals missing = { 0 };
    struct spans holes;
    bool has_holes = false;
    uint64_t size;
    int fd;
    int r = segment_open(q, s->id, &fd, &size);
    if (r < 0)
        return r;
    r = loss_rows(q, fd, s, atomic_load(&q->acked_seq) + 1, s->last_seq, &rc->queued, ret_frames, &has_holes);
    (void)q->fs->close(fd);
    if (r == 0 && has_holes)
        r = segment_missing(q, s, &missing, &holes);
    for (size_t i = 0; r == 0 && has_holes && i < holes.n; i++)
        if (ack_is_done_locked(q, holes.list[i].last))
            r = -EBADMSG; /* nobody knows how much of it waits */
    if (r == 0)
        r = totals_add_all(&rc->queued, &missing);
    totals_deinit(&missing);
    return r;
}

/* By reading up to the segment where the last bit beyond the cursor stands; what follows is a difference of totals. */
static int count_queued(struct recovery *rc)
{
    struct queue *q = rc->q;
    uint64_t acked = atomic_load(&q->acked_seq), bit = MAX(acked, cursor_top(&rc->cursor) * rc->has_cursor);
    const struct segment *from = segment_of_locked(q, acked + 1);
    for (size_t i = from == NULL ? q->n_segs : (size_t)(from - q->segs); i < q->n_segs; i++) {
        const struct segment *s = &q->segs[i];
        uint64_t frames = 0;
        int r = count_waiting(rc, s, &frames);
        if (fs_is_passing(r))
            return r;
        rc->rec->queued_frames += frames;
        if (s->last_seq < bit || i + 1 == q->n_segs)
            continue;
        struct totals begin = { 0 };
        r = segment_totals_begin(q, s + 1, &begin);
        if (r == 0)
            r = add_difference(&rc->queued, &q->totals, &begin);
        if (r == 0) {
            rc->rec->queued_frames += q->totals.frames > begin.frames ? q->totals.frames - begin.frames : 0;
            totals_subtract(&rc->queued, &rc->gaps);
        }
        totals_deinit(&begin);
        if (r == 0 || fs_is_passing(r))
            return r;
    }
    return 0;
}

/* ---- the report ---- */

static int report_ledger(struct recovery *rc)
{
    struct queue *q = rc->q;
    struct ledger_row *rows = calloc(q->totals.n + 1, sizeof(*rows));
    if (rows == NULL)
        return -ENOMEM;
    size_t n = 0;
    for (size_t i = 0; i < q->totals.n; i++) {
        const struct totals_row *row = &q->totals.rows[i];
        if (!row->has_ledger)
            continue;
        rows[n] = row->ledger;
        rows[n].input = row->input;
        rows[n++].tenant = row->tenant;
    }
    q->rec_ledger = rows;
    rc->rec->ledger = rows;
    rc->rec->n_ledger = n;
    return 0;
}

static struct recovered_row *row_of(struct recovered_row *rows, size_t *n, struct slice tenant)
{
    for (size_t i = 0; i < *n; i++)
        if (slice_eq(rows[i].tenant, tenant))
            return &rows[i];
    rows[*n] = (struct recovered_row){ .tenant = tenant };
    return &rows[(*n)++];
}

/* Lines of a tenant that nobody knows (or of damaged totals) were accepted too: nothing is below zero. */
static void balance(struct recovered_row *row)
{
    uint64_t rest = row->queued + row->parked + row->dead;
    for (size_t k = 0; k < LOST_REASONS; k++)
        rest += row->lost[k];
    row->accepted = MAX(row->accepted, rest);
}

/* The names live in the queue's own totals, which only grow. */
static int report_rows(struct recovery *rc)
{
    struct queue *q = rc->q;
    const struct tally *tallies[] = { &q->dead.tally, &q->losses, &rc->parked };
    size_t max = q->totals.n + rc->queued.n + q->dead.unsettled.n, n = 0;
    for (size_t t = 0; t < ARRAY_LEN(tallies); t++)
        max += tallies[t]->n;
    struct recovered_row *rows = calloc(max + 1, sizeof(*rows));
    if (rows == NULL)
        return -ENOMEM;
    q->rec_rows = rows;
    for (size_t i = 0; i < q->totals.n; i++)
        row_of(rows, &n, q->totals.rows[i].tenant)->accepted += q->totals.rows[i].lines;
    for (size_t i = 0; i < rc->queued.n; i++) {
        /* A name that only this table has would not outlive it. */
        const struct totals_row *row = totals_get(&q->totals, rc->queued.rows[i].input, rc->queued.rows[i].tenant);
        if (row == NULL)
            return -ENOMEM;
        row_of(rows, &n, row->tenant)->queued += rc->queued.rows[i].lines;
        rc->rec->queued_lines += rc->queued.rows[i].lines;
    }
    for (size_t i = 0; i < rc->parked.n; i++) {
        const struct totals_row *row = totals_get(&q->totals, SLICE(""), rc->parked.rows[i].tenant);
        if (row == NULL)
            return -ENOMEM;
        row_of(rows, &n, row->tenant)->parked += rc->parked.rows[i].dead;
    }
    for (size_t t = 0; t < 2; t++) {
        for (size_t i = 0; i < tallies[t]->n; i++) {
            const struct tally_row *from = &tallies[t]->rows[i];
            const struct totals_row *name = totals_get(&q->totals, SLICE(""), from->tenant);
            if (name == NULL)
                return -ENOMEM;
            struct recovered_row *row = row_of(rows, &n, name->tenant);
            row->dead += from->dead;
            for (size_t k = 0; k < LOST_REASONS; k++) {
                row->lost[k] += from->lost[k];
                row->lost_bytes[k] += from->lost_bytes[k];
            }
        }
    }
    for (size_t i = 0; i < q->dead.unsettled.n; i++) {
        const struct totals_row *name = totals_get(&q->totals, SLICE(""), q->dead.unsettled.rows[i].tenant);
        if (name == NULL)
            return -ENOMEM;
        struct recovered_row *row = row_of(rows, &n, name->tenant);
        row->dead -= MIN(row->dead, q->dead.unsettled.rows[i].lines);
    }
    for (size_t i = 0; i < n; i++)
        balance(&rows[i]);
    rc->rec->rows = rows;
    rc->rec->n_rows = n;
    return 0;
}

/* ---- the whole ---- */

static int check_wire_form(struct recovery *rc)
{
    struct queue *q = rc->q;
    if (rc->rec->queued_frames == 0 && q->n_parked == 0)
        return 0;
    for (size_t i = 0; i < q->n_segs; i++)
        if (q->segs[i].wire_form != q->wire_form && q->segs[i].last_seq > atomic_load(&q->acked_seq))
            return err_say(rc->err, -EPROTO,
                           "queue of output '%s' holds frames for another type or form of output (%u, now %u): drain "
                           "it or rename the output",
                           q->name, q->segs[i].wire_form, q->wire_form);
    return 0;
}

static int begin(struct recovery *rc)
{
    struct queue *q = rc->q;
    uint64_t last = q->n_segs > 0 ? q->segs[q->n_segs - 1].last_seq : 0;
    uint64_t bytes = 0;
    for (size_t i = 0; i < q->n_segs; i++)
        bytes += q->segs[i].bytes;
    atomic_fetch_add(&q->bytes, bytes);
    q->group_seq = last;
    q->synced_seq = last;
    q->top_seq = BUG(8) ? last : MAX(MAX(rc->top_seq, last), atomic_load(&q->acked_seq));
    atomic_store(&q->durable_seq, last);
    pthread_mutex_lock(&q->lock);
    ack_damaged_locked(q);
    pthread_mutex_unlock(&q->lock);

    if (rc->rec->newest_ns > clock_wall_ns() + AHEAD_MAX_NS)
        rc->rec->newest_ns = 0;
    q->newest_ns = rc->rec->newest_ns;
    int r = segment_begin(q);
    if (r == -ENOSPC || r == -EDQUOT) {
        queue_set_blocked(q, r); /* sending goes on; the next append tries again */
        r = 0;
    }
    if (r < 0)
        return err_set(rc->err, r, "queue of output '%s': cannot begin a segment", q->name);
    return 0;
}

static int recover_steps(struct recovery *rc)
{
    struct queue *q = rc->q;
    int r = list_files(rc);
    if (r < 0)
        return r;
    r = read_cursor(rc);
    if (r < 0)
        return r;
    choose_uuid(rc);
    weed(rc);
    if ((r = list_segments(rc)) < 0 || (r = find_ends(rc)) < 0)
        return err_set(rc->err, r, "queue of output '%s': cannot recover", q->name);
    drop_stillborn(rc);
    place_cursor(rc);
    rc->rec->is_new = q->n_segs == 0 && !rc->has_cursor;
    if (q->n_segs > 0 && (r = replay(rc)) < 0)
        return r;
    place_bits(rc, q->n_segs > 0 ? q->segs[q->n_segs - 1].last_seq : 0);
    r = dead_open(q);
    pass_counted(rc);
    if (r == 0)
        r = parked_open(q, &rc->parked);
    if (r < 0)
        return err_set(rc->err, r, "queue of output '%s': cannot read dead letters and parked frames", q->name);
    r = set_aside(rc);
    if (r == 0)
        r = count_gaps(rc);
    if (r == 0)
        r = count_queued(rc);
    if (r == 0 && letters_finish(q) < 0)
        log_error("queue", "queue.recovered", "dead letters that were sent again cannot be marked so",
                  LOG_CSTR("output", q->name));
    if (r == 0)
        r = check_wire_form(rc);
    if (r == -EPROTO)
        return r;
    if (r == 0)
        r = cursor_create(q);
    if (r == -ENOSPC || r == -EDQUOT)
        return err_set(rc->err, r, "queue of output '%s': no room for the cursor", q->name);
    if (r == 0)
        r = begin(rc);
    if (r == 0)
        r = positions_export(&q->positions, &rc->rec->files, &rc->rec->n_files);
    if (r == 0) {
        positions_trim_marks(&q->positions);
        rc->rec->marks = q->positions.marks;
        rc->rec->n_marks = q->positions.n_marks;
    }
    if (r == 0)
        r = report_ledger(rc);
    if (r == 0)
        r = report_rows(rc);
    return r < 0 && rc->err != NULL && rc->err->code == 0
               ? err_set(rc->err, r, "queue of output '%s': cannot recover", q->name)
               : r;
}

static void say(const struct queue *q, const struct queue_recovery *rec)
{
    if (rec->is_new)
        return;
    enum log_level level = rec->damaged_frames > 0 ? LOG_WARN : LOG_INFO;
    log_at(level, "queue", "queue.recovered", "the queue is open", LOG_CSTR("output", q->name),
           LOG_NUM("frames", rec->queued_frames), LOG_NUM("lines", rec->queued_lines), LOG_NUM("files", rec->n_files),
           LOG_NUM("torn_bytes", rec->torn_bytes), LOG_NUM("damaged_bytes", rec->damaged_bytes),
           LOG_NUM("damaged_frames", rec->damaged_frames));
}

int recover(struct queue *q, struct queue_recovery *rec, struct err *err)
{
    struct err own = { 0 };
    struct recovery rc = { .q = q, .rec = rec, .err = err != NULL ? err : &own };
    rc.err->code = 0;
    *rec = (struct queue_recovery){ 0 };
    int r = recover_steps(&rc);
    if (r == 0) {
        rec->next_seq = q->top_seq + 1;
        rec->acked_seq = atomic_load(&q->acked_seq);
        rec->bytes = atomic_load(&q->bytes);
        say(q, rec);
    }
    free(rc.files);
    totals_deinit(&rc.queued);
    totals_deinit(&rc.gaps);
    tally_deinit(&rc.parked);
    return r;
}
