#include "agent/queue/queue.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "agent/base/bug.h"
#include "agent/base/clock.h"
#include "agent/queue/core.h"

/*
 * The writer's end.
 *
 *   CLOSED --append(frame, NULL)--> OPEN --append(.., end)--> CLOSED      next_seq, end move with each frame;
 *     |  ^                           |                                     group_seq, group_end with each group
 *     |  '--- abandon: must_roll ----'
 *     '-- sync fails, in any state: is_failed; positions, totals and group_seq go back to what is durable
 *
 * must_roll and is_failed: the next group begins a new segment, whose fence makes void what the old one holds above
 * group_seq. Its first seq is above all that were ever written, so no number means two things.
 */

struct queue_tuning queue_tuning;

/* ---- state that others ask for ---- */

uint64_t queue_durable_seq(const struct queue *q)
{
    return atomic_load(&q->durable_seq);
}

uint64_t queue_acked_seq(const struct queue *q)
{
    return atomic_load(&q->acked_seq);
}

uint64_t queue_bytes(const struct queue *q)
{
    return atomic_load(&q->bytes);
}

bool queue_is_blocked(const struct queue *q, enum blocked_reason *ret_reason)
{
    int b = atomic_load(&q->blocked);
    if (b > 0 && ret_reason != NULL)
        *ret_reason = (enum blocked_reason)(b - 1);
    return b > 0;
}

void queue_set_blocked(struct queue *q, int err)
{
    int b = 0;
    if (err == -EXFULL)
        b = BLOCKED_FULL + 1;
    else if (fs_is_full(err))
        b = BLOCKED_DISK_FULL + 1;
    else if (err < 0)
        b = BLOCKED_WRITE_ERROR + 1;
    atomic_store(&q->blocked, b);
}

bool queue_in_group(const struct queue *q)
{
    return q->in_group;
}

bool queue_is_dirty(const struct queue *q)
{
    return q->fd >= 0 && !q->is_failed && q->end > q->synced_end;
}

/* ---- metas ---- */

int queue_meta_frame(struct buf *meta, const struct frame_in *f, const struct frame_orig *orig)
{
    int r = meta_put(meta, META_ROUTE, true, f->route);
    for (size_t i = 0; r == 0 && i < f->n_rows; i++)
        r = meta_put_count(meta, f->rows[i].input, f->rows[i].tenant, f->rows[i].lines);
    if (r == 0 && f->runs.len > 0)
        r = meta_put(meta, META_RUNS, false, f->runs);
    if (r == 0 && f->sources.len > 0)
        r = meta_put(meta, META_SOURCES, false, f->sources);
    if (r == 0 && orig != NULL)
        r = meta_put_orig(meta, orig);
    if (r == 0 && f->letter.file != 0)
        r = marks_put(meta, f->letter, LETTER_RESENT);
    return r;
}

static int meta_end_of_group(struct buf *meta, const struct group_end *end, uint64_t lines, uint64_t frames)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < end->n_files; i++)
        r = meta_put_file(meta, &end->files[i]);
    for (size_t i = 0; r == 0 && i < end->n_positions; i++)
        r = meta_put_position(meta, &end->positions[i]);
    if (r == 0 && end->n_gone > 0)
        r = meta_put_u64s(meta, META_GONE, true, end->gone, end->n_gone);
    for (size_t i = 0; r == 0 && i < end->n_lost; i++)
        r = meta_put_lost(meta, &end->lost[i]);
    for (size_t i = 0; r == 0 && i < end->n_ledger; i++)
        r = meta_put_ledger(meta, &end->ledger[i]);
    if (r == 0 && end->reread.file != 0)
        r = marks_put(meta, end->reread, LETTER_RESENT);
    if (r == 0)
        r = meta_put_u64s(meta, META_TOTAL, false, (const uint64_t[]){ lines, frames }, 2);
    return r;
}

/* ---- room ---- */

static uint64_t parked_bytes(struct queue *q)
{
    pthread_mutex_lock(&q->lock);
    uint64_t n = q->parked_bytes;
    pthread_mutex_unlock(&q->lock);
    return n;
}

/* Every DATA frame that was written is acknowledged: what is on disk is only waiting to be unlinked. */
static bool all_is_acked(struct queue *q)
{
    pthread_mutex_lock(&q->lock);
    bool is_done = q->group_data_seq <= atomic_load(&q->acked_seq);
    for (size_t i = 0; is_done && i < q->n_segs; i++) {
        const struct segment *s = &q->segs[i];
        is_done = (s->last_data_seq == UINT64_MAX ? s->last_seq : s->last_data_seq) <= atomic_load(&q->acked_seq);
    }
    pthread_mutex_unlock(&q->lock);
    return is_done;
}

static bool disk_is_full(struct queue *q)
{
    struct fs_space space;
    if (q->fs->space(q->dir_fd, &space) < 0)
        return false;
    return space.free_bytes < q->min_free_bytes ||
           (q->min_free_percent > 0 &&
            (double)space.free_bytes * 100 < (double)space.total_bytes * (double)q->min_free_percent);
}

static int count_dropped(struct queue *q, const struct segment *s)
{
    struct totals rows = { 0 };
    struct spans all = { .n = 0 };
    uint64_t frames = 0, size;
    int fd, r = segment_open(q, s->id, &fd, &size);
    if (r < 0)
        return r;
    spans_put(&all, s->first_seq, s->last_seq);
    r = loss_rows(q, fd, s, s->first_seq, s->last_seq, &rows, &frames, NULL);
    if (r == 0 && frames > 0)
        r = loss_count(q, &(struct loss){ .reason = LOST_DROPPED, .rows = &rows, .bytes = s->bytes, .holes = &all });
    (void)q->fs->close(fd);
    totals_deinit(&rows);
    return r;
}

/* The oldest segment goes, unread: a choice in the configuration. Counted, in the ledger and past the cursor before its
 * name is gone. False when only the newest is left, or what is in it cannot be counted now. */
static bool drop_oldest(struct queue *q)
{
    pthread_mutex_lock(&q->lock);
    bool has = q->n_segs > 1;
    struct segment s = has ? q->segs[0] : (struct segment){ 0 };
    pthread_mutex_unlock(&q->lock);
    if (!has)
        return false;

    if (fs_is_passing(count_dropped(q, &s)))
        return false;
    pthread_mutex_lock(&q->lock);
    spans_add_locked(q, s.first_seq, s.last_seq);
    (void)ack_span_locked(q, (struct span){ .first = 1, .last = s.last_seq }); /* nothing older is left */
    pthread_mutex_unlock(&q->lock);
    /* Not even the loss or the cursor can be written: then nothing is dropped either. */
    return queue_cursor_sync(q) >= 0 && queue_unlink_acked(q) >= 0;
}

/* A group may begin only when all of it will fit: it is never stopped half-way by max_bytes. */
static int check_room(struct queue *q, bool has_data)
{
    if (disk_is_full(q))
        return -ENOSPC;
    while (has_data && atomic_load(&q->bytes) + q->group_bytes > q->conf.max_bytes) {
        if (all_is_acked(q) && parked_bytes(q) + q->group_bytes <= q->conf.max_bytes)
            break;
        if (q->conf.on_full != QUEUE_FULL_DROP_OLDEST || !drop_oldest(q))
            return -EXFULL;
    }
    return 0;
}

/* What a group may take on disk: bodies are compressed, so this is plenty. */
static uint64_t group_room(const struct queue *q)
{
    return MIN(q->group_bytes + q->group_bytes / 8 + 64 * KIB, q->segment_bytes / 2);
}

static bool has_groups(const struct queue *q)
{
    return q->group_seq > 0 && q->n_segs > 0 && q->segs[q->n_segs - 1].first_seq < q->group_seq;
}

/* The segment for the next group, a new one when needed. -ESTALE: the old one could not be synced. */
static int prepare_segment(struct queue *q)
{
    if (q->fd >= 0 && !q->must_roll && !q->is_failed) {
        if (q->end + group_room(q) <= q->segment_bytes || !has_groups(q)) {
            if (q->end > q->segment_bytes / 4 * 3)
                segment_make_spare(q);
            return 0;
        }
        int r = segment_seal(q, false);
        if (r < 0)
            return r;
    } else if (q->fd >= 0 && q->must_roll && !q->is_failed && q->synced_end < q->group_end) {
        /* An abandoned group: what came before it is to be durable before the fence names it. */
        int r = queue_sync(q);
        if (r < 0)
            return -ESTALE;
    }
    return segment_begin(q);
}

/* What this queue has of a full disk is in the newest segment, and nobody needs it any more. One without groups has nothing
 * to give back: so a disk that others have filled is not rolled over for ever. */
static bool holds_dead_room(struct queue *q)
{
    bool has_rest = q->fd >= 0 && (q->must_roll || q->is_failed);
    return (has_groups(q) || has_rest) && all_is_acked(q);
}

/*
 * The next segment is begun, in the room that is kept for it if there is no other, and the newest becomes an old one, which goes.
 * No SEAL: there may be no room for it. The positions are on the disk at every moment: both segments have them until the
 * cursor is durable. Also below min_free: what is taken is given back at once. -ESTALE as queue_append().
 */
static int give_room_back(struct queue *q)
{
    if (queue_sync(q) < 0)
        return -ESTALE;
    queue_abandon_group(q);
    q->must_roll = true; /* a next one that fails may stand on the disk all the same, with a fence: nothing follows here */
    int r = segment_begin(q);
    if (r < 0)
        return r;
    /* What does not work here is done at the sender's word. */
    (void)!queue_cursor_sync(q);
    (void)!queue_unlink_acked(q);
    return 0;
}

/* The disk is full within a group, and what is acknowledged before it in its segment holds the room: the group is given up to
 * be brought again, for as long as it is open nothing can be begun behind it. */
static int leave_group(struct queue *q, int err)
{
    if (!fs_is_full(err) || !holds_dead_room(q))
        return err;
    bool was_open = q->in_group;
    int r = give_room_back(q);
    if (r == -ESTALE)
        return r;
    if (was_open)
        rereads_rollback(&q->rereads);
    return was_open ? -ECANCELED : err;
}

/* ---- appending ---- */

static int prepare_room(struct queue *q, bool has_data)
{
    int r = check_room(q, has_data);
    if (r == 0)
        r = segment_keep_room(q); /* first: a new segment takes what it can get */
    if (r == 0)
        r = prepare_segment(q);
    return r == 0 ? segment_keep_room(q) : r; /* it may have been used */
}

static int begin_group(struct queue *q, bool has_data)
{
    int r = prepare_room(q, has_data);
    if (fs_is_full(r) && holds_dead_room(q)) {
        r = give_room_back(q);
        if (r == 0)
            r = prepare_room(q, has_data);
    }
    queue_set_blocked(q, r == -ESTALE ? -EIO : r);
    if (r < 0)
        return r == -EXFULL ? -ENOSPC : r;
    q->group_data = 0;
    q->group_lines = 0;
    return 0;
}

/* Everything that could fail for want of memory happens before the write: what is on disk is also in the tables. */
static int prepare_tables(struct queue *q, const struct frame_in *frame, const struct group_end *end)
{
    for (size_t i = 0; frame != NULL && i < frame->n_rows; i++)
        if (totals_get(&q->totals, frame->rows[i].input, frame->rows[i].tenant) == NULL)
            return -ENOMEM;
    if (end == NULL)
        return 0;
    for (size_t i = 0; i < end->n_ledger; i++)
        if (totals_get(&q->totals, end->ledger[i].input, end->ledger[i].tenant) == NULL)
            return -ENOMEM;
    if (end->reread.file != 0 && marks_reserve(&q->rereads.written) < 0)
        return -ENOMEM;
    return positions_prepare(&q->positions, end);
}

static uint64_t count_rows(struct queue *q, const struct frame_in *frame)
{
    uint64_t lines = 0;
    for (size_t i = 0; i < frame->n_rows; i++) {
        struct totals_row *row = totals_find(&q->totals, frame->rows[i].input, frame->rows[i].tenant);
        assert(row != NULL); /* prepare_tables() */
        row->prepared += frame->rows[i].lines;
        lines += frame->rows[i].lines;
    }
    return lines;
}

/* Rows of the open group count when it closes. */
static void settle_rows(struct queue *q, bool is_closed)
{
    for (size_t i = 0; i < q->totals.n; i++) {
        struct totals_row *row = &q->totals.rows[i];
        if (row->prepared == 0)
            continue;
        totals_touch(&q->totals, row);
        if (is_closed)
            row->lines += row->prepared;
        row->prepared = 0;
    }
    if (is_closed) {
        q->totals.lines += q->group_lines;
        q->totals.frames += q->group_data;
    }
    q->group_lines = 0;
    q->group_data = 0;
}

static void close_group(struct queue *q, const struct group_end *end, bool has_data)
{
    positions_apply(&q->positions, end);
    for (size_t i = 0; i < end->n_ledger; i++) {
        struct totals_row *row = totals_find(&q->totals, end->ledger[i].input, end->ledger[i].tenant);
        assert(row != NULL); /* prepare_tables() */
        totals_touch(&q->totals, row);
        row->ledger = end->ledger[i];
        row->ledger.input = row->ledger.tenant = SLICE("");
        row->has_ledger = true;
    }
    for (size_t i = 0; i < end->n_lost; i++)
        loss_note_bytes(q, &end->lost[i]);
    if (end->reread.file != 0)
        rereads_close(&q->rereads, end->reread); /* there is room: prepare_tables() */
    settle_rows(q, true);
    q->in_group = false;
    pthread_mutex_lock(&q->lock);
    if (has_data)
        q->group_data_seq = q->top_seq;
    struct segment *s = &q->segs[q->n_segs - 1];
    assert(s->id == q->last_id);
    atomic_fetch_add(&q->bytes, q->end - s->bytes);
    s->bytes = q->end;
    s->last_seq = q->top_seq;
    s->last_data_seq = q->group_data_seq;
    pthread_mutex_unlock(&q->lock);
    q->group_end = q->end;
    q->group_seq = q->top_seq;
}

static int write_frame(struct queue *q, const struct frame_in *frame, const struct group_end *end)
{
    struct frame_hdr h = { .type = frame == NULL ? FRAME_POS : FRAME_DATA,
                           .flags = end == NULL && !BUG(1) ? FRAME_FLAG_MORE : 0,
                           .seq = q->next_seq,
                           .synced_seq = q->synced_seq,
                           .built_ns = frame == NULL ? clock_wall_ns() : frame->built_ns,
                           .salt = q->salt };
    uint64_t lines = q->totals.lines + q->group_lines, frames = q->totals.frames + q->group_data;
    int r = 0;
    if (frame != NULL) {
        h.flags |= (frame->is_alone ? FRAME_FLAG_ALONE : 0) | (frame->is_gap ? FRAME_FLAG_GAP : 0);
        h.raw_len = frame->raw_len;
        h.lines = frame->lines;
        for (size_t i = 0; i < frame->n_rows; i++)
            lines += frame->rows[i].lines;
        frames++;
        r = queue_meta_frame(&q->meta, frame, NULL);
    }
    if (r == 0 && end != NULL)
        r = meta_end_of_group(&q->meta, end, lines, frames);
    if (r == 0)
        r = frame_write(q, q->fd, q->end, &h, buf_slice(&q->meta), frame == NULL ? SLICE("") : frame->wire);
    if (r < 0 && BUG(11))
        q->end += FRAME_HEAD_BYTES; /* O_APPEND: what was written stays where it is */
    buf_reset(&q->meta);
    buf_shrink(&q->meta, META_BYTES_KEEP);
    if (r < 0)
        return r;
    known_add(q, q->last_id, q->end, &h);
    q->newest_ns = MAX(q->newest_ns, h.built_ns);
    q->end += frame_bytes(&h);
    q->top_seq = q->next_seq++;
    return 0;
}

int queue_append(struct queue *q, const struct frame_in *frame, const struct group_end *end, uint64_t *ret_seq)
{
    assert(frame != NULL || end != NULL);
    if (!q->in_group) {
        int r = begin_group(q, frame != NULL);
        if (r < 0)
            return r;
    }
    int r = prepare_tables(q, frame, end);
    if (r == 0)
        r = leave_group(q, write_frame(q, frame, end));
    queue_set_blocked(q, r == -ESTALE ? -EIO : r == -ECANCELED ? -ENOSPC : r);
    if (r < 0)
        return r;

    if (frame != NULL) {
        q->group_lines += count_rows(q, frame);
        q->group_data++;
        if (frame->is_gap)
            rereads_bring(&q->rereads, frame->rows, frame->n_rows);
    }
    q->in_group = true;
    if (end != NULL)
        close_group(q, end, q->group_data > 0);
    *ret_seq = q->top_seq;
    return 0;
}

/* What is made void, for whoever counted it as accepted: the open group, or everything that is not durable. */
static void note_voided(struct queue *q, bool all)
{
    free(q->voided);
    q->n_voided = 0;
    q->voided = calloc(q->totals.n + 1, sizeof(*q->voided));
    for (size_t i = 0; q->voided != NULL && i < q->totals.n; i++) {
        const struct totals_row *row = &q->totals.rows[i];
        uint64_t lines = row->prepared + (all ? row->lines - row->durable_lines : 0);
        if (lines > 0)
            q->voided[q->n_voided++] = (struct frame_row){ row->input, row->tenant, (uint32_t)lines };
    }
}

void queue_abandon_group(struct queue *q)
{
    if (!q->in_group)
        return;
    /* Its frames stay in the file. Were their numbers used again, a search after damage could take the old for the
     * new: so the next segment's fence makes them void. */
    note_voided(q, false);
    settle_rows(q, false);
    rereads_abandon(&q->rereads);
    q->in_group = false;
    q->end = q->group_end;
    q->next_seq = q->group_seq + 1;
    q->must_roll = true;
}

/* ---- syncing ---- */

void queue_publish(struct queue *q)
{
    positions_commit(&q->positions);
    totals_commit(&q->totals);
    rereads_commit(&q->rereads);
    pthread_mutex_lock(&q->lock);
    struct segment *s = &q->segs[q->n_segs - 1];
    if (s->id == q->last_id && q->group_seq > s->last_seq) { /* SEAL */
        atomic_fetch_add(&q->bytes, q->end - s->bytes);
        s->bytes = q->end;
        s->last_seq = q->group_seq;
        if (s->last_data_seq == 0)
            s->last_data_seq = q->group_data_seq;
    }
    pthread_mutex_unlock(&q->lock);
    atomic_store(&q->durable_seq, q->group_seq);
}

/*
 * A sync failed. Linux calls the pages clean now, so a second sync would lie: the segment is left as it is, and nothing
 * above the last durable seq counts.
 */
void queue_fence(struct queue *q)
{
    uint64_t durable = atomic_load(&q->durable_seq);
    note_voided(q, true);
    settle_rows(q, false);
    positions_rollback(&q->positions);
    totals_rollback(&q->totals);
    rereads_rollback(&q->rereads);
    q->in_group = false;
    q->is_failed = true;
    q->void_from = q->synced_end;
    q->end = q->synced_end = q->group_end;
    q->group_seq = durable;
    q->group_data_seq = MIN(q->group_data_seq, durable);

    pthread_mutex_lock(&q->lock);
    for (size_t i = 0; i < q->n_segs; i++) {
        struct segment *s = &q->segs[i];
        s->last_seq = MIN(s->last_seq, durable);
        if (s->last_data_seq != UINT64_MAX)
            s->last_data_seq = MIN(s->last_data_seq, durable);
    }
    pthread_mutex_unlock(&q->lock);
}

int queue_sync(struct queue *q)
{
    if (!queue_is_dirty(q))
        return 0;
    bool is_real = q->conf.sync != QUEUE_SYNC_NEVER;
    int r = is_real ? q->fs->fdatasync(q->fd) : 0;
    if (r < 0 && BUG(3))
        r = q->fs->fdatasync(q->fd);
    if (r < 0 && BUG(4))
        r = 0;
    if (r < 0) {
        queue_fence(q);
        int begun = segment_begin(q); /* else at the next append */
        queue_set_blocked(q, begun);
        return r;
    }
    q->synced_end = q->end;
    if (is_real)
        q->synced_seq = q->group_seq;
    queue_publish(q);
    dead_settle_rereads(q);
    return 0;
}

int queue_fenced(struct queue *q, const struct recovered_file **ret_files, size_t *ret_n)
{
    return positions_export(&q->positions, ret_files, ret_n);
}

int queue_fenced_ledger(struct queue *q, const struct ledger_row **ret_rows, size_t *ret_n)
{
    free(q->fenced);
    q->fenced = calloc(q->totals.n + 1, sizeof(*q->fenced));
    if (q->fenced == NULL)
        return -ENOMEM;
    size_t n = 0;
    for (size_t i = 0; i < q->totals.n; i++) {
        const struct totals_row *row = &q->totals.rows[i];
        if (!row->has_durable_ledger)
            continue;
        q->fenced[n] = row->durable_ledger;
        q->fenced[n].input = row->input;
        q->fenced[n++].tenant = row->tenant;
    }
    *ret_rows = q->fenced;
    *ret_n = n;
    return 0;
}

void queue_voided(const struct queue *q, const struct frame_row **ret_rows, size_t *ret_n)
{
    *ret_rows = q->voided;
    *ret_n = q->n_voided;
}
