/*
 * dead/: dead letters, and with them the ledger of what is dead or lost.
 *
 * Segments like the queue's, of DEAD_FILE_BYTES, named ID.dead. The first frame is a SNAP with the tally so far; then
 * DATA frames with the flag DEAD and ORIG in the meta, and LOST frames. So the newest file alone rebuilds the tally, and
 * the oldest can go: their lines then move from "dead" to "lost". A new file is begun after each start.
 */
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
#include "agent/queue/dead.h"

#define DEAD_FILE_BYTES (4 * MIB)

void dead_file_name(char out[SEGMENT_NAME_BYTES], uint64_t id)
{
    snprintf(out, SEGMENT_NAME_BYTES, "%016llx.dead", (unsigned long long)id);
}

static uint64_t file_bytes_max(void)
{
    return queue_tuning.dead_file_bytes > 0 ? queue_tuning.dead_file_bytes : DEAD_FILE_BYTES;
}

void dead_publish_bytes(struct queue *q)
{
    gauge_set(&stats.outputs[q->output_index].dead_bytes, (int64_t)q->dead.bytes);
}

int dead_files_add(struct dead_log *d, uint64_t id, uint64_t bytes)
{
    struct dead_file *files = array_room(d->files, d->n_files, &d->cap_files, sizeof(*files));
    if (files == NULL)
        return -ENOMEM;
    d->files = files;
    d->files[d->n_files++] = (struct dead_file){ .id = id, .bytes = bytes, .fence = SEQ_MAX };
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
        r = given_put(&q->given, false, raw);
    if (r == 0)
        r = rereads_put(&q->rereads, raw);
    if (r == 0)
        r = meta_put_u64s(raw, META_DROPPED, false, &q->dead.dropped_id, 1);
    return r;
}

/* ret_end: 0 when it was not written, whatever is returned. */
static int write_head(struct queue *q, int fd, const struct segment_head *head, uint64_t *ret_end)
{
    struct buf raw, packed;
    buf_init(&raw, SNAP_RAW_MAX);
    buf_init(&packed, FRAME_META_MAX);
    uint8_t bytes[SEGMENT_HEAD_BYTES];
    segment_head_encode(head, bytes);
    struct frame_hdr h = { .type = FRAME_SNAP, .seq = head->first_seq, .built_ns = head->created_ns, .salt = head->salt };
    int r = put_state(q, &raw);
    if (r == 0)
        r = meta_pack(buf_slice(&raw), &packed);
    if (r == 0)
        r = fs_pwrite_full(fd, bytes, sizeof(bytes), 0);
    if (r == 0)
        r = frame_write(q, fd, SEGMENT_HEAD_BYTES, &h, buf_slice(&packed), SLICE(""));
    *ret_end = r == 0 ? SEGMENT_HEAD_BYTES + frame_bytes(&h) : 0;
    if (r == 0)
        r = q->fs->fdatasync(fd);
    if (r == 0)
        r = q->fs->sync_dir(q->dead.dir_fd);
    buf_deinit(&raw);
    buf_deinit(&packed);
    return r;
}

/* The sums of the newest file are believed: see queue_replace_unborn(). */
static int begin_file(struct queue *q)
{
    struct dead_log *d = &q->dead;
    char name[SEGMENT_NAME_BYTES];
    uint64_t id = d->id + 1;
    struct segment_head head = { .id = id, .first_seq = d->left_at + 1, .fence = d->left_at, .salt = random_u32(),
                                 .created_ns = clock_wall_ns(), .wire_form = q->wire_form };
    memcpy(head.uuid, q->uuid, UUID_BYTES);
    dead_file_name(name, id);
    int fd = q->fs->open(d->dir_fd, name, O_RDWR | O_CREAT | O_EXCL, 0600);
    d->id = id; /* never the same name twice */
    if (fd < 0)
        return fd;
    uint64_t end;
    int r = write_head(q, fd, &head, &end);
    if (r == 0)
        r = dead_files_add(d, id, end);
    if (r == 0 && d->left_at > 0 && d->n_files > 1)
        d->files[d->n_files - 2].fence = d->left_at;
    if (r < 0) {
        (void)q->fs->close(fd);
        if (end > 0)
            queue_replace_unborn(q, d->dir_fd, dead_file_name, &d->unborn_id, id);
        else
            (void)!queue_unlink_id(q, d->dir_fd, dead_file_name, id);
        return r;
    }
    queue_replace_unborn(q, d->dir_fd, dead_file_name, &d->unborn_id, 0);
    if (d->fd >= 0)
        (void)q->fs->close(d->fd);
    d->fd = fd;
    d->left_at = 0;
    d->end = end;
    d->next_seq = head.first_seq + 1;
    d->salt = head.salt;
    return 0;
}

/* One frame, durable on return. After a failed sync the file is left: what was written in it does not count, as the next one
 * says. */
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
        (void)q->fs->truncate(d->fd, d->end); /* best effort, should we die before the next file is there */
        (void)q->fs->close(d->fd);
        d->fd = -1;
        d->left_at = d->next_seq - 1;
        return r;
    }
    d->end += frame_bytes(h);
    d->next_seq++;
    d->files[d->n_files - 1].bytes += frame_bytes(h);
    d->bytes += frame_bytes(h);
    dead_publish_bytes(q);
    return 0;
}

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

int dead_add_loss(struct dead_log *d, struct slice tenant, uint32_t reason, uint64_t lines, uint64_t bytes)
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
    if (r == 0 && dropped_id == 0)
        r = given_put(&q->given, true, &meta); /* their lines are among these */
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
                r = dead_add_loss(&q->dead, losses->rows[i].tenant, k, losses->rows[i].lost[k],
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
        (void)!dead_add_loss(&q->dead, f->tenant, LOST_REREAD, f->lost[LOST_REREAD], 0);
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

/* ---- bounded ---- */

static void count_dropped(struct queue *q, const struct totals *rows, uint64_t bytes)
{
    for (size_t i = 0; i < rows->n; i++) {
        struct output_row *row = stats_output_row(q->output_index, tenant_intern(rows->rows[i].tenant));
        counter_add(&row->lost_lines[LOST_DEAD_FULL], rows->rows[i].lines);
        counter_add(&row->dead_lines, -rows->rows[i].lines); /* they move: see queue.h */
    }
    loss_say(q, LOST_DEAD_FULL, rows->lines, bytes);
}

/* The oldest file goes. The log says so first, so a crash between cannot count it twice. */
static int drop_oldest(struct queue *q)
{
    struct dead_log *d = &q->dead;
    struct dead_file f = d->files[0];
    struct tally losses = { 0 };
    struct open_letters letters;
    const struct totals *rows = &letters.rows;
    int r = dead_look_at(q, f.id, &letters);
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
    (void)!queue_unlink_id(q, d->dir_fd, dead_file_name, f.id); /* if not now, then at the next open */
    d->bytes -= f.bytes;
    d->n_files--;
    memmove(d->files, d->files + 1, d->n_files * sizeof(*d->files));
    dead_publish_bytes(q);
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
        int r = dead_look_at(q, d->files[0].id, &letters);
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
