/*
 * The sender's end: frames in order, what is damaged set aside.
 */
#include <assert.h>
#include <errno.h>

#include "agent/queue/core.h"
#include "agent/base/bug.h"
#include "agent/queue/damage.h"
#include "agent/queue/scan.h"

/* ---- descriptors of its own ---- */

static void drop_fd(struct queue *q, unsigned i)
{
    if (q->read_fds[i].segment_id != 0)
        (void)q->fs->close(q->read_fds[i].fd);
    q->read_fds[i].segment_id = 0;
}

static int reader_fd(struct queue *q, uint64_t id, int *ret_fd)
{
    for (unsigned i = 0; i < READER_FDS; i++) {
        if (q->read_fds[i].segment_id == id) {
            *ret_fd = q->read_fds[i].fd;
            return 0;
        }
    }
    uint64_t size;
    int r = segment_open(q, id, ret_fd, &size);
    if (r < 0)
        return r;
    unsigned i = q->read_fd_next++ % READER_FDS;
    drop_fd(q, i);
    q->read_fds[i].segment_id = id;
    q->read_fds[i].fd = *ret_fd;
    return 0;
}

void reader_close(struct queue *q)
{
    for (unsigned i = 0; i < READER_FDS; i++)
        drop_fd(q, i);
}

/* Space of segments that are gone is given back: a descriptor would hold it. */
static void drop_old_fds(struct queue *q, uint64_t oldest_id)
{
    for (unsigned i = 0; i < READER_FDS; i++)
        if (q->read_fds[i].segment_id < oldest_id)
            drop_fd(q, i);
}

/* ---- damage ---- */

/* Nothing more is to be counted of these. */
static void damaged_add(struct queue *q, uint64_t first, uint64_t last)
{
    pthread_mutex_lock(&q->lock);
    damaged_add_locked(q, first, last);
    pthread_mutex_unlock(&q->lock);
}

/* Those that are counted as lost, or acknowledged, are passed. False: they are neither. */
static bool pass_if_counted(struct queue *q, uint64_t first, uint64_t last)
{
    pthread_mutex_lock(&q->lock);
    bool is = are_settled_locked(q, first, last);
    if (is)
        damaged_add_locked(q, first, last);
    pthread_mutex_unlock(&q->lock);
    return is;
}

/* All lines that this segment lacks. When nobody can say whose they are: how many, by the headers. */
static int missing_rows(struct queue *q, const struct segment *seg, const struct damage *d, struct totals *rows,
                        struct spans *ret_holes)
{
    int r = segment_missing(q, seg, rows, ret_holes);
    if (r == 0 || fs_is_passing(r))
        return r;
    totals_clear(rows);
    *ret_holes = d->holes;
    return d->hole_lines == 0 ? 0 : totals_add(rows, SLICE(""), SLICE(TENANT_UNKNOWN), d->hole_lines);
}

/* All that was found with frames s of seg. frames: s, and the others of which no more than the body is damaged. */
static int count_found(struct queue *q, const struct segment *seg, struct span s, uint64_t bytes, const struct damage *d)
{
    struct totals missed = { 0 }, rows = { 0 };
    struct spans holes = { .n = 0 }, frames = { .n = 0 };
    bool has_holes = d->holes.n > 0 || d->bodies.n == 0;
    int r = has_holes ? missing_rows(q, seg, d, &missed, &holes) : 0;
    if (r == 0)
        r = totals_add_all(&rows, &missed);
    if (r == 0)
        r = totals_add_all(&rows, &d->rows);
    spans_put(&frames, s.first, s.last);
    for (size_t i = 0; i < d->bodies.n; i++)
        spans_put(&frames, d->bodies.list[i].first, d->bodies.list[i].last);
    if (r == 0)
        r = loss_count(q, &(struct loss){ .reason = LOST_DAMAGE, .rows = &rows, .bytes = bytes + d->bytes, .gaps = &d->gaps,
                                          .frames = &frames, .holes = &holes, .missed = &missed, .segment_id = seg->id });
    if (r == 0 && holes.n == SPANS_MAX)
        q->riddled_id = seg->id;
    totals_deinit(&missed);
    totals_deinit(&rows);
    return r;
}

/* Frames first..last of seg cannot be read, not even their meta. The segment's own totals say whose lines it lacks; if
 * it has none yet (it is the one being written), what the headers say is all that is known. A passing reason: nothing is
 * counted and nothing passed, it is tried again. */
static int count_missing(struct queue *q, const struct segment *seg, struct span s, uint64_t bytes)
{
    struct damage d;
    if (pass_if_counted(q, s.first, s.last))
        return 0;
    if (q->riddled_id == seg->id) {
        damaged_add(q, s.first, s.last);
        return 0;
    }
    int r = damage_find(q, seg, s.first, s.last, &d);
    if (r < 0)
        return r;
    r = count_found(q, seg, s, bytes, &d);
    damage_deinit(&d);
    return r;
}

/* The file of seg was taken away under us. When nothing of it was handed out, the segments on both sides know what it held. */
static int count_gone(struct queue *q, const struct segment *seg, struct span s)
{
    struct segment before, after;
    struct totals rows = { 0 };
    struct spans frames = { .n = 0 };
    pthread_mutex_lock(&q->lock);
    bool is_all = s.last == seg->last_seq && !any_is_settled_locked(q, seg->first_seq, seg->last_seq);
    pthread_mutex_unlock(&q->lock);
    if (!is_all || !segment_neighbour(q, seg, -1, &before) || !segment_neighbour(q, seg, 1, &after))
        return count_missing(q, seg, s, 0);
    int r = between_rows(q, &before, &after, &rows);
    spans_put(&frames, seg->first_seq, seg->last_seq);
    if (r == 0)
        r = between_count(q, &before, &after, &rows, &frames);
    else if (!fs_is_passing(r))
        r = count_missing(q, seg, s, 0);
    totals_deinit(&rows);
    return r;
}

/* The meta is good: whose lines it held is known. */
static int count_rows(struct queue *q, const struct frame_head *h, struct slice meta, enum lost_reason reason)
{
    struct totals rows = { 0 };
    struct spans frames = { .n = 0 };
    if (pass_if_counted(q, h->seq, h->seq))
        return 0;
    int r = totals_add_meta(&rows, meta);
    spans_put(&frames, h->seq, h->seq);
    if (!fs_is_passing(r))
        r = loss_count(q, &(struct loss){ .reason = reason, .rows = &rows, .bytes = h->body_len, .frames = &frames });
    totals_deinit(&rows);
    return r;
}

/* ---- the walk ---- */

static void stand_at(struct queue *q, const struct segment *seg)
{
    q->read_segment = seg->id;
    q->read_off = SEGMENT_HEAD_BYTES;
}

/*
 * Which segment holds read_seq; *seg is a copy. 1, or 0: nothing to read yet. When frames are missing before the next
 * segment they were unlinked, quarantined or taken away: open counted what can be counted, we only go on.
 */
static int find_segment(struct queue *q, struct segment *seg)
{
    struct span missing = { 0 };
    pthread_mutex_lock(&q->lock);
    if (q->read_seq <= atomic_load(&q->acked_seq)) {
        q->read_seq = atomic_load(&q->acked_seq) + 1;
        q->read_segment = 0;
    }
    const struct segment *s = segment_of_locked(q, q->read_seq);
    if (s != NULL) {
        *seg = *s;
        if (s->first_seq > q->read_seq) {
            if (q->read_seq <= s->fence)
                missing = (struct span){ .first = q->read_seq, .last = s->fence };
            q->read_seq = s->first_seq;
        }
    }
    uint64_t oldest_id = q->n_segs > 0 ? q->segs[0].id : 0;
    pthread_mutex_unlock(&q->lock);
    if (missing.first != 0)
        damaged_add(q, missing.first, missing.last);
    drop_old_fds(q, oldest_id);
    if (s == NULL)
        return 0;
    if (q->read_segment != seg->id)
        stand_at(q, seg);
    return 1;
}

/* From read_off to the frame read_seq or, when that is damaged, to the next good one: 1 with its header; 0 when the
 * rest of the segment is damaged. */
static int seek(struct queue *q, const struct segment *seg, struct frame_hdr *ret)
{
    int fd;
    int r = reader_fd(q, seg->id, &fd);
    struct scan s = { 0 };
    struct stat st = { 0 };
    if (r == 0)
        r = q->fs->fstat(fd, &st);
    if (r == 0)
        r = scan_init(&s, fd, MIN((uint64_t)st.st_size, seg->bytes), seg->salt);
    if (r < 0)
        return r;

    uint64_t limit = MIN(seg->last_seq, atomic_load(&q->durable_seq));
    uint64_t bad_off = q->read_off;
    bool has = false;
    /* Forward over what comes before read_seq: after going back to a segment's start. */
    while (!has && scan_head(&s, q->read_off, ret) == 0 && ret->seq <= q->read_seq) {
        has = ret->seq == q->read_seq;
        if (!has)
            q->read_off += frame_bytes(ret);
        bad_off = q->read_off;
    }
    if (s.error == 0 && !has) {
        has = scan_find(&s, bad_off, q->read_seq, limit, &q->read_off, ret);
        uint64_t end = has ? q->read_off : s.size;
        struct span missing = { .first = q->read_seq, .last = has ? ret->seq - 1 : limit };
        if (s.error == 0 && missing.first <= missing.last) {
            quarantine_copy(q, fd, seg->id, bad_off, end - bad_off);
            r = count_missing(q, seg, missing, end - bad_off);
        }
        if (r < 0 || s.error < 0) {
            r = s.error < 0 ? s.error : r;
            q->read_off = bad_off;
            scan_deinit(&s);
            return r;
        }
        q->read_seq = has ? ret->seq : limit + 1;
        if (!has)
            q->read_off = end;
    }
    r = s.error;
    scan_deinit(&s);
    return r < 0 ? r : has ? 1 : 0;
}

static bool is_next(const struct queue *q, const struct segment *seg, const uint8_t raw[FRAME_HEAD_BYTES], uint64_t off,
                    struct frame_hdr *ret)
{
    return frame_hdr_decode(raw, ret) == 0 && ret->salt == seg->salt && ret->seq == q->read_seq &&
           off + frame_bytes(ret) <= seg->bytes;
}

void known_add(struct queue *q, uint64_t segment_id, uint64_t off, const struct frame_hdr *h)
{
    pthread_mutex_lock(&q->lock);
    q->known[h->seq % KNOWN_HEADERS] = (struct known){ segment_id, off, *h };
    pthread_mutex_unlock(&q->lock);
}

static bool is_known(struct queue *q, const struct segment *seg, struct frame_hdr *ret)
{
    pthread_mutex_lock(&q->lock);
    struct known k = q->known[q->read_seq % KNOWN_HEADERS];
    pthread_mutex_unlock(&q->lock);
    if (k.hdr.seq != q->read_seq || k.segment_id != seg->id || k.off != q->read_off)
        return false;
    *ret = k.hdr;
    return true;
}

/* The header stands where the last frame ended. It is known already unless going back, or to the next segment. */
static int next_header(struct queue *q, const struct segment *seg, struct frame_hdr *ret)
{
    int fd;
    uint8_t raw[FRAME_HEAD_BYTES];
    if (is_known(q, seg, ret))
        return 1;
    int r = reader_fd(q, seg->id, &fd);
    if (r == -ENOENT) {
        struct span all = { .first = q->read_seq, .last = MIN(seg->last_seq, atomic_load(&q->durable_seq)) };
        r = count_gone(q, seg, all);
        if (r == 0)
            q->read_seq = all.last + 1;
        return r;
    }
    if (r < 0)
        return r;
    ssize_t n = fs_pread_full(fd, raw, sizeof(raw), q->read_off);
    if (fs_is_passing(n))
        return (int)n;
    if (n == (ssize_t)sizeof(raw) && is_next(q, seg, raw, q->read_off, ret))
        return 1;
    return seek(q, seg, ret);
}

static void pass(struct queue *q, const struct frame_hdr *h, uint64_t off)
{
    q->read_seq = h->seq + 1;
    q->read_off = off + frame_bytes(h);
    if (h->type == FRAME_DATA)
        return;
    pthread_mutex_lock(&q->lock);
    (void)ack_mark_locked(q, h->seq);
    pthread_mutex_unlock(&q->lock);
}

int queue_next(struct queue *q, struct frame_head *ret_head)
{
    for (;;) {
        struct segment seg;
        struct frame_hdr h;
        uint64_t durable = BUG(7) ? q->group_seq : atomic_load(&q->durable_seq);
        int r = find_segment(q, &seg);
        if (r <= 0 || q->read_seq > durable ||
            q->read_seq - atomic_load(&q->acked_seq) > QUEUE_WINDOW)
            return r < 0 ? r : 0;
        r = next_header(q, &seg, &h);
        if (r < 0)
            return r;
        if (r == 0)
            continue;
        /* After damage the next good frame may lie beyond the window, or not be durable. */
        if (h.seq > durable || h.seq - atomic_load(&q->acked_seq) > QUEUE_WINDOW)
            return 0;

        uint64_t off = q->read_off;
        q->handed[h.seq % QUEUE_WINDOW] = (struct handed){ h.seq, seg.id, off };
        pass(q, &h, off);
        if (h.type != FRAME_DATA || ack_is_done(q, h.seq))
            continue;
        if (BUG(14))
            (void)queue_ack(q, h.seq);
        *ret_head = (struct frame_head){ .seq = h.seq,
                                         .segment_id = seg.id,
                                         .off = off,
                                         .meta_len = h.meta_len,
                                         .body_len = h.body_len,
                                         .raw_len = h.raw_len,
                                         .lines = h.lines,
                                         .built_ns = h.built_ns,
                                         .type = h.type,
                                         .flags = h.flags };
        return 1;
    }
}

void queue_rewind(struct queue *q)
{
    uint64_t seq = atomic_load(&q->acked_seq) + 1;
    const struct handed *h = &q->handed[seq % QUEUE_WINDOW];
    q->read_seq = seq;
    q->read_segment = h->seq == seq ? h->segment_id : 0;
    q->read_off = h->off;
}

/* ---- loading ---- */

static int make_room(struct buf *b, size_t len)
{
    buf_reset(b);
    return buf_reserve(b, len);
}

static bool is_the_frame(const struct frame_hdr *h, const struct frame_head *head)
{
    return h->meta_len == head->meta_len && h->body_len == head->body_len && (head->is_parked || h->seq == head->seq);
}

/* Header, meta, body and, when it is there, the next frame's header, in one read. *ret_has_meta: the meta is good
 * whatever the body is. next is NULL or FRAME_HEAD_BYTES, zero when not read. */
static int load(int fd, const struct frame_head *head, struct buf *meta, struct buf *body, bool *ret_has_meta,
                uint8_t *next)
{
    struct frame_hdr h = { .meta_len = head->meta_len, .body_len = head->body_len };
    uint8_t raw[FRAME_HEAD_BYTES], pad[FRAME_ALIGN];
    size_t len = FRAME_HEAD_BYTES + (size_t)h.meta_len + h.body_len, pad_len = (size_t)frame_bytes(&h) - len;
    int r = make_room(meta, h.meta_len);
    if (r == 0)
        r = make_room(body, h.body_len);
    if (r < 0)
        return r;
    const struct iovec iov[] = { { raw, sizeof(raw) },
                                 { meta->ptr, h.meta_len },
                                 { body->ptr, h.body_len },
                                 { pad, pad_len },
                                 { next, FRAME_HEAD_BYTES } };
    ssize_t n = fs_preadv_full(fd, iov, next == NULL ? 3 : 5, head->off);
    if (n < 0 && !fs_is_passing(n))
        n = fs_preadv_full(fd, iov, 2, head->off); /* one bad sector in the body must not hide whose lines it held */
    if (fs_is_passing(n))
        return (int)n;
    if (n < (ssize_t)(FRAME_HEAD_BYTES + h.meta_len) || frame_hdr_decode(raw, &h) < 0 || !is_the_frame(&h, head))
        return -EBADMSG;
    meta->len = h.meta_len;
    if (frame_crc(buf_slice(meta)) != h.meta_crc)
        return -EBADMSG;
    *ret_has_meta = true;
    if ((size_t)n < len)
        return -EBADMSG;
    body->len = h.body_len;
    return frame_crc(buf_slice(body)) == h.body_crc ? 0 : -EBADMSG;
}

/* Is the frame behind this one the one that queue_next() asks for next, and durable, so that what is read stays true? */
static bool wants_next(struct queue *q, const struct frame_head *head, struct segment *seg, uint64_t *ret_off)
{
    struct frame_hdr h = { .meta_len = head->meta_len, .body_len = head->body_len };
    *ret_off = head->off + frame_bytes(&h);
    if (q->read_seq != head->seq + 1 || q->read_off != *ret_off || q->read_segment != head->segment_id ||
        q->read_seq > atomic_load(&q->durable_seq))
        return false;
    pthread_mutex_lock(&q->lock);
    const struct segment *s = segment_of_locked(q, q->read_seq);
    bool wants = s != NULL && s->id == head->segment_id && *ret_off + FRAME_HEAD_BYTES <= s->bytes &&
                 q->known[q->read_seq % KNOWN_HEADERS].hdr.seq != q->read_seq;
    if (wants)
        *seg = *s;
    pthread_mutex_unlock(&q->lock);
    return wants;
}

static int load_ahead(struct queue *q, int fd, const struct frame_head *head, struct buf *meta, struct buf *body,
                      bool *ret_has_meta)
{
    uint8_t next[FRAME_HEAD_BYTES] = { 0 };
    struct segment seg;
    struct frame_hdr h;
    uint64_t off;
    bool wants = wants_next(q, head, &seg, &off);
    int r = load(fd, head, meta, body, ret_has_meta, wants ? next : NULL);
    if (wants && is_next(q, &seg, next, off, &h))
        known_add(q, seg.id, off, &h);
    return r;
}

/* Its meta is good; with it go all others of the segment that are damaged. */
static int count_bodies(struct queue *q, const struct segment *seg, const struct frame_head *head, const struct buf *meta)
{
    struct damage d;
    if (pass_if_counted(q, head->seq, head->seq))
        return 0;
    int r = damage_find(q, seg, head->seq, head->seq, &d);
    if (r < 0)
        return r;
    if (d.bodies.n == 0 && d.holes.n == 0) /* the segment cannot be read any more */
        r = count_rows(q, head, buf_slice(meta), LOST_DAMAGE);
    else
        r = count_found(q, seg, (struct span){ .first = head->seq, .last = head->seq }, 0, &d);
    damage_deinit(&d);
    return r;
}

static int set_aside(struct queue *q, int fd, const struct frame_head *head, const struct buf *meta, bool has_meta)
{
    struct segment seg = { 0 };
    pthread_mutex_lock(&q->lock);
    const struct segment *s = segment_of_locked(q, head->seq);
    if (s != NULL)
        seg = *s;
    pthread_mutex_unlock(&q->lock);
    uint64_t len = FRAME_HEAD_BYTES + (uint64_t)head->meta_len + head->body_len;
    if (fd >= 0)
        quarantine_copy(q, fd, head->segment_id, head->off, len);
    if (!has_meta)
        return count_missing(q, &seg, (struct span){ .first = head->seq, .last = head->seq }, len);
    return count_bodies(q, &seg, head, meta);
}

int queue_load(struct queue *q, const struct frame_head *head, struct buf *meta, struct buf *body)
{
    if (head->is_parked)
        return parked_load(q, head, meta, body);
    int fd = -1;
    bool has_meta = false;
    int r = reader_fd(q, head->segment_id, &fd);
    if (r == 0)
        r = load_ahead(q, fd, head, meta, body, &has_meta);
    if (r != -EBADMSG && r != -ENOENT)
        return r;
    /* Dropped meanwhile, then its file may be gone: that is counted. */
    r = ack_is_done(q, head->seq) ? 0 : set_aside(q, fd, head, meta, has_meta);
    return r < 0 ? r : -EBADMSG;
}

int reader_give_up(struct queue *q, const struct frame_head *head)
{
    struct buf meta, body;
    int fd = -1;
    buf_init(&meta, FRAME_META_MAX);
    buf_init(&body, FRAME_BODY_MAX);
    int r = queue_load(q, head, &meta, &body);
    if (r == 0)
        r = reader_fd(q, head->segment_id, &fd);
    if (r == 0) {
        quarantine_copy(q, fd, head->segment_id, head->off, FRAME_HEAD_BYTES + (uint64_t)head->meta_len + head->body_len);
        r = count_rows(q, head, buf_slice(&meta), LOST_DROPPED);
    }
    buf_deinit(&meta);
    buf_deinit(&body);
    return r == -EBADMSG ? 0 : r; /* damaged: that is counted too */
}

int frame_load(int fd, const struct frame_head *head, struct buf *meta, struct buf *body)
{
    return load(fd, head, meta, body, &(bool){ false }, NULL);
}
