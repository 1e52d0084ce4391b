/*
 * Lines that are lost: which, whose, counted once. Damaged bytes are set aside, never deleted.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/stats.h"
#include "agent/base/tenants.h"
#include "agent/queue/core.h"

/* ---- seqs whose loss is counted ---- */

bool spans_put(struct spans *s, uint64_t first, uint64_t last)
{
    if (s->n > 0 && s->list[s->n - 1].last + 1 == first)
        s->list[s->n - 1].last = last;
    else if (s->n < SPANS_MAX)
        s->list[s->n++] = (struct span){ .first = first, .last = last };
    else
        return false;
    return true;
}

bool spans_have_locked(const struct queue *q, uint64_t first, uint64_t last)
{
    for (size_t i = 0; i < q->n_spans; i++)
        if (q->spans[i].first <= first && last <= q->spans[i].last)
            return true;
    return false;
}

/* The first at or after seq that is neither acknowledged nor counted. */
static uint64_t unsettled_locked(const struct queue *q, uint64_t seq)
{
    bool is = true;
    seq = MAX(seq, atomic_load(&q->acked_seq) + 1);
    while (is) {
        for (is = false; ack_is_done_locked(q, seq); is = true)
            seq++;
        for (size_t i = 0; i < q->n_spans; i++)
            if (q->spans[i].first <= seq && seq <= q->spans[i].last) {
                seq = q->spans[i].last + 1;
                is = true;
            }
    }
    return seq;
}

bool are_settled_locked(const struct queue *q, uint64_t first, uint64_t last)
{
    return unsettled_locked(q, first) > last;
}

bool any_is_settled_locked(const struct queue *q, uint64_t first, uint64_t last)
{
    uint64_t acked = atomic_load(&q->acked_seq);
    bool any = first <= acked;
    for (size_t i = 0; !any && i < q->n_spans; i++)
        any = q->spans[i].first <= last && first <= q->spans[i].last;
    for (uint64_t seq = first; !any && seq <= MIN(last, acked + QUEUE_WINDOW); seq++)
        any = ack_is_done_locked(q, seq);
    return any;
}

void spans_add_locked(struct queue *q, uint64_t first, uint64_t last)
{
    uint64_t acked = atomic_load(&q->acked_seq);
    size_t kept = 0;
    for (size_t i = 0; i < q->n_spans; i++)
        if (q->spans[i].last > acked)
            q->spans[kept++] = q->spans[i];
    q->n_spans = kept;
    if (spans_have_locked(q, first, last))
        return;
    if (q->n_spans == SPANS_MAX) {
        q->n_spans--;
        memmove(q->spans, q->spans + 1, q->n_spans * sizeof(*q->spans));
    }
    q->spans[q->n_spans++] = (struct span){ .first = first, .last = last };
}

void spans_set_logged_locked(struct queue *q, uint64_t first, uint64_t last)
{
    for (size_t i = 0; i < q->n_spans; i++)
        if (q->spans[i].first == first && q->spans[i].last == last)
            q->spans[i].is_logged = true;
}

void damaged_add_locked(struct queue *q, uint64_t first, uint64_t last)
{
    spans_add_locked(q, first, last);
    if (!spans_put(&q->damaged, first, last))
        (void)ack_span_locked(q, (struct span){ .first = first, .last = last });
}

/* ---- counting ---- */

void loss_note_bytes(struct queue *q, const struct lost_range *lost)
{
    pthread_mutex_lock(&q->lock);
    struct tally_row *t = tally_get(&q->losses, lost->tenant);
    if (t != NULL)
        t->lost_bytes[lost->reason] += lost->end - lost->start;
    q->has_losses = true;
    pthread_mutex_unlock(&q->lock);
}

void loss_say(struct queue *q, enum lost_reason reason, uint64_t lines, uint64_t bytes)
{
    gauge_set(&stats.outputs[q->output_index].last_lost_wall_ns, clock_wall_ns());
    log_error("queue", "lines.lost", "lines of this output are lost", LOG_CSTR("output", q->name),
              LOG_CSTR("reason", lost_reason_name(reason)), LOG_NUM("lines", lines), LOG_NUM("bytes", bytes));
}

/* All or none: without what is held a range would bring lines twice. */
static void gaps_add_locked(struct queue *q, const struct gaps *gaps)
{
    if (gaps->n == 0)
        return;
    size_t n = q->gaps.n, held = q->gaps.held.len;
    if (q->gaps.held.max == 0)
        buf_init(&q->gaps.held, HELD_BYTES_MAX);
    int r = buf_append_slice(&q->gaps.held, buf_slice(&gaps->held));
    for (size_t i = 0; r == 0 && i < gaps->n; i++)
        r = gaps_put(&q->gaps, &gaps->list[i]);
    if (r < 0) {
        q->gaps.n = n;
        q->gaps.held.len = held;
    }
}

/* Bytes are shared out by lines: a body holds those of many tenants. */
static uint64_t share_of(const struct loss *l, const struct totals_row *row, uint64_t lines, uint64_t *left)
{
    uint64_t share = row->lines == 0 ? 0 : (uint64_t)((double)l->bytes * (double)row->lines / (double)lines);
    share = MIN(share, *left);
    *left -= share;
    return share;
}

static uint64_t lines_of(const struct totals *rows)
{
    uint64_t lines = 0;
    for (size_t i = 0; i < rows->n; i++)
        lines += rows->rows[i].lines;
    return lines;
}

static int tally_locked(struct queue *q, const struct loss *l)
{
    for (size_t i = 0; i < l->rows->n; i++)
        if (tally_get(&q->losses, l->rows->rows[i].tenant) == NULL)
            return -ENOMEM;
    if (l->missed != NULL && missed_add_locked(q, l->segment_id, l->missed) < 0)
        return -ENOMEM;
    uint64_t lines = lines_of(l->rows), left = l->bytes;
    for (size_t i = 0; i < l->rows->n; i++) {
        struct tally_row *t = tally_get(&q->losses, l->rows->rows[i].tenant); /* there is room */
        t->lost[l->reason] += l->rows->rows[i].lines;
        t->lost_bytes[l->reason] += share_of(l, &l->rows->rows[i], lines, &left);
    }
    if (l->gaps != NULL)
        gaps_add_locked(q, l->gaps);
    q->has_losses = true;
    return 0;
}

static void publish(struct queue *q, const struct loss *l)
{
    uint64_t lines = lines_of(l->rows), left = l->bytes;
    for (size_t i = 0; !q->is_opening && i < l->rows->n; i++) {
        const struct totals_row *from = &l->rows->rows[i];
        struct output_row *row = stats_output_row(q->output_index, tenant_intern(from->tenant));
        counter_add(&row->lost_lines[l->reason], from->lines);
        counter_add(&row->lost_bytes[l->reason], share_of(l, from, lines, &left));
        gauge_add(l->was_parked ? &row->parked_lines : &row->queued_lines, -(int64_t)from->lines);
    }
    loss_say(q, l->reason, lines, l->bytes);
}

int loss_count(struct queue *q, const struct loss *l)
{
    int r = 0;
    pthread_mutex_lock(&q->lock);
    const struct span *s = l->frames == NULL || l->frames->n == 0 ? NULL : &l->frames->list[0];
    bool is_counted = s != NULL && are_settled_locked(q, s->first, s->last);
    if (!is_counted)
        r = tally_locked(q, l);
    for (size_t i = 0; r == 0 && l->frames != NULL && i < l->frames->n; i++)
        damaged_add_locked(q, l->frames->list[i].first, l->frames->list[i].last);
    for (size_t i = 0; r == 0 && l->holes != NULL && i < l->holes->n; i++)
        spans_add_locked(q, l->holes->list[i].first, l->holes->list[i].last);
    pthread_mutex_unlock(&q->lock);
    if (r == 0 && !is_counted)
        publish(q, l);
    return r;
}

static void tally_merge(struct tally *into, const struct tally *from)
{
    for (size_t i = 0; i < from->n; i++) {
        struct tally_row *t = tally_get(into, from->rows[i].tenant);
        for (size_t k = 0; t != NULL && k < LOST_REASONS; k++) {
            t->lost[k] += from->rows[i].lost[k];
            t->lost_bytes[k] += from->rows[i].lost_bytes[k];
        }
    }
}

/* What is taken to be written. */
struct flush {
    struct tally tally;
    struct span spans[SPANS_MAX];
    size_t n_spans;
    struct gaps gaps;
    struct buf missed;
};

/* 1; 0: there are none. -ENOMEM. */
static int take_losses(struct queue *q, struct flush *f)
{
    buf_init(&f->missed, FRAME_META_MAX);
    pthread_mutex_lock(&q->lock);
    int r = q->has_losses ? missed_put_locked(q, false, &f->missed) : 0;
    bool has = r == 0 && q->has_losses;
    if (has) {
        f->tally = q->losses;
        f->n_spans = q->n_spans;
        memcpy(f->spans, q->spans, f->n_spans * sizeof(*f->spans));
        f->gaps = q->gaps;
        q->losses = (struct tally){ 0 };
        q->has_losses = false;
        q->gaps = (struct gaps){ 0 };
    }
    pthread_mutex_unlock(&q->lock);
    if (!has)
        buf_deinit(&f->missed);
    return r < 0 ? r : has;
}

static void give_back(struct queue *q, const struct flush *f)
{
    pthread_mutex_lock(&q->lock);
    tally_merge(&q->losses, &f->tally);
    gaps_add_locked(q, &f->gaps);
    q->has_losses = true;
    pthread_mutex_unlock(&q->lock);
}

int loss_flush(struct queue *q)
{
    struct flush f;
    int r = take_losses(q, &f);
    if (r <= 0)
        return r;
    r = dead_put_losses(q, &(struct losses){ &f.tally, f.spans, f.n_spans, &f.gaps, buf_slice(&f.missed) });
    if (r < 0) {
        give_back(q, &f);
    } else {
        given_set_logged(&q->given);
        pthread_mutex_lock(&q->lock);
        for (size_t i = 0; i < f.n_spans; i++)
            spans_set_logged_locked(q, f.spans[i].first, f.spans[i].last);
        (void)!missed_take_locked(q, buf_slice(&f.missed), true);
        pthread_mutex_unlock(&q->lock);
    }
    buf_deinit(&f.missed);
    tally_deinit(&f.tally);
    gaps_deinit(&f.gaps);
    return r;
}

/* ---- quarantine ---- */

void quarantine_rename(struct queue *q, int dir_fd, const char *name)
{
    char to[SEGMENT_NAME_BYTES * 3];
    struct stat st;
    snprintf(to, sizeof(to), "%s", name);
    for (unsigned i = 1; i < 1000 && q->fs->stat(q->quarantine_fd, to, &st, false) == 0; i++)
        snprintf(to, sizeof(to), "%s.%u", name, i);
    int r = q->fs->rename(dir_fd, name, q->quarantine_fd, to);
    log_error("queue", "queue.damaged", "a file that is not a good file of the queue was set aside in quarantine/",
              LOG_CSTR("output", q->name), LOG_CSTR("file", name), LOG_NUM("errno", -r));
}

/* As far as there is room: a copy for people must not fill the disk. The name says where the bytes stood, so the same
 * damage is copied once. */
void quarantine_copy(struct queue *q, int fd, uint64_t segment_id, uint64_t off, uint64_t len)
{
    char name[SEGMENT_NAME_BYTES * 3];
    struct fs_space space;
    if (atomic_load(&q->quarantined_bytes) + len > QUARANTINE_BYTES_MAX ||
        q->fs->space(q->quarantine_fd, &space) < 0 || space.free_bytes < q->min_free_bytes + len)
        return;
    snprintf(name, sizeof(name), "%016llx-%llu.bad", (unsigned long long)segment_id, (unsigned long long)off);
    int to = q->fs->open(q->quarantine_fd, name, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (to < 0)
        return;
    atomic_fetch_add(&q->quarantined_bytes, len);
    uint8_t *chunk = malloc(64 * KIB);
    for (uint64_t done = 0; chunk != NULL && done < len;) {
        ssize_t n = fs_pread_full(fd, chunk, (size_t)MIN(len - done, (uint64_t)(64 * KIB)), off + done);
        if (n <= 0 || fs_pwrite_full(to, chunk, (size_t)n, done) < 0)
            break;
        done += (uint64_t)n;
    }
    free(chunk);
    (void)q->fs->close(to); /* a copy for people: its loss loses nothing */
}
