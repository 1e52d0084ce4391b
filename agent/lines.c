/*
 * lines.c - raw lines to records: framing, partial lines joined per stream (across a rotation as well), multi-line text,
 * lines that are too long, and what is unfinished when a file ends.
 */
#include <stdlib.h>

#include "agent/base/bug.h"
#include "agent/base/clock.h"
#include "agent/base/limits.h"
#include "agent/base/log.h"
#include "agent/join.h"
#include "agent/pipeline_internal.h"

#define LOOK_CHUNK_BYTES (256 * KIB)
#define LOOK_BYTES_MAX (16 * MIB) /* the reader stands still for it; a runtime rotates its logs before that */

static struct record *record_begin(struct work *w, struct slice line, enum record_stream stream, uint64_t offset)
{
    /* Only what parser_record does not set: the values and suspects of the last record are overwritten by it. */
    struct record *rec = &w->p->rec;
    rec->origin = w->source->origin;
    rec->incarnation = w->source->incarnation;
    rec->offset = offset;
    rec->read_ns = w->p->wall_ns;
    rec->stream = stream;
    rec->line = line;
    rec->flags = 0;
    rec->time_ns = 0;
    return rec;
}

static void set_frame_time(struct record *rec, bool has_time, int64_t time_ns)
{
    if (has_time) {
        rec->flags |= RECORD_HAS_TIME;
        rec->time_ns = time_ns;
    }
}

/* ---- joining ---- */

/* The group is whole. at: where an output stands that is stopped by it and has not, or has, got it. */
static void group_flush(struct work *w, enum record_stream stream, uint64_t at)
{
    struct join *j = w->pass->state;
    struct pending *g = &j->streams[stream].group;
    struct slice text = buf_slice(&g->text);
    while (text.len > 0 && text.ptr[text.len - 1] == '\n') /* an empty line that might have been part of it */
        text.len--;
    struct record *rec = record_begin(w, text, stream, g->start);
    rec->flags = (slice_find_byte(text, '\n') >= 0 ? RECORD_MULTILINE : 0u) | (g->is_cut ? RECORD_CUT : 0u);
    set_frame_time(rec, g->has_time, g->time_ns);
    g->is_active = false; /* what process() records as unfinished is the others */
    pipeline_process(w, rec, g->end, g->raw_bytes, (struct place){ at, at });
    pending_end(g);
    j->streams[stream].state = (struct multiline_state){ 0 };
}

static struct join *join_of(struct work *w)
{
    if (w->pass->state == NULL)
        w->pass->state = join_new(w->source->file, w->pass, &w->source->joins);
    return w->pass->state;
}

/* A whole line: a record by itself, or one more of a group. raw: [start, end) of its raw lines. */
struct whole {
    struct slice text;
    enum record_stream stream;
    uint64_t start, end, raw_bytes;
    bool has_time, is_cut, is_unfinished, is_split;
    int64_t time_ns;
};

static void single(struct work *w, const struct whole *l, uint64_t before)
{
    struct record *rec = record_begin(w, l->text, l->stream, l->start);
    rec->flags = (l->is_cut ? RECORD_CUT : 0u) | (l->is_unfinished ? RECORD_UNFINISHED : 0u) |
                 (l->is_split ? RECORD_SPLIT : 0u);
    set_frame_time(rec, l->has_time, l->time_ns);
    /* At the file's end lines of other streams may lie between this one's last piece and the place. */
    pipeline_process(w, rec, l->end, l->raw_bytes, (struct place){ before, MAX(before, l->end) });
}

static bool group_add(struct work *w, struct join_stream *s, const struct whole *l)
{
    bool is_new = !s->group.is_active;
    if (!is_new && pending_add(&s->group, SLICE("\n"), l->start, l->start) < 0)
        return false;
    if (pending_add(&s->group, l->text, l->start, l->end) < 0)
        return false;
    s->group.raw_bytes += l->raw_bytes - (l->end - l->start); /* lines of other streams may lie between its pieces */
    s->group.is_cut |= l->is_cut;
    if (is_new) {
        s->group.has_time = l->has_time;
        s->group.time_ns = l->time_ns;
    }
    s->flush_at_ns = w->p->mono_ns + MULTILINE_WAIT_NS;
    tail_wake_at(w->source->file, s->flush_at_ns);
    return true;
}

/* current: where the raw line in work starts; the pieces before it, if any, are in the stream's part. */
static void whole_line(struct work *w, const struct whole *l, uint64_t current)
{
    struct multiline *m = w->p->multilines[w->source->input_index];
    struct join *j = w->pass->state;
    bool has_group = j != NULL && j->streams[l->stream].group.is_active;
    if (m == NULL || (!has_group && multiline_is_single(m, l->text))) {
        if (j != NULL)
            j->streams[l->stream].part.is_active = false;
        single(w, l, current);
        return;
    }
    if ((j = join_of(w)) == NULL) { /* no memory to wait with: the line goes as it is */
        single(w, l, current);
        return;
    }
    struct join_stream *s = &j->streams[l->stream];
    bool is_more = has_group && s->state.n_lines < MULTILINE_LINES_MAX &&
                   multiline_continues(m, &s->state, l->text);
    if (has_group && !is_more)
        group_flush(w, l->stream, current);
    s->part.is_active = false;
    if (!is_more && multiline_is_single(m, l->text)) {
        single(w, l, current);
        return;
    }
    if (!is_more)
        (void)multiline_continues(m, &s->state, l->text); /* starts a group */
    if (!group_add(w, s, l)) {
        if (s->group.is_active)
            group_flush(w, l->stream, current);
        single(w, l, current);
    }
}

/* No record by itself, but part of some groups: Python has one between two chained tracebacks. */
static void empty_line(struct work *w, const struct whole *l)
{
    struct join *j = w->pass->state;
    struct join_stream *s = j == NULL ? NULL : &j->streams[l->stream];
    if (s == NULL || !s->group.is_active)
        return;
    bool is_more = s->state.n_lines < MULTILINE_LINES_MAX &&
                   multiline_continues(w->p->multilines[w->source->input_index], &s->state, l->text);
    if (!is_more || !group_add(w, s, l))
        group_flush(w, l->stream, l->start);
}

/* All pieces are there: *l is made of the stream's part. One that began in another file joins no group, for it must be
 * placed before that file is let go. */
static void part_is_whole(struct work *w, const struct whole *l, uint64_t current)
{
    struct join *j = w->pass->state;
    struct join_stream *s = &j->streams[l->stream];
    if (s->lender == NULL) {
        whole_line(w, l, current);
    } else {
        if (s->group.is_active)
            group_flush(w, l->stream, current);
        s->part.is_active = false;
        single(w, l, current);
    }
    pending_end(&j->streams[l->stream].part);
    join_settle(j, l->stream);
}

/* ---- one raw line ---- */

/* A line of parts begins. What it does not continue ends here, and not when its last part comes: that may be in another
 * file. */
static void part_begins(struct work *w, const struct framed *fr, uint64_t off)
{
    struct join *j = w->pass->state;
    struct join_stream *s = j == NULL ? NULL : &j->streams[fr->stream];
    if (s == NULL || !s->group.is_active)
        return;
    struct multiline_state state = s->state; /* it changes when the line is whole */
    if (s->state.n_lines >= MULTILINE_LINES_MAX ||
        !multiline_continues(w->p->multilines[w->source->input_index], &state, fr->content))
        group_flush(w, fr->stream, off);
}

/* Is this line one that the outputs of a resumed pass have not had? */
static bool is_wanted_again(const struct tail_pass *pass, enum record_stream stream, uint64_t off)
{
    for (uint8_t i = 0; i < pass->n_parts; i++)
        if (pass->parts[i].stream == (uint8_t)stream && off >= pass->parts[i].start)
            return true;
    return false;
}

/* Is this line the rest of a record whose first part is not read again? */
static bool is_skipped(struct tail_pass *pass, const struct framed *fr)
{
    unsigned bit = 1u << fr->stream;
    if (!(pass->skips & bit))
        return false;
    if (!fr->is_framed || !fr->is_partial)
        pass->skips &= (uint8_t)~bit;
    return fr->is_framed;
}

/* The line ends here, unfinished: the file does, or there is no memory for the next piece, which then is a line of its
 * own. */
static void part_ends(struct work *w, enum record_stream stream, uint64_t at)
{
    struct join *j = w->pass->state;
    const struct pending *part = &j->streams[stream].part;
    const struct whole l = { .text = buf_slice(&part->text), .stream = stream,         .start = part->start,
                             .end = part->end,               .raw_bytes = part->raw_bytes, .has_time = part->has_time,
                             .time_ns = part->time_ns,       .is_cut = part->is_cut,   .is_unfinished = true,
                             .is_split = true };
    part_is_whole(w, &l, at);
}

/* One more piece; the first gives the time. NULL: no memory to wait with; it is a line of its own. */
static struct pending *add_part(struct work *w, const struct framed *fr, uint64_t off, uint64_t end)
{
    struct join *j = join_of(w);
    struct pending *part = j == NULL ? NULL : &j->streams[fr->stream].part;
    if (part == NULL)
        return NULL;
    if (!part->is_active) {
        part->has_time = fr->has_time;
        part->time_ns = fr->time_ns;
    }
    if (pending_add(part, fr->content, off, end) < 0) {
        log_warn("pipeline", "memory.tight", "lines of several pieces take too much memory: they are shipped in pieces",
                 LOG_SLICE("file", w->source->origin->file));
        if (part->is_active)
            part_ends(w, fr->stream, off);
        return NULL;
    }
    return part;
}

/* An output of this pass has an unfinished part in this one of the file before. */
static struct join *find_lender(const struct work *w, struct join *list, enum record_stream stream)
{
    struct join *lender = NULL;
    for (uint32_t rest = w->pass->mask; rest != 0 && lender == NULL; rest &= rest - 1)
        lender = join_find_part(list, stream, rest & -rest);
    return lender;
}

/* Does [0, off) hold a line of this stream? What is there was read before a restart, and who read it is gone. A read that fails says
 * nothing. What was framed before is void. */
static bool has_line_before(const struct work *w, enum record_stream stream, uint64_t off)
{
    char *raw = malloc(LOOK_CHUNK_BYTES);
    bool has = false;
    ssize_t n = 1;
    for (uint64_t at = 0; raw != NULL && !has && n > 0 && at < MIN(off, LOOK_BYTES_MAX); at += (uint64_t)n) {
        n = tail_read_before(w->source->file, raw, (size_t)MIN(off - at, LOOK_CHUNK_BYTES), at);
        struct slice rest = slice_of(raw, (size_t)MAX(n, 0));
        for (ptrdiff_t lf; !has && (lf = slice_find_byte(rest, '\n')) >= 0; rest = slice_from(rest, (size_t)lf + 1)) {
            struct framed fr;
            parser_frame(w->p->parsers[w->source->input_index], slice_first(rest, (size_t)lf), w->p->wall_ns, &fr);
            has = fr.is_framed && fr.stream == stream;
        }
        if (n > (ssize_t)rest.len)
            n -= (ssize_t)rest.len; /* the line that it ends in begins the next chunk */
    }
    free(raw);
    return has;
}

/* The file before this one, when its half line of this stream may go on here: no line of the stream is before off. */
static struct source *find_before(const struct work *w, struct slice line, struct framed *fr, uint64_t off)
{
    uint64_t *first = &w->source->first_off[fr->stream];
    struct source *before = off > *first ? NULL : tail_predecessor(w->source->file);
    bool has_news = before != NULL && ((w->pass->mask & tail_behind(w->source->file)) != 0 ||
                                       find_lender(w, before->joins, fr->stream) != NULL);
    if (!has_news || off == 0)
        return before;
    const bool has = has_line_before(w, fr->stream, off);
    parser_frame(w->p->parsers[w->source->input_index], line, w->p->wall_ns, fr);
    if (has)
        *first = 0; /* asked once */
    return has ? NULL : before;
}

/* The half line that the file before ended with, when this one goes on with it. Outputs of this pass that stand elsewhere in
 * the file before go on by themselves from here; those that have the same half there and are not in this pass read it again. */
static bool borrow_part(struct work *w, struct slice line, struct framed *fr, uint64_t off)
{
    const enum record_stream stream = fr->stream;
    struct source *before = find_before(w, line, fr, off);
    for (uint32_t rest = before == NULL ? 0 : w->pass->mask & tail_behind(w->source->file); rest != 0; rest &= rest - 1)
        pipeline_part(w, (uint32_t)__builtin_ctz(rest), off, true); /* what goes on here is not known for them */
    struct join *lender = before == NULL ? NULL : find_lender(w, before->joins, stream);
    for (uint32_t rest = lender == NULL ? 0 : w->pass->mask & ~lender->pass->mask; rest != 0; rest &= rest - 1)
        pipeline_part(w, (uint32_t)__builtin_ctz(rest), off, w->p->conf.feeders[__builtin_ctz(rest)].is_blocked);
    struct join *j = lender == NULL ? NULL : join_of(w);
    if (j == NULL || join_borrow(j, lender, stream, off) < 0)
        return false;
    for (uint32_t rest = lender->pass->mask & ~w->pass->mask; rest != 0; rest &= rest - 1)
        join_leave(lender, (uint32_t)__builtin_ctz(rest));
    return true;
}

static void raw_line(struct work *w, struct slice line, uint64_t off, uint64_t end, bool is_unfinished, bool is_cut)
{
    struct pipeline *p = w->p;
    struct framed fr;
    if (line.len > LINE_BYTES_MAX) { /* its newline was read with it */
        line.len = LINE_BYTES_MAX;
        is_cut = true;
    }
    parser_frame(p->parsers[w->source->input_index], line, p->wall_ns, &fr);
    w->source->first_off[fr.stream] = MIN(w->source->first_off[fr.stream], off);
    if (off < w->pass->resume_until && !is_wanted_again(w->pass, fr.stream, off))
        return;
    if (is_skipped(w->pass, &fr))
        return;
    struct join *j = w->pass->state;
    bool is_partial = fr.is_framed && fr.is_partial;
    bool has_part = j != NULL && j->streams[fr.stream].part.is_active;
    if (!has_part && fr.is_framed && !w->pass->is_again)
        has_part = borrow_part(w, line, &fr, off);
    if (w->pass->mask == 0)
        return; /* all have left before it */
    struct whole l = { .text = fr.content,     .stream = fr.stream,    .start = off,
                       .end = end,             .raw_bytes = end - off, .has_time = fr.has_time,
                       .time_ns = fr.time_ns,  .is_cut = is_cut,       .is_unfinished = is_unfinished };
    if (!has_part && !is_partial) {
        if (fr.content.len > 0 || fr.is_framed)
            whole_line(w, &l, off);
        else
            empty_line(w, &l);
        return;
    }
    if (!has_part)
        part_begins(w, &fr, off);
    struct pending *part = add_part(w, &fr, off, end);
    if (part == NULL)
        return whole_line(w, &l, off);
    if (is_partial)
        return;
    l = (struct whole){ .text = buf_slice(&part->text), .stream = fr.stream,         .start = part->start,
                        .end = end,                     .raw_bytes = part->raw_bytes, .has_time = part->has_time,
                        .time_ns = part->time_ns,       .is_cut = part->is_cut,       .is_unfinished = is_unfinished };
    part_is_whole(w, &l, off);
}

/* ---- a turn's bytes ---- */

static void flush_due(struct work *w, uint64_t at, bool is_last)
{
    struct join *j = w->pass->state;
    for (int i = 0; j != NULL && i < STREAMS_MAX; i++) {
        struct join_stream *s = &j->streams[i];
        if (is_last && s->part.is_active && s->borrower == NULL)
            part_ends(w, (enum record_stream)i, at);
        if (s->group.is_active && (is_last || w->p->mono_ns >= s->flush_at_ns))
            group_flush(w, (enum record_stream)i, at);
    }
}

/* A line longer than LINE_BYTES_MAX: its first part is a record; the rest, up to the newline, is skipped. */
static size_t cut_line(struct work *w, const struct feed *feed)
{
    w->pass->skip_to_newline = true;
    raw_line(w, slice_first(feed->bytes, LINE_BYTES_MAX), feed->off, feed->off + feed->bytes.len, false, true);
    return feed->bytes.len;
}

static size_t skip_rest(struct work *w, const struct feed *feed)
{
    ptrdiff_t lf = slice_find_byte(feed->bytes, '\n');
    size_t n = lf < 0 ? feed->bytes.len : (size_t)lf + 1;
    w->pass->skip_to_newline = lf < 0;
    if (feed->off >= w->pass->resume_until && n > 0)
        pipeline_skip(w, feed->off, feed->off + n);
    return n;
}

static size_t feed_lines(struct work *w, const struct feed *feed)
{
    size_t at = w->pass->skip_to_newline ? skip_rest(w, feed) : 0;
    while (at < feed->bytes.len && w->pass->mask != 0) {
        struct slice rest = slice_from(feed->bytes, at);
        ptrdiff_t lf = slice_find_byte(rest, '\n');
        if (lf < 0 && BUG(12)) /* the position is past what was read */
            return feed->bytes.len;
        if (lf < 0)
            break;
        raw_line(w, slice_first(rest, (size_t)lf), feed->off + at, feed->off + at + (size_t)lf + 1, false, false);
        at += (size_t)lf + 1;
    }
    return at;
}

size_t lines_feed(struct pipeline *p, struct source *s, struct tail_pass *pass, const struct feed *feed)
{
    struct work w = { .p = p, .source = s, .pass = pass };
    p->mono_ns = clock_mono_ns();
    p->wall_ns = clock_wall_ns();
    size_t at = feed_lines(&w, feed);
    struct slice rest = slice_from(feed->bytes, at);
    if (pass->mask == 0)
        return at;
    if (feed->is_last && rest.len > 0 && !pass->skip_to_newline) {
        raw_line(&w, rest, feed->off + at, feed->off + feed->bytes.len, true, false);
        at = feed->bytes.len;
    } else if (feed->is_full && at == 0 && rest.len >= LINE_BYTES_MAX) {
        at = cut_line(&w, feed);
    }
    if (pass->mask != 0)
        flush_due(&w, feed->off + at, feed->is_last);
    int64_t flush_at = join_flush_at(pass->state);
    if (flush_at != INT64_MAX)
        tail_wake_at(w.source->file, flush_at);
    if (pass->state != NULL && join_is_idle(pass->state)) {
        join_free(pass->state); /* ten thousand quiet files must stay small */
        pass->state = NULL;
    }
    return at;
}
