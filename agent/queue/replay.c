#include "agent/queue/replay.h"

#include <assert.h>
#include <errno.h>

#include "agent/base/bug.h"
#include "agent/base/bytes.h"
#include "agent/queue/scan.h"

void replay_init(struct replay *rp, struct queue *q, uint64_t acked_seq)
{
    *rp = (struct replay){ .q = q, .synced_seq = acked_seq };
    buf_init(&rp->meta, SNAP_RAW_MAX);
    positions_clear(&q->positions);
    totals_clear(&q->totals);
    totals_commit(&q->totals);
    buf_reset(&q->replayed);
}

void replay_deinit(struct replay *rp)
{
    buf_deinit(&rp->meta);
}

/* One segment being read. */
struct place {
    struct scan scan;
    uint64_t off, expect;
    uint64_t id;
    bool is_newest, has_looked;
    int fd;
};

/* The group's rows, and with its last frame the positions. */
static int take_items(struct replay *rp, const struct frame_hdr *h, struct slice meta)
{
    struct queue *q = rp->q;
    struct meta_item item;
    int r;
    bool is_state = h->type == FRAME_SNAP || h->type == FRAME_SEAL;
    while ((r = meta_next(&meta, &item)) > 0) {
        if (item.tag == META_COUNT && !is_state) {
            struct slice input, tenant;
            uint64_t lines;
            r = meta_get_count(item.bytes, &input, &tenant, &lines);
            if (r == 0)
                r = totals_add(&q->totals, input, tenant, lines);
            if (r == 0 && (h->flags & FRAME_FLAG_GAP))
                r = meta_put(&q->replayed, META_COUNT, false, item.bytes);
        } else if (item.tag == META_TOTAL && !is_state) {
            /* More than the frames that are left say: some are lost, with the names of their tenants. */
            uint64_t lines = item.bytes.len >= 16 ? get_le64(item.bytes.ptr) : 0;
            if (lines > q->totals.lines && lines < SEQ_MAX)
                r = totals_add(&q->totals, SLICE(""), SLICE(TENANT_UNKNOWN), lines - q->totals.lines);
        } else if (item.tag == META_LETTER) {
            r = meta_put(&q->replayed, META_LETTER, false, item.bytes);
            rp->has_letter = true;
        } else {
            r = totals_take(&q->totals, item.tag, item.bytes);
            if (r == 0)
                r = positions_take(&q->positions, item.tag, item.bytes);
        }
        if (r < 0 && r != -EBADMSG) /* an item that cannot be read; the rest can */
            return r;
    }
    if (h->type == FRAME_DATA)
        q->totals.frames++;
    return r;
}

static void close_group(struct replay *rp, const struct place *p, bool is_snap)
{
    positions_commit(&rp->q->positions);
    totals_commit(&rp->q->totals);
    rp->good_end = p->off;
    rp->good_seq = p->expect - 1;
    if (is_snap)
        positions_noted(&rp->q->positions);
    if (!rp->has_letter) /* damage took the frame that says whose rows these are */
        rp->q->replayed.len = rp->letters_len;
    rp->letters_len = rp->q->replayed.len;
    rp->has_letter = false;
}

/* SNAP says everything anew, SEAL all counts. A meta that passes its CRC and cannot be read is our own mistake or a
 * newer version's: only the latter is worth stopping for. */
static int take(struct replay *rp, const struct frame_hdr *h)
{
    struct queue *q = rp->q;
    if (h->type == FRAME_SNAP) {
        positions_clear(&q->positions);
        totals_clear(&q->totals);
    } else if (h->type == FRAME_SEAL) {
        totals_clear_lines(&q->totals);
    }
    int r = take_items(rp, h, buf_slice(&rp->meta));
    return r == -EBADMSG ? 0 : r;
}

/* The highest synced_seq in what follows: of the newest at once, else for the first place that is not whole. */
static void look_further(struct replay *rp, struct place *p, uint64_t last_seq)
{
    struct frame_hdr h;
    uint64_t off = p->off;
    p->has_looked = true;
    while (scan_find(&p->scan, off, p->expect, last_seq, &off, &h)) {
        rp->synced_seq = MAX(rp->synced_seq, h.synced_seq);
        rp->top_seq = MAX(rp->top_seq, h.seq);
        off += frame_bytes(&h);
    }
}

/*
 * The frame at p->off is not whole (h: its header, when that is good). True: it was durable once, so this is damage; it is
 * stepped over. False: the last write stopped here, or the disk wrote later blocks first; nothing from here on counts.
 */
static bool step_over(struct replay *rp, struct place *p, const struct frame_hdr *h, uint64_t last_seq)
{
    if (!p->has_looked)
        look_further(rp, p, last_seq);
    if (p->scan.error < 0)
        return false;
    if (p->is_newest && p->expect > rp->synced_seq)
        return false;

    uint64_t from = p->off, seq = p->expect;
    struct frame_hdr next;
    if (h != NULL) {
        p->off += frame_bytes(h);
        p->expect++;
    } else if (scan_find(&p->scan, p->off, p->expect, last_seq, &p->off, &next)) {
        p->expect = next.seq;
    } else if (p->scan.error < 0) {
        return false;
    } else {
        p->off = p->scan.size;
        p->expect = MIN(last_seq, MAX(rp->synced_seq, seq)) + 1;
    }
    rp->damaged_frames += p->expect - seq;
    rp->damaged_bytes += p->off - from;
    if (p->off > from)
        quarantine_copy(rp->q, p->fd, p->id, from, p->off - from);
    return true;
}

/* One frame or one damaged place: 1, 0 when nothing further counts. */
static int step(struct replay *rp, struct place *p, uint64_t last_seq)
{
    struct frame_hdr h;
    if (p->off >= p->scan.size || p->expect > last_seq)
        return 0;
    if (BUG(10) && scan_head(&p->scan, p->off, &h) < 0 && !scan_find(&p->scan, p->off, p->expect, last_seq, &p->off, &h))
        return 0;
    if (BUG(10) && scan_head(&p->scan, p->off, &h) == 0 && h.seq > p->expect)
        p->expect = h.seq; /* what is between is nobody's */
    if (scan_head(&p->scan, p->off, &h) < 0 || h.seq != p->expect)
        return step_over(rp, p, NULL, last_seq);
    rp->top_seq = MAX(rp->top_seq, h.seq);
    rp->synced_seq = MAX(rp->synced_seq, h.synced_seq);
    rp->newest_ns = MAX(rp->newest_ns, h.built_ns);
    int r = scan_meta(&p->scan, p->off, &h, &rp->meta);
    if (r == -EBADMSG)
        return step_over(rp, p, &h, last_seq);
    if (r < 0)
        return r;
    /* With a good meta the positions hold whatever became of the body. Bodies that were known durable are checked when they
     * are sent: a start reads no more of a long segment than what may have been torn. */
    bool is_damaged = p->is_newest && h.seq > rp->synced_seq && !scan_body_is_good(&p->scan, p->off, &h);
    if (is_damaged) {
        if (!step_over(rp, p, &h, last_seq))
            return 0;
    } else {
        p->off += frame_bytes(&h);
        p->expect++;
    }
    r = take(rp, &h);
    if (r < 0)
        return r;
    if (!(h.flags & FRAME_FLAG_MORE))
        close_group(rp, p, h.type == FRAME_SNAP);
    return 1;
}

int replay_segment(struct replay *rp, const struct segment *seg, uint64_t last_seq, bool is_newest)
{
    struct place p = { .off = SEGMENT_HEAD_BYTES, .expect = seg->first_seq, .id = seg->id, .is_newest = is_newest };
    uint64_t size;
    int r = segment_open(rp->q, seg->id, &p.fd, &size);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    r = scan_init(&p.scan, p.fd, size, seg->salt);
    rp->good_end = SEGMENT_HEAD_BYTES;
    rp->good_seq = seg->first_seq - 1;
    if (r == 0 && is_newest)
        look_further(rp, &p, last_seq);
    while (r == 0) {
        r = step(rp, &p, last_seq);
        if (p.scan.error < 0)
            r = p.scan.error;
        if (r <= 0)
            break;
        /* Damage may have taken the last frame of a group; what was durable was whole. */
        if (p.expect - 1 == rp->synced_seq)
            close_group(rp, &p, false);
        r = 0;
    }
    positions_rollback(&rp->q->positions);
    totals_rollback(&rp->q->totals);
    rp->q->replayed.len = rp->letters_len;
    rp->has_letter = false;
    scan_deinit(&p.scan);
    (void)rp->q->fs->close(p.fd);
    return r;
}
