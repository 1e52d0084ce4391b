#include "agent/queue/inspect.h"

#include <errno.h>
#include <stdio.h>

#include "agent/base/bytes.h"
#include "agent/base/clock.h"
#include "agent/queue/view.h"

const char *queue_place_name(enum queue_place p)
{
    switch (p) {
    case QUEUE_PLACE_QUEUED: return "queued";
    case QUEUE_PLACE_ACKED: return "acked";
    case QUEUE_PLACE_PARKED: return "parked";
    case QUEUE_PLACE_GIVEN: return "given_up";
    case QUEUE_PLACE_DEAD: return "dead";
    }
    return "?";
}

/* ---- every frame ---- */

struct walk {
    struct view view;
    struct marks marks;
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
        e = reading_body(r, off, h, &w->body);
    if (fs_is_passing(e))
        return e;
    struct queue_frame frame = {
        .head = { .seq = h->seq, .segment_id = f->id, .off = off, .meta_len = h->meta_len, .body_len = h->body_len,
                  .raw_len = h->raw_len, .lines = h->lines, .built_ns = h->built_ns, .type = h->type,
                  .flags = h->flags, .is_parked = place == QUEUE_PLACE_PARKED || place == QUEUE_PLACE_GIVEN },
        .meta = buf_slice(&w->meta),
        .body = e == 0 ? buf_slice(&w->body) : SLICE(""),
        .place = place,
        .wire_form = f->head.wire_form,
        .body_crc = h->body_crc,
        .is_whole = e == 0,
        .fate = place == QUEUE_PLACE_DEAD ? marks_find(&w->marks, (struct letter_id){ f->id, h->seq }) : LETTER_OPEN,
        .file = f->name,
    };
    return w->each(w->ctx, &frame);
}

static int walk_file(struct walk *w, const struct file *f, enum queue_place place)
{
    struct reading r;
    if (f->kind != FILE_GOOD)
        return 0;
    int e = reading_open(&w->view, f, &r);
    if (e < 0)
        return e == -ENOENT ? 0 : e;
    struct frame_hdr h;
    uint64_t off;
    while (e == 0 && reading_next(&r, f->fence, &off, &h)) {
        if (h.type != FRAME_DATA)
            continue;
        enum queue_place p = place == QUEUE_PLACE_QUEUED && view_is_acked(&w->view, h.seq) ? QUEUE_PLACE_ACKED : place;
        e = show(w, &r, f, off, &h, p);
    }
    return reading_close(&w->view, &r, e);
}

static int walk_files(struct walk *w, struct files *files, enum queue_place place)
{
    int e = 0;
    for (size_t i = 0; i < files->n && e == 0; i++)
        e = walk_file(w, &files->list[i], files->list[i].is_given ? QUEUE_PLACE_GIVEN : place);
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
    r = view_log(&w.view, &w.marks);
    if (r == 0)
        r = walk_files(&w, &w.view.segments, QUEUE_PLACE_QUEUED);
    if (r == 0)
        r = walk_files(&w, &w.view.parked, QUEUE_PLACE_PARKED);
    if (r == 0)
        r = walk_files(&w, &w.view.dead, QUEUE_PLACE_DEAD);
    marks_deinit(&w.marks);
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
    int e = f->kind == FILE_GOOD ? reading_open(v, f, &r) : -ENOENT;
    if (e < 0)
        return e == -ENOENT ? 0 : e;
    while (reading_next(&r, f->fence, &off, &h)) {
        s->first = s->first == 0 ? h.seq : s->first;
        s->last = h.seq;
        if (h.type != FRAME_DATA)
            continue;
        s->frames++;
        s->lines += h.lines;
        if (is_segment && view_is_acked(v, h.seq))
            continue;
        s->queued_frames++;
        s->queued_lines += h.lines;
        if (s->oldest_ns == 0 || h.built_ns < s->oldest_ns)
            s->oldest_ns = h.built_ns;
    }
    return reading_close(v, &r, 0);
}

#define U(n) ((unsigned long long)(n))

static const char *kind_name(enum file_kind k)
{
    static const char *const names[] = { "good", "empty", "damaged", "foreign" };
    return names[k];
}

static int put_segment(const struct queue_report *to, const struct file *f, const struct sums *s, bool is_first)
{
    if (to->is_json)
        return buf_printf(to->text,
                          "%s{\"file\":\"%s\",\"state\":\"%s\",\"bytes\":%llu,\"first_seq\":%llu,\"last_seq\":%llu,"
                          "\"frames\":%llu,\"lines\":%llu,\"queued_frames\":%llu,\"queued_lines\":%llu}",
                          is_first ? "" : ",", f->name, kind_name(f->kind), U(f->bytes), U(s->first), U(s->last),
                          U(s->frames), U(s->lines), U(s->queued_frames), U(s->queued_lines));
    if (f->kind != FILE_GOOD)
        return buf_printf(to->text, "%-24s %12llu  %s\n", f->name, U(f->bytes),
                          f->kind == FILE_EMPTY    ? "(made early, empty)"
                          : f->kind == FILE_DAMAGED ? "(damaged header)"
                                                    : "(of another queue)");
    return buf_printf(to->text, "%-24s %12llu  seq %llu..%llu  frames %llu  lines %llu  queued %llu\n", f->name,
                      U(f->bytes), U(s->first), U(s->last), U(s->frames), U(s->lines), U(s->queued_lines));
}

static int put_segments(struct view *v, const struct queue_report *to, struct sums *all, uint64_t *bytes)
{
    int r = to->is_json ? buf_append_lit(to->text, ",\"segments\":[") : 0;
    for (size_t i = 0; i < v->segments.n && r == 0; i++) {
        const struct file *f = &v->segments.list[i];
        struct sums s = { 0 };
        r = sum_file(v, f, true, &s);
        if (r == 0)
            r = put_segment(to, f, &s, i == 0);
        *bytes += f->bytes;
        all->queued_frames += s.queued_frames;
        all->queued_lines += s.queued_lines;
        if (s.oldest_ns != 0 && (all->oldest_ns == 0 || s.oldest_ns < all->oldest_ns))
            all->oldest_ns = s.oldest_ns;
    }
    return r == 0 && to->is_json ? buf_append_byte(to->text, ']') : r;
}

static int put_cursor(const struct view *v, const struct queue_report *to)
{
    uint64_t beyond = 0;
    for (size_t i = 0; i < ARRAY_LEN(v->cursor.bits); i++)
        beyond += (uint64_t)__builtin_popcountll(v->cursor.bits[i]);
    if (!v->has_cursor)
        return to->is_json ? buf_append_lit(to->text, ",\"cursor\":null")
                           : buf_append_lit(to->text, "cursor  none that is valid: everything is sent again\n");
    return buf_printf(to->text,
                      to->is_json ? ",\"cursor\":{\"seq\":%llu,\"beyond\":%llu,\"generation\":%llu}"
                                  : "cursor  seq %llu, and %llu beyond it (generation %llu)\n",
                      U(v->cursor.acked_seq), U(beyond), U(v->cursor.generation));
}

static int put_age(struct buf *text, int64_t oldest_ns)
{
    int r = buf_append_lit(text, ", oldest of ");
    if (r == 0)
        r = clock_append_rfc3339(text, oldest_ns, 0);
    int64_t age = (clock_wall_ns() - oldest_ns) / NS_PER_SEC;
    if (r == 0)
        r = buf_printf(text, " (%lld s ago)", (long long)MAX(age, 0));
    return r;
}

static int put_queued(const struct view *v, const struct queue_report *to, const struct sums *all, uint64_t bytes)
{
    if (to->is_json)
        return buf_printf(to->text, ",\"queued\":{\"frames\":%llu,\"lines\":%llu,\"bytes\":%llu,\"oldest_ns\":%lld}",
                          U(all->queued_frames), U(all->queued_lines), U(bytes), (long long)all->oldest_ns);
    int r = buf_printf(to->text, "queued  frames %llu  lines %llu  segments %zu  bytes %llu", U(all->queued_frames),
                       U(all->queued_lines), v->segments.n, U(bytes));
    if (r == 0 && all->oldest_ns != 0)
        r = put_age(to->text, all->oldest_ns);
    return r < 0 ? r : buf_append_byte(to->text, '\n');
}

/* Its files that are given up, or the others. */
static int put_folder(struct view *v, const struct queue_report *to, const char *name, const struct files *files, bool is_given)
{
    struct sums s = { 0 };
    uint64_t bytes = 0;
    size_t n = 0;
    int r = 0;
    for (size_t i = 0; i < files->n && r == 0; i++) {
        if (files->list[i].is_given != is_given)
            continue;
        r = sum_file(v, &files->list[i], false, &s);
        bytes += files->list[i].bytes;
        n++;
    }
    if (r < 0 || (n == 0 && is_given && !to->is_json))
        return r;
    return buf_printf(to->text,
                      to->is_json ? ",\"%s\":{\"files\":%zu,\"bytes\":%llu,\"frames\":%llu,\"lines\":%llu}"
                                  : "%-7s files %zu  bytes %llu  frames %llu  lines %llu\n",
                      name, n, U(bytes), U(s.frames), U(s.lines));
}

static int put_ls(struct view *v, const struct queue_report *to)
{
    struct sums all = { 0 };
    uint64_t bytes = 0;
    int r = view_log(v, NULL);
    if (r == 0)
        r = report_begin(to);
    if (r == 0)
        r = put_segments(v, to, &all, &bytes);
    if (r == 0)
        r = put_cursor(v, to);
    if (r == 0)
        r = put_queued(v, to, &all, bytes);
    if (r == 0)
        r = put_folder(v, to, "parked", &v->parked, false);
    if (r == 0)
        r = put_folder(v, to, "given_up", &v->parked, true);
    if (r == 0)
        r = put_folder(v, to, "dead", &v->dead, false);
    return r == 0 && to->is_json ? buf_append_lit(to->text, "}\n") : r;
}

int queue_inspect_ls(const struct queue_report *to, struct err *err)
{
    struct view v;
    int r = view_open(&v, to->dir, err);
    if (r < 0)
        return r;
    r = put_ls(&v, to);
    view_close(&v);
    return r < 0 ? err_set(err, r, "cannot list the queue %s", to->dir) : 0;
}

/* ---- a frame as JSON ---- */

static int put_string(struct buf *text, const char *name, struct slice value)
{
    int r = buf_printf(text, ",\"%s\":", name);
    return r < 0 ? r : buf_append_json_string(text, value);
}

static int put_flags(struct buf *text, uint8_t flags)
{
    static const char *const names[] = { "more", "dead", "gap", "alone" };
    int r = buf_append_lit(text, ",\"flags\":[");
    const char *comma = "";
    for (unsigned i = 0; i < ARRAY_LEN(names) && r == 0; i++) {
        if ((flags >> i & 1) == 0)
            continue;
        r = buf_printf(text, "%s\"%s\"", comma, names[i]);
        comma = ",";
    }
    return r < 0 ? r : buf_append_byte(text, ']');
}

static int put_rows(struct buf *text, struct slice meta)
{
    struct meta_item item;
    int r = buf_append_lit(text, ",\"rows\":[");
    const char *open = "{\"input\":";
    while (r == 0 && meta_next(&meta, &item) > 0) {
        struct slice input, tenant;
        uint64_t lines;
        if (item.tag != META_COUNT || meta_get_count(item.bytes, &input, &tenant, &lines) < 0)
            continue;
        r = buf_append_cstr(text, open);
        open = ",{\"input\":";
        if (r == 0)
            r = buf_append_json_string(text, input);
        if (r == 0)
            r = put_string(text, "tenant", tenant);
        if (r == 0)
            r = buf_printf(text, ",\"lines\":%llu}", U(lines));
    }
    return r < 0 ? r : buf_append_byte(text, ']');
}

static int put_orig(struct buf *text, const struct frame_orig *o)
{
    if (o->seq == 0)
        return 0;
    int r = buf_printf(text, ",\"orig\":{\"seq\":%llu,\"item\":", U(o->seq));
    if (r == 0)
        r = o->item == UINT32_MAX ? buf_append_lit(text, "null") : buf_printf(text, "%u", o->item);
    if (r == 0)
        r = buf_printf(text, ",\"status\":%d", o->status);
    if (r == 0)
        r = put_string(text, "reason", o->reason);
    if (r == 0)
        r = put_string(text, "text", o->text);
    return r < 0 ? r : buf_append_byte(text, '}');
}

int queue_frame_json(const struct queue_frame *f, struct buf *text)
{
    struct frame_meta m;
    int r = frame_meta_parse(f->meta, NULL, 0, &m);
    if (r < 0 && r != -ENOBUFS)
        return r;
    r = buf_printf(text,
                   "{\"file\":\"%s\",\"offset\":%llu,\"seq\":%llu,\"place\":\"%s\",\"whole\":%s,\"lines\":%u,\"raw_bytes\":%u,"
                   "\"body_bytes\":%u,\"body_crc\":\"%08x\",\"built_ns\":%lld",
                   f->file, U(f->head.off), U(f->head.seq), queue_place_name(f->place), f->is_whole ? "true" : "false",
                   f->head.lines, f->head.raw_len, f->head.body_len, f->body_crc, (long long)f->head.built_ns);
    if (r == 0)
        r = put_flags(text, f->head.flags);
    if (r == 0)
        r = put_string(text, "route", m.route);
    if (r == 0)
        r = put_rows(text, f->meta);
    if (r == 0)
        r = put_orig(text, &m.orig);
    if (r == 0 && f->place == QUEUE_PLACE_DEAD)
        r = buf_printf(text, ",\"letter\":\"%llu:%llu\",\"fate\":\"%s\"", U(f->head.segment_id), U(f->head.seq),
                       letter_fate_name(f->fate));
    return r;
}
