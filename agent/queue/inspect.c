#include "agent/queue/inspect.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/base/bytes.h"
#include "agent/base/clock.h"
#include "agent/queue/core.h"
#include "agent/queue/scan.h"

const char *queue_place_name(enum queue_place p)
{
    switch (p) {
    case QUEUE_PLACE_QUEUED: return "queued";
    case QUEUE_PLACE_ACKED: return "acked";
    case QUEUE_PLACE_PARKED: return "parked";
    case QUEUE_PLACE_DEAD: return "dead";
    }
    return "?";
}

/* ---- the directory as it stands ---- */

struct file {
    char name[64];      /* below the directory */
    uint64_t id, bytes;
    struct segment_head head;
    bool has_head;
    uint64_t fence;     /* of segments: the lowest of later ones */
};

struct files {
    struct file *list;
    size_t n, cap;
    const char *sub, *suffix;
    bool is_out_of_memory;
};

struct view {
    const struct fs_ops *fs;
    int dir_fd;
    struct cursor_slot cursor;
    bool has_cursor;
    struct files segments, parked, dead;
};

static void collect(void *ctx, const char *name)
{
    struct files *f = ctx;
    uint64_t id = segment_name_parse(name, f->suffix);
    if (id == 0)
        return;
    if (f->n == f->cap) {
        size_t cap = f->cap == 0 ? 64 : f->cap * 2;
        struct file *list = realloc(f->list, cap * sizeof(*list));
        if (list == NULL) {
            f->is_out_of_memory = true;
            return;
        }
        f->list = list;
        f->cap = cap;
    }
    struct file *at = &f->list[f->n++];
    *at = (struct file){ .id = id };
    snprintf(at->name, sizeof(at->name), "%s%016llx%s", f->sub, (unsigned long long)id, f->suffix);
}

static int by_id(const void *a, const void *b)
{
    uint64_t x = ((const struct file *)a)->id, y = ((const struct file *)b)->id;
    return x < y ? -1 : x > y;
}

static void read_head(struct view *v, struct file *f)
{
    uint8_t raw[SEGMENT_HEAD_BYTES];
    struct stat st;
    int fd = v->fs->open(v->dir_fd, f->name, O_RDONLY, 0);
    if (fd < 0)
        return;
    if (v->fs->fstat(fd, &st) == 0)
        f->bytes = (uint64_t)st.st_size;
    if (fs_pread_full(fd, raw, sizeof(raw), 0) == (ssize_t)sizeof(raw))
        f->has_head = segment_head_decode(raw, &f->head) == 0;
    (void)v->fs->close(fd);
}

static int list_files(struct view *v, struct files *f, const char *sub, const char *suffix)
{
    f->sub = sub;
    f->suffix = suffix;
    int fd = sub[0] == '\0' ? v->dir_fd : v->fs->open(v->dir_fd, sub, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return fd == -ENOENT ? 0 : fd;
    int r = v->fs->list(fd, collect, f);
    if (fd != v->dir_fd)
        (void)v->fs->close(fd);
    if (f->is_out_of_memory)
        r = -ENOMEM;
    if (f->n > 0)
        qsort(f->list, f->n, sizeof(*f->list), by_id);
    for (size_t i = 0; i < f->n; i++)
        read_head(v, &f->list[i]);
    uint64_t fence = SEQ_MAX;
    for (size_t i = f->n; i-- > 0;) {
        f->list[i].fence = fence;
        if (f->list[i].has_head)
            fence = MIN(fence, f->list[i].head.fence);
    }
    return r;
}

static void view_close(struct view *v)
{
    if (v->dir_fd >= 0)
        (void)v->fs->close(v->dir_fd);
    free(v->segments.list);
    free(v->parked.list);
    free(v->dead.list);
}

/* The cursor is read first: what is acknowledged later still shows as queued, never the other way round. */
static int view_open(struct view *v, const char *dir, struct err *err)
{
    *v = (struct view){ .fs = fs_current() };
    v->dir_fd = v->fs->open(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY, 0);
    if (v->dir_fd < 0)
        return err_set(err, v->dir_fd, "cannot open the queue %s", dir);
    int fd = v->fs->open(v->dir_fd, "cursor", O_RDONLY, 0);
    if (fd >= 0) {
        v->has_cursor = cursor_read(v->fs, fd, &v->cursor);
        (void)v->fs->close(fd);
    }
    int r = list_files(v, &v->segments, "", ".seg");
    if (r == 0)
        r = list_files(v, &v->parked, "parked/", ".parked");
    if (r == 0)
        r = list_files(v, &v->dead, "dead/", ".dead");
    if (r < 0) {
        view_close(v);
        return err_set(err, r, "cannot read the queue %s", dir);
    }
    return 0;
}

static bool is_acked(const struct view *v, uint64_t seq)
{
    if (!v->has_cursor)
        return false;
    if (seq <= v->cursor.acked_seq)
        return true;
    uint64_t i = seq - v->cursor.acked_seq - 1;
    return i < QUEUE_WINDOW && (v->cursor.bits[i / 64] >> (i % 64) & 1) != 0;
}

/* ---- frames of one file ---- */

struct reading {
    int fd;
    struct scan scan;
    uint64_t off, seq;
};

static int reading_open(struct view *v, const struct file *f, struct reading *r)
{
    *r = (struct reading){ .off = SEGMENT_HEAD_BYTES, .seq = f->head.first_seq };
    struct stat st;
    r->fd = v->fs->open(v->dir_fd, f->name, O_RDONLY, 0);
    if (r->fd < 0)
        return r->fd;
    int e = v->fs->fstat(r->fd, &st);
    if (e == 0)
        e = scan_init(&r->scan, r->fd, (uint64_t)st.st_size, f->head.salt);
    if (e < 0)
        (void)v->fs->close(r->fd);
    return e;
}

static void reading_close(struct view *v, struct reading *r)
{
    scan_deinit(&r->scan);
    (void)v->fs->close(r->fd);
}

/* The next good header with a seq that follows; what lies between is stepped over. */
static bool reading_next(struct reading *r, uint64_t fence, uint64_t *ret_off, struct frame_hdr *h)
{
    if (r->seq > fence || !scan_find(&r->scan, r->off, r->seq, fence, ret_off, h))
        return false;
    r->off = *ret_off + frame_bytes(h);
    r->seq = h->seq + 1;
    return true;
}

static int read_body(struct reading *r, uint64_t off, const struct frame_hdr *h, struct buf *body)
{
    buf_reset(body);
    int e = buf_reserve(body, h->body_len);
    if (e < 0)
        return e;
    ssize_t n = fs_pread_full(r->fd, body->ptr, h->body_len, off + FRAME_HEAD_BYTES + h->meta_len);
    body->len = n < 0 ? 0 : (size_t)n;
    return body->len == h->body_len && frame_crc(buf_slice(body)) == h->body_crc ? 0 : -EBADMSG;
}

struct walk {
    struct view view;
    struct buf meta, body;
    int (*each)(void *ctx, const struct queue_frame *frame);
    void *ctx;
};

static int show(struct walk *w, struct reading *r, const struct file *f, uint64_t off, const struct frame_hdr *h,
                enum queue_place place)
{
    int e = scan_meta(&r->scan, off, h, &w->meta);
    if (e == -EBADMSG)
        return 0;
    if (e == 0)
        e = read_body(r, off, h, &w->body);
    if (e == -ENOMEM)
        return e;
    struct queue_frame frame = {
        .head = { .seq = h->seq, .segment_id = f->id, .off = off, .meta_len = h->meta_len, .body_len = h->body_len,
                  .raw_len = h->raw_len, .lines = h->lines, .built_ns = h->built_ns, .type = h->type,
                  .flags = h->flags, .is_parked = place == QUEUE_PLACE_PARKED },
        .meta = buf_slice(&w->meta),
        .body = e == 0 ? buf_slice(&w->body) : SLICE(""),
        .place = place,
        .wire_form = f->head.wire_form,
        .is_whole = e == 0,
        .file = f->name,
    };
    return w->each(w->ctx, &frame);
}

static int walk_file(struct walk *w, const struct file *f, enum queue_place place)
{
    struct reading r;
    if (!f->has_head)
        return 0;
    int e = reading_open(&w->view, f, &r);
    if (e < 0)
        return e == -ENOENT ? 0 : e;
    struct frame_hdr h;
    uint64_t off;
    while (e == 0 && reading_next(&r, f->fence, &off, &h)) {
        if (h.type != FRAME_DATA)
            continue;
        enum queue_place p = place == QUEUE_PLACE_QUEUED && is_acked(&w->view, h.seq) ? QUEUE_PLACE_ACKED : place;
        e = show(w, &r, f, off, &h, p);
    }
    reading_close(&w->view, &r);
    return e;
}

/* Fences are between segments; parked and dead files stand alone. */
static int walk_files(struct walk *w, struct files *files, enum queue_place place)
{
    int e = 0;
    for (size_t i = 0; i < files->n && e == 0; i++) {
        if (place != QUEUE_PLACE_QUEUED)
            files->list[i].fence = SEQ_MAX;
        e = walk_file(w, &files->list[i], place);
    }
    return e;
}

int queue_inspect_each_frame(const char *dir, int (*each)(void *ctx, const struct queue_frame *frame), void *ctx,
                             struct err *err)
{
    struct walk w = { .each = each, .ctx = ctx };
    int r = view_open(&w.view, dir, err);
    if (r < 0)
        return r;
    buf_init(&w.meta, SNAP_RAW_MAX);
    buf_init(&w.body, FRAME_BODY_MAX);
    r = walk_files(&w, &w.view.segments, QUEUE_PLACE_QUEUED);
    if (r == 0)
        r = walk_files(&w, &w.view.parked, QUEUE_PLACE_PARKED);
    if (r == 0)
        r = walk_files(&w, &w.view.dead, QUEUE_PLACE_DEAD);
    buf_deinit(&w.meta);
    buf_deinit(&w.body);
    view_close(&w.view);
    return r;
}

/* ---- ls ---- */

struct sums {
    uint64_t first, last, frames, lines, queued_frames, queued_lines;
    int64_t oldest_ns;
};

static int sum_file(struct view *v, const struct file *f, bool is_segment, struct sums *s)
{
    struct reading r;
    struct frame_hdr h;
    uint64_t off;
    int e = f->has_head ? reading_open(v, f, &r) : -ENOENT;
    if (e < 0)
        return e == -ENOENT ? 0 : e;
    while (reading_next(&r, is_segment ? f->fence : SEQ_MAX, &off, &h)) {
        s->first = s->first == 0 ? h.seq : s->first;
        s->last = h.seq;
        if (h.type != FRAME_DATA)
            continue;
        s->frames++;
        s->lines += h.lines;
        if (is_segment && is_acked(v, h.seq))
            continue;
        s->queued_frames++;
        s->queued_lines += h.lines;
        if (s->oldest_ns == 0 || h.built_ns < s->oldest_ns)
            s->oldest_ns = h.built_ns;
    }
    reading_close(v, &r);
    return 0;
}

static int put_segment(struct buf *text, const struct file *f, const struct sums *s)
{
    if (!f->has_head)
        return buf_printf(text, "%-24s %12llu  %s\n", f->name, (unsigned long long)f->bytes,
                          f->bytes == 0 ? "(made early, empty)" : "(damaged header)");
    return buf_printf(text, "%-24s %12llu  seq %llu..%llu  frames %llu  lines %llu  queued %llu\n", f->name,
                      (unsigned long long)f->bytes, (unsigned long long)s->first, (unsigned long long)s->last,
                      (unsigned long long)s->frames, (unsigned long long)s->lines,
                      (unsigned long long)s->queued_lines);
}

static int put_folder(struct view *v, struct buf *text, const char *name, const struct files *files)
{
    struct sums s = { 0 };
    uint64_t bytes = 0;
    int r = 0;
    for (size_t i = 0; i < files->n && r == 0; i++) {
        r = sum_file(v, &files->list[i], false, &s);
        bytes += files->list[i].bytes;
    }
    if (r < 0)
        return r;
    return buf_printf(text, "%-7s files %zu  bytes %llu  frames %llu  lines %llu\n", name, files->n,
                      (unsigned long long)bytes, (unsigned long long)s.frames, (unsigned long long)s.lines);
}

static int put_age(struct buf *text, int64_t oldest_ns)
{
    int r = buf_append_cstr(text, ", oldest of ");
    if (r == 0)
        r = clock_append_rfc3339(text, oldest_ns, 0);
    int64_t age = (clock_wall_ns() - oldest_ns) / NS_PER_SEC;
    if (r == 0)
        r = buf_printf(text, " (%lld s ago)", (long long)MAX(age, 0));
    return r;
}

static int put_ls(struct view *v, struct buf *text)
{
    struct sums all = { 0 };
    uint64_t bytes = 0;
    int r = 0;
    for (size_t i = 0; i < v->segments.n && r == 0; i++) {
        struct sums s = { 0 };
        r = sum_file(v, &v->segments.list[i], true, &s);
        if (r == 0)
            r = put_segment(text, &v->segments.list[i], &s);
        bytes += v->segments.list[i].bytes;
        all.queued_frames += s.queued_frames;
        all.queued_lines += s.queued_lines;
        if (s.oldest_ns != 0 && (all.oldest_ns == 0 || s.oldest_ns < all.oldest_ns))
            all.oldest_ns = s.oldest_ns;
    }
    if (r == 0)
        r = v->has_cursor ? buf_printf(text, "cursor  seq %llu\n", (unsigned long long)v->cursor.acked_seq)
                          : buf_append_cstr(text, "cursor  none that is valid: everything is sent again\n");
    if (r == 0)
        r = buf_printf(text, "queued  frames %llu  lines %llu  segments %zu  bytes %llu",
                       (unsigned long long)all.queued_frames, (unsigned long long)all.queued_lines, v->segments.n,
                       (unsigned long long)bytes);
    if (r == 0 && all.oldest_ns != 0)
        r = put_age(text, all.oldest_ns);
    if (r == 0)
        r = buf_append_byte(text, '\n');
    if (r == 0)
        r = put_folder(v, text, "parked", &v->parked);
    if (r == 0)
        r = put_folder(v, text, "dead", &v->dead);
    return r;
}

int queue_inspect_ls(const char *dir, struct buf *text, struct err *err)
{
    struct view v;
    int r = view_open(&v, dir, err);
    if (r < 0)
        return r;
    r = put_ls(&v, text);
    view_close(&v);
    return r < 0 ? err_set(err, r, "cannot list the queue %s", dir) : 0;
}

/* ---- verify ---- */

/* Where each file stood at the last group, to see that the next one starts there. */
struct chain {
    struct verify_file {
        uint64_t incarnation, end;
    } *files;
    size_t n, cap;
};

struct verify {
    struct view view;
    struct buf *text;
    struct buf meta, body;
    struct chain chain;
    struct totals totals;
    bool has_totals;
    int problems;
    uint64_t frames, lines, ranges;
};

static int problem(struct verify *v, const struct file *f, uint64_t off, const char *what, uint64_t detail)
{
    v->problems++;
    return buf_printf(v->text, "%s at %llu: %s (%llu)\n", f->name, (unsigned long long)off, what,
                      (unsigned long long)detail);
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
        if (c->n == c->cap) {
            size_t cap = c->cap == 0 ? 64 : c->cap * 2;
            struct verify_file *files = realloc(c->files, cap * sizeof(*files));
            if (files == NULL)
                return -ENOMEM;
            c->files = files;
            c->cap = cap;
        }
        f = &c->files[c->n++];
        f->incarnation = incarnation;
    }
    f->end = end;
    return 0;
}

static int check_position(struct verify *v, const struct file *f, uint64_t off, struct slice bytes, uint8_t type,
                          uint8_t flags)
{
    struct file_position pos;
    if (meta_get_position(bytes, &pos) < 0)
        return problem(v, f, off, "a position that cannot be read", 0);
    const struct verify_file *last = chain_find(&v->chain, pos.incarnation);
    uint64_t start = type == FRAME_SNAP ? pos.end : pos.start;
    int r = 0;
    v->ranges++;
    if (last != NULL && last->end != start && !(flags & FRAME_FLAG_GAP))
        r = problem(v, f, off, "a file's range does not begin where its last one ended", pos.incarnation);
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
            r = problem(v, f, off, h->type == FRAME_SNAP ? "the count in SNAP differs from the frames before it"
                                                         : "the count in SEAL differs from the frames before it",
                        row->lines > counted ? row->lines - counted : counted - row->lines);
    }
    totals_clear(&v->totals);
    for (size_t i = 0; i < said->n && r == 0; i++)
        r = totals_add(&v->totals, said->rows[i].input, said->rows[i].tenant, said->rows[i].lines);
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
            r = check_position(v, f, off, item.bytes, h->type, h->flags);
        if (r < 0)
            break;
    }
    if (r == -EBADMSG || r == -EPROTO)
        r = problem(v, f, off, "a meta that cannot be read", h->seq);
    if (r == 0 && h->type == FRAME_DATA && counted != h->lines)
        r = problem(v, f, off, "the rows do not add up to the frame's lines", h->seq);
    if (r == 0 && is_state)
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
        return problem(v, f, off, "the meta is damaged, frame", h->seq);
    }
    if (r < 0)
        return r;
    if (!scan_body_is_good(&rd->scan, off, h) && (r = problem(v, f, off, "the body is damaged, frame", h->seq)) < 0)
        return r;
    if (h->type == FRAME_DATA) {
        v->frames++;
        v->lines += h->lines;
    }
    return check_meta(v, f, off, h);
}

/* Beyond the last good frame of the newest file a torn tail is a normal day, and a running agent may be writing there. */
static int verify_segment(struct verify *v, const struct file *f, bool is_newest)
{
    struct reading rd;
    struct frame_hdr h;
    uint64_t off;
    if (!f->has_head)
        return f->bytes == 0 ? 0 : problem(v, f, 0, "the header is damaged", f->bytes);
    int r = reading_open(&v->view, f, &rd);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    for (;;) {
        uint64_t expect = rd.seq, from = rd.off;
        if (!reading_next(&rd, f->fence, &off, &h)) {
            if (!is_newest && expect <= f->fence && f->fence < SEQ_MAX) {
                v->has_totals = false;
                r = problem(v, f, from, "frames are missing at the end", f->fence - expect + 1);
            }
            break;
        }
        if (h.seq != expect || off != from) {
            v->has_totals = false;
            r = problem(v, f, from, "damaged bytes", off - from);
        }
        if (r == 0)
            r = verify_frame(v, f, &rd, off, &h);
        if (r < 0)
            break;
    }
    reading_close(&v->view, &rd);
    return r;
}

static int verify_alone(struct verify *v, const struct file *f)
{
    struct reading rd;
    struct frame_hdr h;
    uint64_t off;
    if (!f->has_head)
        return problem(v, f, 0, "the header is damaged", f->bytes);
    int r = reading_open(&v->view, f, &rd);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    while (r == 0 && reading_next(&rd, SEQ_MAX, &off, &h)) {
        r = scan_meta(&rd.scan, off, &h, &v->meta);
        if (r == -EBADMSG || (r == 0 && !scan_body_is_good(&rd.scan, off, &h)))
            r = problem(v, f, off, "a damaged frame", h.seq);
    }
    reading_close(&v->view, &rd);
    return r;
}

static int verify_all(struct verify *v)
{
    struct files *s = &v->view.segments;
    size_t newest = s->n;
    for (size_t i = 0; i < s->n; i++)
        newest = s->list[i].has_head ? i : newest;
    int r = 0;
    for (size_t i = 0; i < s->n && r == 0; i++) {
        if (i > 0 && s->list[i].has_head && s->list[i - 1].has_head &&
            s->list[i].head.first_seq <= s->list[i - 1].head.first_seq)
            r = problem(v, &s->list[i], 0, "numbers do not grow from segment to segment", s->list[i].head.first_seq);
        if (r == 0)
            r = verify_segment(v, &s->list[i], i == newest);
    }
    if (r == 0 && !v->view.has_cursor) {
        v->problems++;
        r = buf_append_cstr(v->text, "cursor: no valid slot\n");
    }
    for (size_t i = 0; i < v->view.parked.n && r == 0; i++)
        r = verify_alone(v, &v->view.parked.list[i]);
    for (size_t i = 0; i < v->view.dead.n && r == 0; i++)
        r = verify_alone(v, &v->view.dead.list[i]);
    if (r == 0)
        r = buf_printf(v->text, "%zu segments, %llu frames, %llu lines, %llu ranges of files: %d problem%s\n", s->n,
                       (unsigned long long)v->frames, (unsigned long long)v->lines, (unsigned long long)v->ranges,
                       v->problems, v->problems == 1 ? "" : "s");
    return r;
}

int queue_inspect_verify(const char *dir, struct buf *text, struct err *err)
{
    struct verify v = { .text = text };
    int r = view_open(&v.view, dir, err);
    if (r < 0)
        return r;
    buf_init(&v.meta, SNAP_RAW_MAX);
    buf_init(&v.body, FRAME_BODY_MAX);
    r = verify_all(&v);
    buf_deinit(&v.meta);
    buf_deinit(&v.body);
    free(v.chain.files);
    totals_deinit(&v.totals);
    view_close(&v.view);
    return r < 0 ? err_set(err, r, "cannot verify the queue %s", dir) : v.problems;
}
