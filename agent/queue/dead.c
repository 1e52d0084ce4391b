/*
 * dead/: dead letters, and with them the ledger of what is dead or lost.
 *
 * Segments like the queue's, of DEAD_FILE_BYTES, named ID.dead. The first frame is a SNAP with the tally so far; then
 * DATA frames with the flag DEAD and ORIG in the meta, and LOST frames. So the newest file alone rebuilds the tally, and
 * the oldest can go: their lines then move from "dead" to "lost". A new file is begun after each start.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/base/array.h"
#include "agent/base/bytes.h"
#include "agent/base/bug.h"
#include "agent/base/clock.h"
#include "agent/base/stats.h"
#include "agent/base/tenants.h"
#include "agent/queue/core.h"
#include "agent/queue/scan.h"

#define DEAD_FILE_BYTES (4 * MIB)
/* Dead letters that are newer than the cursor, looked for in the newest files at open. */
#define SEEN_MAX 65536
#define SEEN_FILES 3

static void file_name(char out[SEGMENT_NAME_BYTES], uint64_t id)
{
    snprintf(out, SEGMENT_NAME_BYTES, "%016llx.dead", (unsigned long long)id);
}

static uint64_t file_bytes_max(void)
{
    return queue_tuning.dead_file_bytes > 0 ? queue_tuning.dead_file_bytes : DEAD_FILE_BYTES;
}

static void publish_bytes(struct queue *q)
{
    gauge_set(&stats.outputs[q->output_index].dead_bytes, (int64_t)q->dead.bytes);
}

static int files_add(struct dead_log *d, uint64_t id, uint64_t bytes)
{
    struct dead_file *files = array_room(d->files, d->n_files, &d->cap_files, sizeof(*files));
    if (files == NULL)
        return -ENOMEM;
    d->files = files;
    d->files[d->n_files++] = (struct dead_file){ id, bytes };
    d->bytes += bytes;
    return 0;
}

/* ---- writing ---- */

static int put_spans(struct buf *meta, const struct span *spans, size_t n)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < n; i++)
        r = meta_put_u64s(meta, META_SPAN, false, (const uint64_t[]){ spans[i].first, spans[i].last }, 2);
    return r;
}

static int put_state(struct queue *q, struct buf *raw)
{
    struct span spans[SPANS_MAX];
    size_t n = 0;
    pthread_mutex_lock(&q->lock);
    for (size_t i = 0; i < q->n_spans; i++)
        if (q->spans[i].is_logged) /* the others come with their lines */
            spans[n++] = q->spans[i];
    int r = missed_put_locked(q, true, raw);
    pthread_mutex_unlock(&q->lock);
    if (r == 0)
        r = tally_put(&q->dead.tally, raw);
    if (r == 0)
        r = put_spans(raw, spans, n);
    if (r == 0)
        r = rereads_put(&q->rereads, raw);
    if (r == 0)
        r = meta_put_u64s(raw, META_DROPPED, false, &q->dead.dropped_id, 1);
    return r;
}

static int write_head(struct queue *q, int fd, const struct segment_head *head, uint64_t *ret_end)
{
    struct buf raw, packed;
    buf_init(&raw, SNAP_RAW_MAX);
    buf_init(&packed, FRAME_META_MAX);
    uint8_t bytes[SEGMENT_HEAD_BYTES];
    segment_head_encode(head, bytes);
    struct frame_hdr h = { .type = FRAME_SNAP, .seq = 1, .built_ns = head->created_ns, .salt = head->salt };
    int r = put_state(q, &raw);
    if (r == 0)
        r = meta_pack(buf_slice(&raw), &packed);
    if (r == 0)
        r = fs_pwrite_full(fd, bytes, sizeof(bytes), 0);
    if (r == 0)
        r = frame_write(q, fd, SEGMENT_HEAD_BYTES, &h, buf_slice(&packed), SLICE(""));
    if (r == 0)
        r = q->fs->fdatasync(fd);
    if (r == 0)
        r = q->fs->sync_dir(q->dead.dir_fd);
    *ret_end = SEGMENT_HEAD_BYTES + frame_bytes(&h);
    buf_deinit(&raw);
    buf_deinit(&packed);
    return r;
}

static int begin_file(struct queue *q)
{
    struct dead_log *d = &q->dead;
    char name[SEGMENT_NAME_BYTES];
    uint64_t id = d->id + 1;
    struct segment_head head = { .id = id, .first_seq = 1, .created_ns = clock_wall_ns(), .salt = random_u32(),
                                 .wire_form = q->wire_form };
    memcpy(head.uuid, q->uuid, UUID_BYTES);
    file_name(name, id);
    int fd = q->fs->open(d->dir_fd, name, O_RDWR | O_CREAT | O_EXCL, 0600);
    d->id = id; /* never the same name twice */
    if (fd < 0)
        return fd;
    uint64_t end;
    int r = write_head(q, fd, &head, &end);
    if (r == 0)
        r = files_add(d, id, end);
    if (r < 0) {
        (void)q->fs->close(fd);
        (void)q->fs->unlink(d->dir_fd, name);
        return r;
    }
    if (d->fd >= 0)
        (void)q->fs->close(d->fd);
    d->fd = fd;
    d->end = end;
    d->next_seq = 2;
    d->salt = head.salt;
    return 0;
}

/* One frame, durable on return. After a failed sync the file is left: what was written in it may or may not count. */
static int append(struct queue *q, struct frame_hdr *h, struct slice meta, struct slice body)
{
    struct dead_log *d = &q->dead;
    int r = 0;
    if (d->fd < 0 || d->end >= file_bytes_max())
        r = begin_file(q);
    if (r < 0)
        return r;
    h->seq = d->next_seq;
    h->salt = d->salt;
    r = frame_write(q, d->fd, d->end, h, meta, body);
    if (r < 0)
        return r;
    r = BUG(23) ? 0 : q->fs->fdatasync(d->fd);
    if (r < 0) {
        (void)q->fs->truncate(d->fd, d->end); /* best effort: not to be counted twice */
        (void)q->fs->close(d->fd);
        d->fd = -1;
        return r;
    }
    d->end += frame_bytes(h);
    d->next_seq++;
    d->files[d->n_files - 1].bytes += frame_bytes(h);
    d->bytes += frame_bytes(h);
    publish_bytes(q);
    return 0;
}

/* LOSS: reason (4), zero (4), lines, bytes (8 each), tenant. */
#define LOSS_BYTES 24

static int put_losses(struct buf *meta, const struct tally *losses)
{
    for (size_t i = 0; i < losses->n; i++) {
        for (uint32_t k = 0; k < LOST_REASONS; k++) {
            const struct tally_row *row = &losses->rows[i];
            if (row->lost[k] == 0 && row->lost_bytes[k] == 0)
                continue;
            uint8_t p[LOSS_BYTES] = { 0 };
            put_le32(p, k);
            put_le64(p + 8, row->lost[k]);
            put_le64(p + 16, row->lost_bytes[k]);
            size_t mark;
            int r = meta_begin(meta, META_LOSS, false, &mark);
            if (r == 0)
                r = buf_append(meta, p, sizeof(p));
            if (r == 0)
                r = buf_append_slice(meta, row->tenant);
            if (r < 0)
                return r;
            meta_end(meta, mark);
        }
    }
    return 0;
}

/* Lines that were dead letters move. */
static int add_loss(struct dead_log *d, struct slice tenant, uint32_t reason, uint64_t lines, uint64_t bytes)
{
    struct tally_row *t = tally_get(&d->tally, tenant);
    if (t == NULL)
        return -ENOMEM;
    t->lost[reason] += lines;
    t->lost_bytes[reason] += bytes;
    if (reason == LOST_DEAD_FULL)
        t->dead -= MIN(t->dead, lines);
    if (reason == LOST_REREAD)
        t->lost[LOST_DAMAGE] -= MIN(t->lost[LOST_DAMAGE], lines);
    return 0;
}

static int append_losses(struct queue *q, const struct losses *l, uint64_t dropped_id)
{
    const struct tally *losses = l->tally;
    struct buf meta;
    struct frame_hdr h = { .type = FRAME_LOST, .built_ns = clock_wall_ns() };
    buf_init(&meta, FRAME_META_MAX);
    int r = put_losses(&meta, losses);
    if (r == 0)
        r = put_spans(&meta, l->spans, l->n_spans);
    if (r == 0)
        r = buf_append_slice(&meta, l->missed);
    if (r == 0 && l->gaps != NULL)
        r = gaps_write(l->gaps, &meta);
    if (r == 0 && dropped_id != 0)
        r = meta_put_u64s(&meta, META_DROPPED, false, &dropped_id, 1);
    if (r == 0)
        r = append(q, &h, buf_slice(&meta), SLICE(""));
    if (r == 0 && l->gaps != NULL) /* without memory they are read again after the next start */
        (void)!rereads_take(&q->rereads, (struct letter_id){ q->dead.id, h.seq }, buf_slice(&meta));
    buf_deinit(&meta);
    for (size_t i = 0; r == 0 && i < losses->n; i++)
        for (uint32_t k = 0; r == 0 && k < LOST_REASONS; k++)
            if (losses->rows[i].lost[k] > 0 || losses->rows[i].lost_bytes[k] > 0)
                r = add_loss(&q->dead, losses->rows[i].tenant, k, losses->rows[i].lost[k],
                             losses->rows[i].lost_bytes[k]);
    return r;
}

int dead_put_losses(struct queue *q, const struct losses *l)
{
    return append_losses(q, l, 0);
}

/* As LOSS items: they move from damage. */
static int tally_found(struct queue *q, const struct totals *found, struct tally *ret)
{
    for (size_t i = 0; found != NULL && i < found->n; i++) {
        const struct tally_row *was = tally_get(&q->dead.tally, found->rows[i].tenant);
        struct tally_row *t = was == NULL ? NULL : tally_get(ret, found->rows[i].tenant);
        if (t == NULL)
            return -ENOMEM;
        t->lost[LOST_REREAD] = MIN(found->rows[i].lines, was->lost[LOST_DAMAGE]); /* no more than were counted */
    }
    return 0;
}

static void count_found(struct queue *q, const struct tally *found)
{
    for (size_t i = 0; i < found->n; i++) {
        const struct tally_row *f = &found->rows[i];
        struct output_row *row = q->is_opening ? NULL : stats_output_row(q->output_index, tenant_intern(f->tenant));
        if (row != NULL) {
            counter_add(&row->lost_lines[LOST_REREAD], f->lost[LOST_REREAD]);
            counter_add(&row->lost_lines[LOST_DAMAGE], -f->lost[LOST_REREAD]);
        }
        (void)!add_loss(&q->dead, f->tenant, LOST_REREAD, f->lost[LOST_REREAD], 0);
    }
}

int dead_put_marks(struct queue *q, const struct marks *m, const struct totals *found)
{
    struct buf meta;
    struct tally tally = { 0 };
    struct frame_hdr h = { .type = FRAME_LOST, .built_ns = clock_wall_ns() };
    buf_init(&meta, FRAME_META_MAX);
    int r = tally_found(q, found, &tally);
    if (r == 0)
        r = put_losses(&meta, &tally);
    for (size_t i = 0; r == 0 && i < m->n; i++)
        r = marks_put(&meta, m->list[i].id, m->list[i].fate);
    if (r == 0)
        r = append(q, &h, buf_slice(&meta), SLICE(""));
    buf_deinit(&meta);
    for (size_t i = 0; r == 0 && i < m->n; i++)
        rereads_remove(&q->rereads, m->list[i].id);
    if (r == 0)
        count_found(q, &tally);
    tally_deinit(&tally);
    return r;
}

void dead_settle_rereads(struct queue *q)
{
    if (q->rereads.done.n == 0 || dead_put_marks(q, &q->rereads.done, &q->rereads.found) < 0)
        return;
    q->rereads.done.n = 0;
    totals_deinit(&q->rereads.found);
}

/* ---- reading ---- */

typedef void (*each_frame)(struct queue *q, void *ctx, const struct frame_hdr *h, struct slice meta);

static int open_dead(struct queue *q, uint64_t id, int flags, struct scan *s, int *ret_fd)
{
    char name[SEGMENT_NAME_BYTES];
    struct segment_head head;
    struct stat st;
    file_name(name, id);
    int fd = queue_open_file(q->fs, q->dead.dir_fd, name, flags, &st);
    if (fd < 0)
        return fd;
    int r = segment_head_read(fd, id, &head);
    if (r == 0 && memcmp(head.uuid, q->uuid, UUID_BYTES) != 0)
        r = -EBADMSG;
    if (r == 0)
        r = scan_init(s, fd, MIN((uint64_t)st.st_size, (uint64_t)SEGMENT_READ_MAX), head.salt);
    if (r < 0)
        (void)q->fs->close(fd);
    *ret_fd = fd;
    return r;
}

/* Good frames of one file in order. -EBADMSG: it is not ours. */
static int walk_file(struct queue *q, uint64_t id, each_frame each, void *ctx)
{
    int fd;
    struct scan s = { 0 };
    struct buf meta;
    struct frame_hdr h;
    int r = open_dead(q, id, O_RDONLY, &s, &fd);
    if (r < 0)
        return r;
    buf_init(&meta, SNAP_RAW_MAX);
    for (uint64_t off = SEGMENT_HEAD_BYTES, seq = 1; scan_find(&s, off, seq, SEQ_MAX, &off, &h); seq = h.seq + 1) {
        r = scan_meta(&s, off, &h, &meta);
        if (fs_is_passing(r))
            break;
        if (r == 0)
            each(q, ctx, &h, buf_slice(&meta));
        off += frame_bytes(&h);
    }
    r = s.error < 0 ? s.error : r;
    scan_deinit(&s);
    buf_deinit(&meta);
    (void)q->fs->close(fd);
    return fs_is_passing(r) ? r : 0;
}

static void take_marks(struct queue *q, void *ctx, const struct frame_hdr *h, struct slice meta)
{
    (void)q;
    if (h->type == FRAME_LOST)
        (void)!marks_take(ctx, meta);
}

/* Letters of one file that nobody has decided about. */
struct open_letters {
    struct marks marks;
    struct totals rows;
    uint64_t file, seq; /* seq: the next that is due */
    size_t n;
    bool has_holes;
};

static void add_rows(struct totals *rows, struct slice meta)
{
    struct meta_item item;
    while (meta_next(&meta, &item) > 0) {
        struct slice input, tenant;
        uint64_t lines;
        if (item.tag == META_COUNT && meta_get_count(item.bytes, &input, &tenant, &lines) == 0 &&
            totals_add(rows, SLICE(""), tenant, lines) < 0)
            return;
    }
}

static void count_open(struct queue *q, void *ctx, const struct frame_hdr *h, struct slice meta)
{
    struct open_letters *o = ctx;
    o->has_holes |= h->seq != o->seq;
    o->seq = h->seq + 1;
    o->n += h->type == FRAME_LOST && rereads_have(&q->rereads, (struct letter_id){ o->file, h->seq });
    if (h->type != FRAME_DATA || marks_find(&o->marks, (struct letter_id){ o->file, h->seq }) != LETTER_OPEN)
        return;
    o->n++;
    add_rows(&o->rows, meta);
}

static void open_letters_deinit(struct open_letters *o)
{
    marks_deinit(&o->marks);
    totals_deinit(&o->rows);
}

/* What became of letters stands in the same file or in later ones. */
static int look_at(struct queue *q, uint64_t file, struct open_letters *ret)
{
    *ret = (struct open_letters){ .file = file, .seq = 1 };
    int r = 0;
    for (size_t i = 0; i < q->dead.n_files && !fs_is_passing(r); i++)
        r = walk_file(q, q->dead.files[i].id, take_marks, &ret->marks);
    return fs_is_passing(r) ? r : walk_file(q, file, count_open, ret);
}

/* ---- bounded ---- */

static void count_dropped(struct queue *q, const struct totals *rows, uint64_t bytes)
{
    uint64_t lines = 0;
    for (size_t i = 0; i < rows->n; i++) {
        struct output_row *row = stats_output_row(q->output_index, tenant_intern(rows->rows[i].tenant));
        lines += rows->rows[i].lines;
        counter_add(&row->lost_lines[LOST_DEAD_FULL], rows->rows[i].lines);
        counter_add(&row->dead_lines, -rows->rows[i].lines); /* they move: see queue.h */
    }
    loss_say(q, LOST_DEAD_FULL, lines, bytes);
}

/* The oldest file goes. The log says so first, so a crash between cannot count it twice. */
static int drop_oldest(struct queue *q)
{
    struct dead_log *d = &q->dead;
    struct dead_file f = d->files[0];
    struct tally losses = { 0 };
    struct open_letters letters;
    const struct totals *rows = &letters.rows;
    int r = look_at(q, f.id, &letters);
    r = fs_is_passing(r) ? r : 0;
    for (size_t i = 0; r == 0 && i < rows->n; i++) {
        struct tally_row *t = tally_get(&losses, rows->rows[i].tenant);
        if (t == NULL)
            r = -ENOMEM;
        else
            t->lost[LOST_DEAD_FULL] += rows->rows[i].lines;
    }
    if (r == 0 && losses.n > 0)
        losses.rows[0].lost_bytes[LOST_DEAD_FULL] = f.bytes;
    if (r == 0)
        r = append_losses(q, &(struct losses){ .tally = &losses }, f.id);
    if (r < 0)
        goto out;
    d->dropped_id = f.id;
    if (rows->lines > 0)
        count_dropped(q, rows, f.bytes);
    char name[SEGMENT_NAME_BYTES];
    file_name(name, f.id);
    (void)q->fs->unlink(d->dir_fd, name); /* if not now, then at the next open */
    d->bytes -= f.bytes;
    d->n_files--;
    memmove(d->files, d->files + 1, d->n_files * sizeof(*d->files));
    publish_bytes(q);
out:
    open_letters_deinit(&letters);
    tally_deinit(&losses);
    return r;
}

void dead_drop_settled(struct queue *q)
{
    struct dead_log *d = &q->dead;
    while (d->n_files > 1) {
        struct open_letters letters;
        int r = look_at(q, d->files[0].id, &letters);
        bool is_settled = r == 0 && letters.n == 0 && !letters.has_holes;
        open_letters_deinit(&letters);
        if (!is_settled || drop_oldest(q) < 0)
            return;
    }
}

static bool take_seen(struct dead_log *d, uint64_t seq, uint32_t item)
{
    for (size_t i = 0; i < d->n_seen; i++) {
        if (d->seen[i].seq == seq && d->seen[i].item == item) {
            d->seen[i] = d->seen[--d->n_seen];
            return true;
        }
    }
    return false;
}

int queue_dead_append(struct queue *q, const struct frame_in *frame, const struct frame_orig *orig)
{
    struct dead_log *d = &q->dead;
    if (take_seen(d, orig->seq, orig->item))
        return 0; /* written before a crash; its frame came again */
    struct frame_hdr h = { .type = FRAME_DATA, .flags = FRAME_FLAG_DEAD, .built_ns = frame->built_ns,
                           .raw_len = frame->raw_len, .lines = frame->lines };
    for (size_t i = 0; i < frame->n_rows; i++)
        if (tally_get(&d->tally, frame->rows[i].tenant) == NULL)
            return -ENOMEM;
    struct buf meta;
    buf_init(&meta, FRAME_META_MAX);
    int r = queue_meta_frame(&meta, frame, orig);
    if (r == 0)
        r = append(q, &h, buf_slice(&meta), frame->wire);
    buf_deinit(&meta);
    if (r < 0)
        return r;
    for (size_t i = 0; i < frame->n_rows; i++)
        tally_get(&d->tally, frame->rows[i].tenant)->dead += frame->rows[i].lines;
    /* The letter is safe. If the oldest cannot go now, they go at the next one. */
    while (d->bytes > q->conf.dead_max_bytes && d->n_files > 1)
        if (drop_oldest(q) < 0)
            break;
    return 0;
}

/* ---- open ---- */

struct replayed {
    uint64_t file;
    bool has_snap;
};

/* What was to be read again, and what was. */
static void replay_rereads(struct queue *q, struct letter_id id, bool is_snap, struct slice meta)
{
    struct meta_item item;
    struct mark m;
    if (is_snap)
        rereads_clear(&q->rereads);
    q->dead.is_out_of_memory |= rereads_take(&q->rereads, id, meta) == -ENOMEM;
    while (meta_next(&meta, &item) > 0)
        if (item.tag == META_LETTER && marks_get(item.bytes, &m) == 0)
            rereads_remove(&q->rereads, m.id);
}

static void replay(struct queue *q, void *ctx, const struct frame_hdr *h, struct slice meta)
{
    struct dead_log *d = &q->dead;
    struct replayed *rp = ctx;
    struct meta_item item;
    bool is_snap = h->type == FRAME_SNAP;
    struct slice rest = meta;
    if (is_snap) {
        rp->has_snap = true;
        tally_deinit(&d->tally);
        missed_clear(q);
    }
    d->is_out_of_memory |= missed_take_locked(q, meta, false) == -ENOMEM;
    if (is_snap || h->type == FRAME_LOST)
        replay_rereads(q, (struct letter_id){ is_snap ? 0 : rp->file, h->seq }, is_snap, meta);
    while (meta_next(&rest, &item) > 0) {
        struct slice s = item.bytes, input, tenant;
        uint64_t lines;
        if (item.tag == META_TALLY && is_snap) {
            d->is_out_of_memory |= tally_take(&d->tally, s) == -ENOMEM;
        } else if (item.tag == META_LOSS && s.len >= LOSS_BYTES && get_le32(s.ptr) < LOST_REASONS) {
            d->is_out_of_memory |= add_loss(d, slice_from(s, LOSS_BYTES), get_le32(s.ptr), get_le64(s.ptr + 8),
                                            get_le64(s.ptr + 16)) == -ENOMEM;
        } else if (item.tag == META_SPAN && s.len >= 16 && get_le64(s.ptr) <= get_le64(s.ptr + 8) &&
                   get_le64(s.ptr + 8) <= SEQ_MAX) {
            spans_add_locked(q, get_le64(s.ptr), get_le64(s.ptr + 8));
            spans_set_logged_locked(q, get_le64(s.ptr), get_le64(s.ptr + 8));
        } else if (item.tag == META_DROPPED && s.len >= 8) {
            d->dropped_id = MAX(d->dropped_id, get_le64(s.ptr));
        } else if (item.tag == META_COUNT && h->type == FRAME_DATA &&
                   meta_get_count(s, &input, &tenant, &lines) == 0) {
            struct tally_row *t = tally_get(&d->tally, tenant);
            if (t != NULL)
                t->dead += lines;
            d->is_out_of_memory |= t == NULL;
        }
    }
}

/* A dead letter whose frame the cursor has not passed: the frame comes again, and with it the letter. */
static void see(struct queue *q, void *ctx, const struct frame_hdr *h, struct slice meta)
{
    struct dead_log *d = &q->dead;
    struct frame_meta m;
    struct slice all = meta;
    (void)ctx;
    if (h->type != FRAME_DATA || d->n_seen >= SEEN_MAX)
        return;
    int r = frame_meta_parse(meta, NULL, 0, &m);
    if ((r < 0 && r != -ENOBUFS) || m.orig.seq == 0 || ack_is_done_locked(q, m.orig.seq))
        return;
    struct seen *seen = array_room(d->seen, d->n_seen, &d->cap_seen, sizeof(*seen));
    if (seen == NULL) {
        d->is_out_of_memory = true;
        return;
    }
    d->seen = seen;
    d->seen[d->n_seen++] = (struct seen){ m.orig.seq, m.orig.item };
    add_rows(&d->unsettled, all);
}

static void collect(void *ctx, const char *name)
{
    struct dead_log *d = ctx;
    uint64_t id = segment_name_parse(name, ".dead");
    if (id != 0)
        (void)!files_add(d, id, 0);
}

static int by_id(const void *a, const void *b)
{
    uint64_t x = ((const struct dead_file *)a)->id, y = ((const struct dead_file *)b)->id;
    return x < y ? -1 : x > y;
}

/* What is not ours, or has no good header, is not trusted and not removed either. */
static void weed(struct queue *q)
{
    struct dead_log *d = &q->dead;
    size_t kept = 0;
    for (size_t i = 0; i < d->n_files; i++) {
        char name[SEGMENT_NAME_BYTES];
        struct scan s = { 0 };
        int fd = -1;
        int r = open_dead(q, d->files[i].id, O_RDONLY, &s, &fd);
        scan_deinit(&s);
        if (r == 0)
            (void)q->fs->close(fd);
        file_name(name, d->files[i].id);
        if (r == -EBADMSG)
            quarantine_rename(q, d->dir_fd, name);
        else if (r != -ENOENT)
            d->files[kept++] = d->files[i];
    }
    d->n_files = kept;
}

/* A file that cannot be read at this moment is not a damaged one: the sums in it must not be forgotten. */
static int walk_or_pass(struct queue *q, uint64_t id, each_frame each, void *ctx)
{
    int r = walk_file(q, id, each, ctx);
    return fs_is_passing(r) ? r : 0;
}

/* The newest file that begins with a SNAP, and what was written after it. */
static int replay_newest(struct queue *q)
{
    struct dead_log *d = &q->dead;
    int r = 0;
    for (size_t i = d->n_files; r == 0 && i-- > 0;) {
        struct replayed rp = { .file = d->files[i].id };
        r = walk_or_pass(q, rp.file, replay, &rp);
        if (!rp.has_snap)
            continue;
        for (size_t k = i + 1; r == 0 && k < d->n_files; k++) {
            rp.file = d->files[k].id;
            r = walk_or_pass(q, rp.file, replay, &rp);
        }
        return r;
    }
    return r;
}

/* The process may have died, or failed, before the sync of its last frame: what is in it is believed from here on, and the cursor
 * passes what it names. All others were synced before the next was written. */
static int make_last_durable(struct queue *q, uint64_t id)
{
    struct scan s = { 0 };
    struct frame_hdr h;
    uint64_t off, last = 0, end = 0;
    int fd;
    int r = open_dead(q, id, O_RDWR, &s, &fd);
    if (r < 0)
        return fs_is_passing(r) ? r : 0; /* nothing of it is believed */
    for (uint64_t at = SEGMENT_HEAD_BYTES, seq = 1; scan_find(&s, at, seq, SEQ_MAX, &off, &h); seq = h.seq + 1) {
        last = off;
        at = end = off + frame_bytes(&h);
    }
    r = s.error;
    if (r == 0 && end > 0)
        r = fs_make_durable(fd, last, end);
    scan_deinit(&s);
    (void)q->fs->close(fd);
    return r;
}

static void stat_files(struct queue *q)
{
    struct dead_log *d = &q->dead;
    size_t kept = 0;
    for (size_t i = 0; i < d->n_files; i++) {
        char name[SEGMENT_NAME_BYTES];
        struct stat st;
        file_name(name, d->files[i].id);
        if (d->files[i].id <= d->dropped_id) {
            (void)q->fs->unlink(d->dir_fd, name); /* counted as lost before a crash */
            continue;
        }
        if (q->fs->stat(d->dir_fd, name, &st, false) < 0)
            continue;
        d->files[kept] = (struct dead_file){ d->files[i].id, (uint64_t)st.st_size };
        d->bytes += d->files[kept++].bytes;
    }
    d->n_files = kept;
}

int dead_open(struct queue *q)
{
    struct dead_log *d = &q->dead;
    int r = q->fs->list(d->dir_fd, collect, d);
    if (r < 0)
        return r;
    if (d->n_files > 0) {
        qsort(d->files, d->n_files, sizeof(*d->files), by_id);
        d->id = d->files[d->n_files - 1].id;
    }
    weed(q);
    for (size_t i = d->n_files; r == 0 && i-- > 0 && i + SEEN_FILES >= d->n_files;)
        r = make_last_durable(q, d->files[i].id);
    if (r == 0)
        r = replay_newest(q);
    if (r == 0)
        stat_files(q);
    for (size_t i = d->n_files; r == 0 && i-- > 0 && i + SEEN_FILES >= d->n_files;)
        r = walk_or_pass(q, d->files[i].id, see, NULL);
    publish_bytes(q);
    return r == 0 && d->is_out_of_memory ? -ENOMEM : r;
}

void dead_close(struct queue *q)
{
    struct dead_log *d = &q->dead;
    if (d->fd >= 0)
        (void)q->fs->close(d->fd); /* each frame was synced */
    if (d->dir_fd >= 0)
        (void)q->fs->close(d->dir_fd);
    free(d->files);
    free(d->seen);
    tally_deinit(&d->tally);
    totals_deinit(&d->unsettled);
}
