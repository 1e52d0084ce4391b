#include "agent/queue/letters.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "agent/base/array.h"
#include "agent/base/bytes.h"
#include "agent/base/log.h"
#include "agent/queue/marks.h"
#include "agent/queue/view.h"

/* Letters of one group: all are in the queue, or none. */
#define BATCH_LETTERS 256
#define ROWS_MAX 256

const char *letter_fate_name(enum letter_fate f)
{
    switch (f) {
    case LETTER_OPEN: return "open";
    case LETTER_RESENT: return "resent";
    case LETTER_DROPPED: return "dropped";
    }
    return "?";
}

/* ---- marks ---- */

void marks_deinit(struct marks *m)
{
    free(m->list);
    *m = (struct marks){ 0 };
}

int marks_reserve(struct marks *m)
{
    struct mark *list = array_room(m->list, m->n, &m->cap, sizeof(*list));
    if (list == NULL)
        return -ENOMEM;
    m->list = list;
    return 0;
}

int marks_add(struct marks *m, struct letter_id id, enum letter_fate fate)
{
    if (marks_reserve(m) < 0)
        return -ENOMEM;
    m->list[m->n++] = (struct mark){ id, fate };
    m->is_sorted = false;
    return 0;
}

#define LETTER_BYTES 24

int marks_put(struct buf *meta, struct letter_id id, enum letter_fate fate)
{
    uint8_t p[LETTER_BYTES] = { 0 };
    put_le64(p, id.file);
    put_le64(p + 8, id.seq);
    put_le32(p + 16, fate);
    return meta_put(meta, META_LETTER, false, slice_of(p, sizeof(p)));
}

int marks_get(struct slice item, struct mark *ret)
{
    if (item.len < LETTER_BYTES || get_le32(item.ptr + 16) == LETTER_OPEN || get_le32(item.ptr + 16) > LETTER_DROPPED)
        return -EBADMSG;
    *ret = (struct mark){ { get_le64(item.ptr), get_le64(item.ptr + 8) }, (enum letter_fate)get_le32(item.ptr + 16) };
    return 0;
}

int marks_take(struct marks *m, struct slice meta)
{
    struct meta_item item;
    struct mark mark;
    while (meta_next(&meta, &item) > 0)
        if (item.tag == META_LETTER && marks_get(item.bytes, &mark) == 0 && marks_add(m, mark.id, mark.fate) < 0)
            return -ENOMEM;
    return 0;
}

static int by_id(const void *a, const void *b)
{
    const struct mark *x = a, *y = b;
    if (x->id.file != y->id.file)
        return x->id.file < y->id.file ? -1 : 1;
    return x->id.seq < y->id.seq ? -1 : x->id.seq > y->id.seq;
}

enum letter_fate marks_find(struct marks *m, struct letter_id id)
{
    if (m->n == 0)
        return LETTER_OPEN;
    if (!m->is_sorted)
        qsort(m->list, m->n, sizeof(*m->list), by_id);
    m->is_sorted = true;
    const struct mark key = { .id = id };
    const struct mark *found = bsearch(&key, m->list, m->n, sizeof(*m->list), by_id);
    return found == NULL ? LETTER_OPEN : found->fate;
}

/* ---- settling ---- */

struct settling {
    struct queue *q;
    struct view view;
    struct marks known, batch;
    enum letter_fate fate;
    bool (*wants)(void *ctx, const struct letter *l);
    void *ctx;
    struct buf meta, body;
    struct frame_row rows[ROWS_MAX];
    struct frame_meta fields;
    uint64_t batch_bytes, batch_lines;
    struct letters_result *ret;
};

/* The frames are durable in the queue; now the letters are none any more. */
static int close_batch(struct settling *s)
{
    struct queue *q = s->q;
    if (s->batch.n == 0)
        return 0;
    int r = 0;
    uint64_t seq;
    if (s->fate == LETTER_RESENT) {
        r = queue_append(q, NULL, &(struct group_end){ 0 }, &seq);
        if (r < 0)
            queue_abandon_group(q);
        else
            r = queue_sync(q);
    }
    if (r == 0)
        r = dead_put_marks(q, &s->batch, NULL);
    if (r == 0) {
        s->ret->letters += s->batch.n;
        s->ret->lines += s->batch_lines;
    }
    s->batch.n = 0;
    s->batch_bytes = s->batch_lines = 0;
    return r;
}

static int put_back(struct settling *s, const struct frame_hdr *h, struct letter_id id)
{
    struct frame_in frame = { .route = s->fields.route, .wire = buf_slice(&s->body), .raw_len = h->raw_len,
                              .lines = h->lines, .is_alone = true, .rows = s->rows, .n_rows = s->fields.n_rows,
                              .runs = s->fields.runs, .built_ns = h->built_ns, .letter = id };
    uint64_t seq;
    int r = queue_append(s->q, &frame, NULL, &seq);
    if (r < 0)
        queue_abandon_group(s->q);
    return r;
}

static int settle_one(struct settling *s, const struct frame_hdr *h, struct letter_id id)
{
    uint64_t bytes = frame_bytes(h);
    int r = 0;
    if (s->batch.n >= BATCH_LETTERS || (s->batch.n > 0 && s->batch_bytes + bytes > s->q->group_bytes))
        r = close_batch(s);
    if (r == 0 && s->fate == LETTER_RESENT)
        r = put_back(s, h, id);
    if (r == 0)
        r = marks_add(&s->batch, id, s->fate);
    s->batch_bytes += bytes;
    s->batch_lines += h->lines;
    return r;
}

/* Reads a letter and asks whether it is meant: 1, 0 when it is left alone. */
static int consider(struct settling *s, const struct file *f, struct reading *rd, uint64_t off, const struct frame_hdr *h)
{
    struct letter l = { .id = { f->id, h->seq }, .lines = h->lines };
    if (marks_find(&s->known, l.id) != LETTER_OPEN)
        return 0;
    int r = scan_meta(&rd->scan, off, h, &s->meta);
    if (r == 0)
        r = frame_meta_parse(buf_slice(&s->meta), s->rows, ROWS_MAX, &s->fields);
    if (r == 0)
        r = reading_body(rd, off, h, &s->body);
    l.orig = s->fields.orig;
    l.route = s->fields.route;
    if (fs_is_passing(r))
        return r;
    if (r < 0) {
        s->ret->damaged++;
        return 0;
    }
    if (!s->wants(s->ctx, &l))
        return 0;
    if (l.orig.seq != 0 && !ack_is_done(s->q, l.orig.seq)) {
        s->ret->unsettled++;
        return 0;
    }
    if (s->fate == LETTER_RESENT && f->head.wire_form != s->q->wire_form) {
        s->ret->foreign++;
        return 0;
    }
    return 1;
}

static int settle_file(struct settling *s, const struct file *f)
{
    struct reading rd;
    struct frame_hdr h;
    uint64_t off;
    int r = f->kind == FILE_GOOD ? reading_open(&s->view, f, &rd) : -ENOENT;
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    while (r >= 0 && reading_next(&rd, f->fence, &off, &h)) {
        if (h.type != FRAME_DATA)
            continue;
        r = consider(s, f, &rd, off, &h);
        if (r > 0)
            r = settle_one(s, &h, (struct letter_id){ f->id, h.seq });
    }
    return reading_close(&s->view, &rd, MIN(r, 0));
}

int queue_letters_settle(struct queue *q, enum letter_fate fate, bool (*wants)(void *ctx, const struct letter *l),
                         void *ctx, struct letters_result *ret)
{
    struct settling s = { .q = q, .fate = fate, .wants = wants, .ctx = ctx, .ret = ret };
    assert(fate != LETTER_OPEN);
    *ret = (struct letters_result){ 0 };
    buf_init(&s.meta, FRAME_META_MAX);
    buf_init(&s.body, FRAME_BODY_MAX);
    int r = view_open_at(&s.view, q->dir_fd);
    if (r == 0) {
        r = view_log(&s.view, &s.known);
        for (size_t i = 0; r == 0 && i < s.view.dead.n; i++)
            r = settle_file(&s, &s.view.dead.list[i]);
        if (r == 0)
            r = close_batch(&s);
        view_close(&s.view);
    }
    if (q->in_group)
        queue_abandon_group(q);
    dead_drop_settled(q);
    marks_deinit(&s.known);
    marks_deinit(&s.batch);
    buf_deinit(&s.meta);
    buf_deinit(&s.body);
    return r;
}

/* ---- after a crash between the group and the marks ---- */

struct finishing {
    struct marks known, missing;
    struct totals rows, found; /* rows: of the group at hand */
};

static int found_add(struct finishing *f)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < f->rows.n; i++)
        r = totals_add(&f->found, SLICE(""), f->rows.rows[i].tenant, f->rows.rows[i].lines);
    return r;
}

/* The rows of a group stand before the letter that they are of. */
static int find_missing(struct finishing *f, struct slice replayed)
{
    struct meta_item item;
    struct mark m;
    int r = 0;
    while (r == 0 && meta_next(&replayed, &item) > 0) {
        if (item.tag == META_COUNT) {
            struct slice input, tenant;
            uint64_t lines;
            if (meta_get_count(item.bytes, &input, &tenant, &lines) == 0)
                r = totals_add(&f->rows, input, tenant, lines);
            continue;
        }
        if (marks_get(item.bytes, &m) == 0 && marks_find(&f->known, m.id) == LETTER_OPEN) {
            r = marks_add(&f->missing, m.id, LETTER_RESENT);
            if (r == 0)
                r = found_add(f);
        }
        totals_clear(&f->rows);
    }
    return r;
}

int letters_finish(struct queue *q)
{
    struct view v;
    struct finishing f = { 0 };
    if (q->replayed.len == 0)
        return 0;
    int r = view_open_at(&v, q->dir_fd);
    if (r < 0)
        return r;
    r = view_log(&v, &f.known);
    if (r == 0)
        r = find_missing(&f, buf_slice(&q->replayed));
    if (r == 0 && f.missing.n > 0) {
        r = dead_put_marks(q, &f.missing, &f.found);
        log_info("queue", "dead.resent", "what was put back into the queue before a crash, or read again, is marked so",
                 LOG_CSTR("output", q->name), LOG_NUM("letters", f.missing.n), LOG_NUM("errno", -r));
    }
    view_close(&v);
    marks_deinit(&f.known);
    marks_deinit(&f.missing);
    totals_deinit(&f.rows);
    totals_deinit(&f.found);
    buf_deinit(&q->replayed);
    return r;
}

/* ---- skip ---- */

static int skip_parked(struct queue *q, uint64_t seq, uint32_t *ret_lines)
{
    struct frame_head h;
    uint64_t iter = 0;
    while (queue_parked_next(q, &iter, &h) == 1)
        if (h.seq == seq) {
            *ret_lines = h.lines;
            return queue_park_drop(q, h.segment_id, LOST_DROPPED);
        }
    return -ENOENT;
}

int queue_skip(struct queue *q, uint64_t seq, uint32_t *ret_lines)
{
    struct frame_head h;
    if (ack_is_done(q, seq) || seq > queue_durable_seq(q))
        return skip_parked(q, seq, ret_lines);
    if (seq - queue_acked_seq(q) > QUEUE_WINDOW)
        return -ERANGE;
    q->read_seq = seq;
    q->read_segment = 0;
    int r = queue_next(q, &h);
    if (r == 1 && h.seq == seq) {
        *ret_lines = h.lines;
        r = reader_give_up(q, &h);
    } else if (r >= 0) {
        r = -ENOENT;
    }
    queue_rewind(q);
    if (r == 0)
        r = queue_cursor_sync(q);
    return r;
}
