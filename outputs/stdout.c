/*
 * The stdout output: a line a record on descriptor 1, for people or for the next program. At least once.
 *
 * In the short form a newline inside a message travels as a vertical tab (all other control bytes are replaced, so that
 * no log line can steer the terminal) and becomes an indented line when it is written.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "outputs/ndjson.h"
#include "outputs/output.h"

/* A pipe that poll calls writable takes this much without waiting. */
#define WRITE_BYTES 4096
/* How long a slow reader may hold the sender thread in one call. */
#define WAIT_MS 50
#define NEWLINE_INSIDE '\v'

enum stdout_format { STDOUT_AUTO, STDOUT_JSON, STDOUT_SHORT };

struct stdout_settings {
    int format; /* enum stdout_format */
};

struct stdout_out {
    struct output base; /* first */
    bool is_short, has_color;
    struct enricher *enrich; /* reader */
    /* sender: a frame that is written in part */
    uint64_t seq;
    struct buf text;
    size_t done;
};

static const char *const format_choices[] = { [STDOUT_AUTO] = "auto", [STDOUT_JSON] = "json", [STDOUT_SHORT] = "short",
                                              NULL };

static const struct setting settings[] = {
    { .key = "format", .type = SETTING_ENUM, .offset = offsetof(struct stdout_settings, format), .def = "auto",
      .choices = format_choices, .help = "json, short for people, or auto: short on a terminal." },
    SETTING_END,
};

const struct output_type stdout_type = {
    .name = "stdout",
    .settings = settings,
    .settings_size = sizeof(struct stdout_settings),
};

/* ---- open and close ---- */

static void close_output(struct output *out)
{
    struct stdout_out *s = (struct stdout_out *)out;
    if (s == NULL)
        return;
    bodies_deinit(&s->base.open);
    enricher_free(s->enrich);
    buf_deinit(&s->text);
    free(s);
}

static int open_output(const struct output_conf *conf, struct output **ret_out, struct err *err)
{
    struct stdout_out *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return err_set(err, -ENOMEM, "cannot open output %.*s", SLICE_ARGS(conf->name));
    const struct stdout_settings *set = conf->settings;
    bool is_terminal = isatty(STDOUT_FILENO) == 1;
    s->base.ops = &stdout_ops;
    s->base.conf = conf;
    s->is_short = set->format == STDOUT_SHORT || (set->format == STDOUT_AUTO && is_terminal);
    s->has_color = is_terminal && getenv("NO_COLOR") == NULL;
    buf_init(&s->text, NDJSON_DECODED_MAX);
    int r = bodies_init(&s->base.open, (size_t)conf->queue.batch_bytes + NDJSON_LINE_MAX);
    if (r == 0)
        r = enricher_new(ENRICH_PLAIN, ndjson_extra_names, ARRAY_LEN(ndjson_extra_names), &s->enrich);
    if (r < 0) {
        close_output(&s->base);
        return err_set(err, r, "cannot open output %.*s", SLICE_ARGS(conf->name));
    }
    /* A reader that goes away is an error of write(), not the end of the agent. */
    (void)signal(SIGPIPE, SIG_IGN);
    *ret_out = &s->base;
    return 0;
}

static const struct slice *trusted(const struct output *out, size_t *n)
{
    return enricher_names(((const struct stdout_out *)out)->enrich, n);
}

/* ---- the short form ---- */

static int color(const struct stdout_out *s, const char *code, struct buf *raw)
{
    return s->has_color ? buf_printf(raw, "\033[%sm", code) : 0;
}

/* What may be shown: no control bytes (C0, DEL, C1), nothing that is not UTF-8. */
static int append_shown(struct slice text, struct buf *raw)
{
    int r = buf_reserve(raw, text.len);
    for (size_t i = 0; i < text.len && r == 0;) {
        size_t valid = slice_utf8_valid(slice_from(text, i));
        size_t end = valid == 0 ? i + 1 : i + valid;
        for (; i < end && r == 0; i++) {
            unsigned char c = (unsigned char)text.ptr[i];
            bool is_c1 = c == 0xc2 && i + 1 < end && (unsigned char)text.ptr[i + 1] < 0xa0;
            if (c == '\n')
                c = NEWLINE_INSIDE;
            else if (valid == 0 || (c < 0x20 && c != '\t') || c == 0x7f || is_c1)
                c = '?';
            i += is_c1;
            r = buf_append_byte(raw, (char)c);
        }
    }
    return r;
}

static const char *level_color(enum level level)
{
    switch (level) {
    case LEVEL_FATAL:
    case LEVEL_ERROR: return "31";
    case LEVEL_WARN: return "33";
    case LEVEL_INFO: return "32";
    case LEVEL_DEBUG: return "34";
    case LEVEL_TRACE:
    case LEVEL_UNKNOWN:
    case LEVEL_OFF: break;
    }
    return "2";
}

static int append_level(const struct stdout_out *s, enum level level, struct buf *raw)
{
    struct slice name = level == LEVEL_UNKNOWN ? SLICE("-") : level_name(level);
    int r = color(s, level_color(level), raw);
    for (size_t i = 0; i < 5 && r == 0; i++) {
        char c = i < name.len ? name.ptr[i] : ' ';
        r = buf_append_byte(raw, c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c);
    }
    return r < 0 ? r : color(s, "0", raw);
}

/* A word in a color and a blank behind it; nothing when it is empty. */
static int append_word(const struct stdout_out *s, struct slice word, const char *code, struct buf *raw)
{
    if (word.len == 0)
        return 0;
    int r = color(s, code, raw);
    if (r == 0)
        r = append_shown(word, raw);
    if (r == 0)
        r = color(s, "0", raw);
    return r < 0 ? r : buf_append_byte(raw, ' ');
}

/* 2026-01-02T03:04:05.678Z INFO  service module message */
static int append_short(const struct stdout_out *s, const struct record *rec, struct slice message, struct buf *raw)
{
    struct slice service = rec->origin->service.len > 0 ? rec->origin->service : rec->origin->file_stem;
    int r = color(s, "2", raw);
    if (r == 0)
        r = clock_append_rfc3339(raw, rec->time_ns, 3);
    if (r == 0)
        r = color(s, "0", raw);
    if (r == 0)
        r = buf_append_byte(raw, ' ');
    if (r == 0)
        r = append_level(s, rec->level, raw);
    if (r == 0)
        r = buf_append_byte(raw, ' ');
    if (r == 0)
        r = append_word(s, service, "36", raw);
    if (r == 0)
        r = append_word(s, rec->module, "2", raw);
    if (r == 0)
        r = append_shown(message, raw);
    return r < 0 ? r : buf_append_byte(raw, '\n');
}

static int append_line(const struct stdout_out *s, const struct record *rec, bool is_empty, struct buf *raw,
                       uint32_t *altered)
{
    if (!s->is_short)
        return ndjson_append(s->enrich, rec, is_empty, raw, altered);
    size_t before = raw->len;
    struct slice message = rec->message.len > 0 ? rec->message : rec->line;
    int r = append_short(s, rec, message, raw);
    if (r == -ENOBUFS && is_empty) {
        raw->len = before;
        *altered |= 1u << ALTER_CUT;
        r = append_short(s, rec, slice_first(message, (raw->max - before) / 8), raw);
    }
    if (r < 0)
        raw->len = before;
    return r;
}

/* ---- reader and writer ---- */

static int append(struct output *out, const struct record *rec, struct append_result *ret)
{
    struct stdout_out *s = (struct stdout_out *)out;
    if (bodies_hold(&out->open, SLICE(""), rec)) {
        *ret = (struct append_result){ .is_filtered = true };
        return 0;
    }
    struct body *b = bodies_get(&out->open, SLICE(""));
    if (b == NULL)
        return -ENOMEM;
    size_t before = b->raw.len;
    uint32_t altered = 0;
    int r = append_line(s, rec, b->lines == 0, &b->raw, &altered);
    if (r == 0)
        r = body_count(b, rec);
    if (r < 0) {
        b->raw.len = before;
        return r;
    }
    b->raw_bytes += b->raw.len - before;
    out->open.raw_bytes += b->raw.len - before;
    *ret = (struct append_result){ .body = b, .altered = altered };
    return 0;
}

static void discard(struct output *out, struct body *b)
{
    (void)out;
    (void)b; /* no parts: all is in raw */
}

static int explain(struct output *out, const struct record *rec, struct buf *text)
{
    uint32_t altered = 0;
    return append_line((struct stdout_out *)out, rec, true, text, &altered);
}

static int seal(struct output *out, struct body *b, struct buf *wire)
{
    (void)out;
    int r = body_end_runs(b);
    return r < 0 ? r : buf_append_slice(wire, buf_slice(&b->raw));
}

/* ---- sender ---- */

/* The frame's lines as they will be written: newlines inside messages are real again. */
static int prepare(struct stdout_out *s, struct slice wire)
{
    buf_reset(&s->text);
    s->done = 0;
    for (struct slice rest = wire; rest.len > 0;) {
        ptrdiff_t at = slice_find_byte(rest, NEWLINE_INSIDE);
        int r = buf_append_slice(&s->text, at < 0 ? rest : slice_first(rest, (size_t)at));
        if (r == 0 && at >= 0)
            r = buf_append_lit(&s->text, "\n    ");
        if (r < 0)
            return r;
        rest = at < 0 ? SLICE("") : slice_from(rest, (size_t)at + 1);
    }
    return 0;
}

/* Writes what can be written without waiting longer than WAIT_MS at a time: the thread has other outputs to serve. */
static int write_some(struct stdout_out *s)
{
    while (s->done < s->text.len) {
        struct pollfd p = { .fd = STDOUT_FILENO, .events = POLLOUT };
        int n = poll(&p, 1, WAIT_MS);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -EAGAIN;
        ssize_t w = write(STDOUT_FILENO, s->text.ptr + s->done, MIN(s->text.len - s->done, (size_t)WRITE_BYTES));
        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0)
            return -errno;
        s->done += (size_t)w;
    }
    return 0;
}

static int deliver(struct output *out, const struct frame_ref *frame, struct err *err)
{
    struct stdout_out *s = (struct stdout_out *)out;
    int r = 0;
    if (s->seq != frame->seq || s->text.len == 0) { /* else it goes on where it stopped */
        r = prepare(s, frame->wire);
        s->seq = frame->seq;
    }
    if (r == 0)
        r = write_some(s);
    if (r < 0)
        return err_set(err, r, "cannot write to stdout");
    buf_reset(&s->text);
    buf_shrink(&s->text, 1 * MIB);
    return 0;
}

static int checkpoint(struct output *out, uint64_t seq, struct err *err)
{
    (void)out;
    (void)seq;
    (void)err;
    return 0;
}

static uint64_t delivered(const struct output *out)
{
    (void)out;
    return 0;
}

static int items(const struct output *out, struct slice wire, struct slice route, struct items *ret)
{
    (void)out;
    struct items it = { 0 };
    buf_init(&it.raw, NDJSON_DECODED_MAX);
    int r = buf_append_slice(&it.raw, wire);
    if (r == 0)
        r = ndjson_split(route, &it);
    if (r < 0) {
        items_deinit(&it);
        return r;
    }
    *ret = it;
    return 0;
}

static int build(struct output *out, const struct items *items_, const uint8_t *choose, bool as_text, struct buf *wire)
{
    (void)out;
    (void)as_text; /* nothing is refused */
    return ndjson_join(items_, choose, wire);
}

/* A short line as JSON, without its colors. */
static int print_short(struct slice line, struct buf *ndjson)
{
    int r = buf_append_lit(ndjson, "{\"message\":\"");
    while (line.len > 0 && r == 0) {
        ptrdiff_t at = slice_find_byte(line, '\033');
        r = buf_append_json_escaped(ndjson, at < 0 ? line : slice_first(line, (size_t)at));
        line = at < 0 ? SLICE("") : slice_from(line, (size_t)at);
        ptrdiff_t end = slice_find_byte(line, 'm');
        line = slice_from(line, end < 0 ? line.len : (size_t)end + 1);
    }
    return r < 0 ? r : buf_append_lit(ndjson, "\"}");
}

static int print(const struct output *out, const struct items *items_, struct buf *ndjson)
{
    (void)out;
    size_t before = ndjson->len;
    int r = 0;
    for (size_t i = 0; i < items_->n && r == 0; i++) {
        struct slice line = items_->item[i].data;
        bool is_json = line.len > 0 && line.ptr[0] == '{';
        r = is_json ? buf_append_slice(ndjson, line) : print_short(line, ndjson);
        if (r == 0)
            r = buf_append_byte(ndjson, '\n');
    }
    if (r < 0)
        ndjson->len = before;
    return r;
}

const struct output_ops stdout_ops = {
    .type = &stdout_type,
    .wire_form = WIRE_NDJSON,
    .is_local = true,
    .open = open_output,
    .close = close_output,
    .trusted = trusted,
    .append = append,
    .discard = discard,
    .explain = explain,
    .seal = seal,
    .items = items,
    .build = build,
    .deliver = deliver,
    .checkpoint = checkpoint,
    .delivered = delivered,
    .print = print,
};
