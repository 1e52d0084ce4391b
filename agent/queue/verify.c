/*
 * `tailrace queue verify`: every checksum, every number, the chain of positions and the counts. What it reports and in
 * which order is part of docs/FORMATS.md, for an independent reader is to find the same.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "agent/base/array.h"
#include "agent/base/bytes.h"
#include "agent/queue/inspect.h"
#include "agent/queue/view.h"

/* Where each file stood at the last group, to see that the next one starts there. */
struct chain {
    struct verify_file {
        uint64_t incarnation, end;
    } *files;
    size_t n, cap;
};

enum problem {
    PROBLEM_HEADER,
    PROBLEM_FOREIGN,
    PROBLEM_ORDER,
    PROBLEM_BYTES,
    PROBLEM_MISSING,
    PROBLEM_META,
    PROBLEM_BODY,
    PROBLEM_ITEMS,
    PROBLEM_ROWS,
    PROBLEM_CHAIN,
    PROBLEM_SNAP,
    PROBLEM_SEAL,
    PROBLEM_CURSOR,
};

static const struct {
    const char *name, *sentence;
} problems[] = {
    [PROBLEM_HEADER] = { "header", "the header is damaged; bytes in the file" },
    [PROBLEM_FOREIGN] = { "foreign", "the file is of another queue; bytes in it" },
    [PROBLEM_ORDER] = { "order", "numbers do not grow from segment to segment; first seq" },
    [PROBLEM_BYTES] = { "bytes", "damaged bytes" },
    [PROBLEM_MISSING] = { "missing", "frames are missing at the end" },
    [PROBLEM_META] = { "meta", "the meta is damaged; frame" },
    [PROBLEM_BODY] = { "body", "the body is damaged; frame" },
    [PROBLEM_ITEMS] = { "items", "an item of the meta cannot be read; frame" },
    [PROBLEM_ROWS] = { "rows", "the rows do not add up to the frame's lines; frame" },
    [PROBLEM_CHAIN] = { "chain", "a file's range does not begin where its last one ended; incarnation" },
    [PROBLEM_SNAP] = { "snap", "the count in SNAP differs from the frames before it; lines" },
    [PROBLEM_SEAL] = { "seal", "the count in SEAL differs from the frames before it; lines" },
    [PROBLEM_CURSOR] = { "cursor", "no slot is valid; bytes in the file" },
};

struct verify {
    struct view view;
    const struct queue_report *to;
    struct buf meta;
    struct chain chain;
    struct totals totals;
    bool has_totals;
    bool has_frames; /* of segments, or a segment went while we looked: what it had is done */
    int n_problems;
    struct marks marks;
    uint64_t frames, lines, ranges, rereads;
};

static int say(struct verify *v, const char *file, uint64_t off, enum problem what, uint64_t number)
{
    bool is_first = v->n_problems++ == 0;
    if (!v->to->is_json)
        return buf_printf(v->to->text, "%s at %llu: %s (%llu)\n", file, (unsigned long long)off,
                          problems[what].sentence, (unsigned long long)number);
    return buf_printf(v->to->text, "%s{\"file\":\"%s\",\"offset\":%llu,\"problem\":\"%s\",\"number\":%llu}",
                      is_first ? "" : ",", file, (unsigned long long)off, problems[what].name,
                      (unsigned long long)number);
}

static int problem(struct verify *v, const struct file *f, uint64_t off, enum problem what, uint64_t number)
{
    return say(v, f->name, off, what, number);
}

static struct verify_file *chain_find(struct chain *c, uint64_t incarnation)
{
    for (size_t i = c->n; i-- > 0;)
        if (c->files[i].incarnation == incarnation)
            return &c->files[i];
    return NULL;
}

static int chain_set(struct chain *c, uint64_t incarnation, uint64_t end)
{
    struct verify_file *f = chain_find(c, incarnation);
    if (f == NULL) {
        struct verify_file *files = array_room(c->files, c->n, &c->cap, sizeof(*files));
        if (files == NULL)
            return -ENOMEM;
        c->files = files;
        f = &c->files[c->n++];
        f->incarnation = incarnation;
    }
    f->end = end;
    return 0;
}

static int check_position(struct verify *v, const struct file *f, uint64_t off, struct slice bytes,
                          const struct frame_hdr *h)
{
    struct file_position pos;
    if (meta_get_position(bytes, &pos) < 0)
        return problem(v, f, off, PROBLEM_ITEMS, h->seq);
    v->ranges++;
    if (h->flags & FRAME_FLAG_GAP)
        return 0; /* a range read again */
    const struct verify_file *last = chain_find(&v->chain, pos.incarnation);
    uint64_t start = h->type == FRAME_SNAP || h->type == FRAME_SEAL ? pos.end : pos.start;
    int r = 0;
    if (last != NULL && last->end != start)
        r = problem(v, f, off, PROBLEM_CHAIN, pos.incarnation);
    return r < 0 ? r : chain_set(&v->chain, pos.incarnation, pos.end);
}

/* SNAP and SEAL say how many lines there were before them. */
static int check_totals(struct verify *v, const struct file *f, uint64_t off, const struct frame_hdr *h,
                        const struct totals *said)
{
    int r = 0;
    for (size_t i = 0; v->has_totals && i < said->n && r == 0; i++) {
        const struct totals_row *row = &said->rows[i];
        const struct totals_row *own = totals_find(&v->totals, row->input, row->tenant);
        uint64_t counted = own == NULL ? 0 : own->lines;
        if (counted != row->lines)
            r = problem(v, f, off, h->type == FRAME_SNAP ? PROBLEM_SNAP : PROBLEM_SEAL,
                        row->lines > counted ? row->lines - counted : counted - row->lines);
    }
    totals_clear(&v->totals);
    if (r == 0)
        r = totals_add_all(&v->totals, said);
    v->has_totals = true;
    return r;
}

static int check_meta(struct verify *v, const struct file *f, uint64_t off, const struct frame_hdr *h)
{
    struct slice rest = buf_slice(&v->meta);
    struct meta_item item;
    struct totals said = { 0 };
    bool is_state = h->type == FRAME_SNAP || h->type == FRAME_SEAL;
    uint64_t counted = 0;
    int r;
    while ((r = meta_next(&rest, &item)) > 0) {
        struct slice input, tenant;
        uint64_t lines;
        r = 0;
        if (item.tag == META_COUNT && is_state)
            r = totals_take(&said, item.tag, item.bytes);
        else if (item.tag == META_COUNT && meta_get_count(item.bytes, &input, &tenant, &lines) == 0) {
            r = totals_add(&v->totals, input, tenant, lines);
            counted += lines;
        } else if (item.tag == META_POS)
            r = check_position(v, f, off, item.bytes, h);
        if (r < 0)
            break;
    }
    if (r == -EBADMSG || r == -EPROTO)
        r = problem(v, f, off, PROBLEM_ITEMS, h->seq);
    else if (r == 0 && h->type == FRAME_DATA && counted != h->lines)
        r = problem(v, f, off, PROBLEM_ROWS, h->seq);
    else if (r == 0 && is_state)
        r = check_totals(v, f, off, h, &said);
    totals_deinit(&said);
    return r;
}

static int verify_frame(struct verify *v, const struct file *f, struct reading *rd, uint64_t off,
                        const struct frame_hdr *h)
{
    int r = scan_meta(&rd->scan, off, h, &v->meta);
    if (r == -EBADMSG) {
        v->has_totals = false;
        return problem(v, f, off, PROBLEM_META, h->seq);
    }
    if (r < 0)
        return r;
    if (!scan_body_is_good(&rd->scan, off, h) && rd->scan.error == 0 && (r = problem(v, f, off, PROBLEM_BODY, h->seq)) < 0)
        return r;
    if (h->type == FRAME_DATA) {
        v->frames++;
        v->lines += h->lines;
    }
    return check_meta(v, f, off, h);
}

/* The last seq that the file must have: up to the next one's fence, or to what the cursor says is done. 0: not known. */
static uint64_t last_due(const struct verify *v, const struct file *f, bool is_newest)
{
    if (!is_newest)
        return f->fence < SEQ_MAX ? f->fence : 0;
    return v->view.has_cursor ? cursor_top(&v->view.cursor) : 0;
}

/* Beyond the last good frame of the newest file a torn tail is a normal day, and a running agent may be writing there. */
static int verify_segment(struct verify *v, const struct file *f, bool is_newest)
{
    struct reading rd;
    struct frame_hdr h;
    uint64_t off;
    int r = reading_open(&v->view, f, &rd);
    v->has_frames = v->has_frames || r == -ENOENT;
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    for (;;) {
        uint64_t expect = rd.seq, from = rd.off;
        if (!reading_next(&rd, f->fence, &off, &h)) {
            uint64_t last = last_due(v, f, is_newest);
            if (rd.scan.error == 0 && expect <= last) {
                v->has_totals = false;
                r = problem(v, f, from, PROBLEM_MISSING, last - expect + 1);
            }
            break;
        }
        v->has_frames = true;
        if (h.seq != expect || off != from) {
            v->has_totals = false;
            r = problem(v, f, from, PROBLEM_BYTES, off - from);
        }
        if (r == 0)
            r = verify_frame(v, f, &rd, off, &h);
        if (r < 0)
            break;
    }
    return reading_close(&v->view, &rd, r);
}

/* Ranges that are to be read again, and have not been yet. */
static void note_reread(struct verify *v, const struct file *f, const struct frame_hdr *h)
{
    bool is_dead = slice_ends(slice_cstr(f->name), SLICE(".dead"));
    if (is_dead && h->type == FRAME_LOST && reread_is_meant(buf_slice(&v->meta)) &&
        marks_find(&v->marks, (struct letter_id){ f->id, h->seq }) == LETTER_OPEN)
        v->rereads++;
}

/* A file of parked/ or dead/: only its frames. */
static int verify_alone(struct verify *v, const struct file *f)
{
    struct reading rd;
    struct frame_hdr h;
    uint64_t off;
    int r = reading_open(&v->view, f, &rd);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    for (;;) {
        uint64_t from = rd.off;
        if (!reading_next(&rd, f->fence, &off, &h))
            break;
        if (off != from)
            r = problem(v, f, from, PROBLEM_BYTES, off - from);
        if (r == 0)
            r = scan_meta(&rd.scan, off, &h, &v->meta);
        if (r == 0)
            note_reread(v, f, &h);
        if (r == -EBADMSG)
            r = problem(v, f, off, PROBLEM_META, h.seq);
        else if (r == 0 && !scan_body_is_good(&rd.scan, off, &h) && rd.scan.error == 0)
            r = problem(v, f, off, PROBLEM_BODY, h.seq);
        if (r < 0)
            break;
    }
    return reading_close(&v->view, &rd, r);
}

static int verify_file(struct verify *v, const struct file *f, bool is_segment, bool is_newest)
{
    switch (f->kind) {
    case FILE_EMPTY:
        return 0; /* made early */
    case FILE_DAMAGED:
        return problem(v, f, 0, PROBLEM_HEADER, f->bytes);
    case FILE_FOREIGN:
        return problem(v, f, 0, PROBLEM_FOREIGN, f->bytes);
    case FILE_GOOD:
        break;
    }
    return is_segment ? verify_segment(v, f, is_newest) : verify_alone(v, f);
}

static int verify_segments(struct verify *v)
{
    const struct files *s = &v->view.segments;
    size_t newest = s->n;
    uint64_t first_seq = 0;
    int r = 0;
    for (size_t i = 0; i < s->n; i++)
        newest = s->list[i].kind == FILE_GOOD ? i : newest;
    for (size_t i = 0; i < s->n && r == 0; i++) {
        const struct file *f = &s->list[i];
        if (f->kind == FILE_GOOD && f->head.first_seq <= first_seq)
            r = problem(v, f, 0, PROBLEM_ORDER, f->head.first_seq);
        if (f->kind == FILE_GOOD)
            first_seq = f->head.first_seq;
        if (r == 0)
            r = verify_file(v, f, true, i == newest);
    }
    return r;
}

/* The newest segment is never removed: a cursor that has passed frames does not stand alone. */
static int verify_cursor(struct verify *v)
{
    if (!v->view.has_cursor)
        return say(v, "cursor", 0, PROBLEM_CURSOR, v->view.cursor_bytes);
    const uint64_t top = cursor_top(&v->view.cursor);
    return top > 0 && !v->has_frames ? say(v, "cursor", 0, PROBLEM_MISSING, top) : 0;
}

static int verify_all(struct verify *v)
{
    const struct files *alone[] = { &v->view.parked, &v->view.dead };
    int r = view_log(&v->view, &v->marks);
    if (r == 0)
        r = verify_segments(v);
    if (r == 0)
        r = verify_cursor(v);
    for (size_t k = 0; k < ARRAY_LEN(alone); k++)
        for (size_t i = 0; i < alone[k]->n && r == 0; i++)
            r = alone[k]->list[i].is_given ? 0 : verify_file(v, &alone[k]->list[i], false, false);
    return r;
}

static int put_sums(struct verify *v)
{
    const char *form = v->to->is_json
                           ? "],\"segments\":%zu,\"frames\":%llu,\"lines\":%llu,\"ranges\":%llu,\"rereads\":%llu,\"n_problems\":%d}\n"
                           : "%zu segments, %llu frames, %llu lines, %llu ranges of files, %llu losses to be read again: %d "
                             "problem%s\n";
    return buf_printf(v->to->text, form, v->view.segments.n, (unsigned long long)v->frames,
                      (unsigned long long)v->lines, (unsigned long long)v->ranges, (unsigned long long)v->rereads, v->n_problems,
                      v->n_problems == 1 ? "" : "s");
}

int queue_inspect_verify(const struct queue_report *to, struct err *err)
{
    struct verify v = { .to = to };
    int r = view_open(&v.view, to->dir, err);
    if (r < 0)
        return r;
    buf_init(&v.meta, SNAP_RAW_MAX);
    r = report_begin(to);
    if (r == 0 && to->is_json)
        r = buf_append_lit(to->text, ",\"problems\":[");
    if (r == 0)
        r = verify_all(&v);
    if (r == 0)
        r = put_sums(&v);
    buf_deinit(&v.meta);
    free(v.chain.files);
    totals_deinit(&v.totals);
    marks_deinit(&v.marks);
    view_close(&v.view);
    return r < 0 ? err_set(err, r, "cannot verify the queue %s", to->dir) : v.n_problems;
}
