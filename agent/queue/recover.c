/*
 * Recovery: any bytes in the directory -> an accepted prefix, what is set aside, and counts (queue.md §5).
 *
 *   list, headers -> which queue is it (uuid) -> cursor -> replay the newest segments (positions, totals) -> cut, sync
 *   -> what is missing between segments -> dead letters, parked frames -> what is queued -> go on in a new segment
 *
 * Bounded: every segment costs one header; only the newest is read whole, and the one the cursor stands in by its
 * headers and metas. Damage costs one pass over the damaged file.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "agent/base/bug.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/queue/recover.h"
#include "agent/queue/replay.h"
#include "agent/queue/scan.h"

/* How far back positions are looked for when SNAPs are damaged. Each is one segment read whole. */
#define REPLAY_SEGMENTS 8
/* Frames built further ahead of the clock than this are of a clock that was wrong. */
#define AHEAD_MAX_NS (24 * 3600 * NS_PER_SEC)

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
        if (ack_is_done_locked(q, holes.list[i].last) && !missed_any(q, s->id))
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
    (void)!segment_keep_room(q); /* before the segment takes what it can get; else at the next append */
    int r = segment_begin(q);
    if (fs_is_full(r)) {
        queue_set_blocked(q, r); /* sending goes on; the next append tries again */
        r = 0;
    }
    if (r < 0)
        return err_set(rc->err, r, "queue of output '%s': cannot begin a segment", q->name);
    return 0;
}

static int settle_counts(struct recovery *rc)
{
    struct queue *q = rc->q;
    int r = recover_set_aside(rc);
    if (r == 0)
        r = recover_gaps(rc);
    if (r == 0)
        r = count_queued(rc);
    if (r == 0 && letters_finish(q) < 0)
        log_error("queue", "queue.recovered", "dead letters that were sent again cannot be marked so",
                  LOG_CSTR("output", q->name));
    return r < 0 ? r : check_wire_form(rc);
}

static int recover_steps(struct recovery *rc)
{
    struct queue *q = rc->q;
    int r = recover_list(rc);
    if (r < 0)
        return r;
    r = read_cursor(rc);
    if (r < 0)
        return r;
    r = recover_segments(rc);
    if (r < 0)
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
    r = settle_counts(rc);
    if (r == -EPROTO)
        return r;
    if (r == 0)
        r = cursor_create(q);
    if (fs_is_full(r))
        return err_set(rc->err, r, "queue of output '%s': no room for the cursor", q->name);
    if (r == 0)
        r = begin(rc);
    if (r == 0)
        r = recover_report(rc);
    return r < 0 && rc->err->code == 0
               ? err_set(rc->err, r, "queue of output '%s': cannot recover", q->name)
               : r;
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
        recover_say(q, rec);
    }
    free(rc.files);
    totals_deinit(&rc.queued);
    totals_deinit(&rc.gaps);
    tally_deinit(&rc.parked);
    return r;
}
