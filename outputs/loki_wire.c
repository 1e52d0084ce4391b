/*
 * Loki's bytes: labels, entries, whole requests, and back. Part of loki.h. The messages (proto3, logproto):
 *
 *   PushRequest { repeated Stream streams = 1; }
 *   Stream      { string labels = 1; repeated Entry entries = 2; }
 *   Entry       { Timestamp timestamp = 1; string line = 2; repeated LabelPair structuredMetadata = 3; }
 *   Timestamp   { int64 seconds = 1; int32 nanos = 2; }      LabelPair { string name = 1; string value = 2; }
 */
#include "outputs/loki.h"

#include <assert.h>
#include <errno.h>

#include "agent/base/clock.h"
#include "outputs/codec/protobuf.h"
#include "outputs/codec/snappy.h"

enum {
    PUSH_STREAMS = 1,
    STREAM_LABELS = 1,
    STREAM_ENTRIES = 2,
    ENTRY_TIME = 1,
    ENTRY_LINE = 2,
    ENTRY_METADATA = 3,
    TIME_SECONDS = 1,
    TIME_NANOS = 2,
    PAIR_NAME = 1,
    PAIR_VALUE = 2
};

#define TIME_BYTES_MAX (2 * (1 + PB_VARINT_MAX))

/* ---- text that Loki can hold ---- */

/* The length of the character that s begins with; *ret_good: it may stand in a label. A byte that begins none
 * is a bad one of length 1. Loki's lexer takes U+FFFD for broken UTF-8, even when it was sent so. */
static size_t next_char(struct slice s, bool *ret_good)
{
    unsigned char c = (unsigned char)s.ptr[0];
    size_t want = c < 0xc0 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    struct slice one = slice_first(s, want);
    if (slice_utf8_valid(one) != want) {
        *ret_good = false;
        return 1;
    }
    *ret_good = !slice_eq(one, SLICE("\xef\xbf\xbd"));
    return want;
}

/* Inside double quotes as Go's strconv.Quote writes it, so that Loki's messages show the labels as we have
 * them. */
static int append_quoted_byte(struct buf *out, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    static const char letters[] = "abtnvfr"; /* 0x07 … 0x0d */
    if (c == '"' || c == '\\')
        return buf_append(out, (char[]){ '\\', (char)c }, 2);
    if (c >= 0x07 && c <= 0x0d)
        return buf_append(out, (char[]){ '\\', letters[c - 0x07] }, 2);
    if (c < 0x20 || c == 0x7f)
        return buf_append(out, (char[]){ '\\', 'x', hex[c >> 4], hex[c & 15] }, 4);
    return buf_append_byte(out, (char)c);
}

static bool is_plain_label(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c < 0x20 || c >= 0x7f || c == '"' || c == '\\')
            return false;
    }
    return true;
}

static int append_quoted(struct buf *out, struct slice s)
{
    if (is_plain_label(s))
        return buf_append_slice(out, s);
    int r = 0;
    while (r == 0 && s.len > 0) {
        bool is_good;
        size_t n = next_char(s, &is_good);
        if (!is_good)
            r = buf_append_byte(out, '?');
        else if (n > 1)
            r = buf_append(out, s.ptr, n);
        else
            r = append_quoted_byte(out, (unsigned char)s.ptr[0]);
        s = slice_from(s, n);
    }
    return r;
}

int loki_append_label(struct buf *out, struct slice name, struct slice value)
{
    size_t len_before = out->len;
    int r = 0;
    if (out->len > 0 && out->ptr[out->len - 1] != '{')
        r = buf_append_lit(out, ", ");
    if (r == 0)
        r = buf_append_slice(out, name);
    if (r == 0)
        r = buf_append_lit(out, "=\"");
    if (r == 0)
        r = append_quoted(out, slice_first(value, LOKI_LABEL_VALUE_MAX));
    if (r == 0)
        r = buf_append_byte(out, '"');
    if (r < 0)
        out->len = len_before;
    return r;
}

int loki_append_metadata(struct buf *out, struct slice name, struct slice value)
{
    size_t pair = pb_bytes_size(name.len) + pb_bytes_size(value.len);
    int r = buf_reserve(out, pb_bytes_size(pair));
    if (r < 0)
        return r;
    char *at = out->ptr + out->len;
    at += pb_put_bytes_head(at, ENTRY_METADATA, pair);
    at += pb_put_bytes(at, PAIR_NAME, name);
    at += pb_put_bytes(at, PAIR_VALUE, value);
    char *end = at, *text = at - value.len;
    size_t bad;
    while ((bad = slice_utf8_valid(slice_of(text, (size_t)(end - text)))) < (size_t)(end - text)) {
        text[bad] = '?';
        text += bad + 1;
    }
    out->len = (size_t)(end - out->ptr);
    return 0;
}

/* ---- entries ---- */

/* The Timestamp message into at; its length. nanos are never negative, so seconds are floored. */
static size_t put_time(char *at, int64_t time_ns)
{
    int64_t seconds = time_ns / NS_PER_SEC, nanos = time_ns % NS_PER_SEC;
    if (nanos < 0) {
        nanos += NS_PER_SEC;
        seconds--;
    }
    size_t n = pb_put_uint(at, TIME_SECONDS, (uint64_t)seconds);
    return n + (nanos == 0 ? 0 : pb_put_uint(at + n, TIME_NANOS, (uint64_t)nanos));
}

static size_t entry_content_size(size_t time_len, struct slice line, struct slice metadata)
{
    return pb_bytes_size(time_len) + pb_bytes_size(line.len) + metadata.len;
}

size_t loki_entry_most(struct slice line, struct slice metadata)
{
    return pb_bytes_size(entry_content_size(TIME_BYTES_MAX, line, metadata));
}

static int append_field(struct buf *out, unsigned number, struct slice s)
{
    int r = buf_reserve(out, pb_bytes_size(s.len));
    if (r == 0)
        out->len += pb_put_bytes(out->ptr + out->len, number, s);
    return r;
}

int loki_begin_stream(struct buf *out, struct slice labels)
{
    return append_field(out, STREAM_LABELS, labels);
}

int loki_append_entry(struct buf *out, int64_t time_ns, struct slice line, struct slice metadata)
{
    char time[TIME_BYTES_MAX];
    size_t time_len = put_time(time, time_ns);
    size_t content = entry_content_size(time_len, line, metadata);
    int r = buf_reserve(out, pb_bytes_size(content));
    if (r < 0)
        return r;
    char *at = out->ptr + out->len;
    at += pb_put_bytes_head(at, STREAM_ENTRIES, content);
    at += pb_put_bytes(at, ENTRY_TIME, slice_of(time, time_len));
    at += pb_put_bytes(at, ENTRY_LINE, line);
    if (metadata.len > 0)
        memcpy(at, metadata.ptr, metadata.len);
    out->len = (size_t)(at + metadata.len - out->ptr);
    return 0;
}

static int read_time(struct slice msg, int64_t *ret_ns)
{
    int64_t seconds = 0, nanos = 0, ns;
    struct pb_field f;
    int r;
    while ((r = pb_next(&msg, &f)) > 0) {
        if (f.wire != PB_VARINT || (f.number != TIME_SECONDS && f.number != TIME_NANOS))
            return -EBADMSG;
        *(f.number == TIME_SECONDS ? &seconds : &nanos) = (int64_t)f.value;
    }
    if (r < 0 || nanos < 0 || nanos >= NS_PER_SEC || __builtin_mul_overflow(seconds, NS_PER_SEC, &ns) ||
        __builtin_add_overflow(ns, nanos, &ns))
        return -EBADMSG;
    *ret_ns = ns;
    return 0;
}

static int read_pair(struct slice msg, struct slice *ret_name, struct slice *ret_value)
{
    struct pb_field f;
    int r;
    *ret_name = *ret_value = SLICE("");
    while ((r = pb_next(&msg, &f)) > 0) {
        if (f.wire != PB_BYTES || (f.number != PAIR_NAME && f.number != PAIR_VALUE))
            return -EBADMSG;
        *(f.number == PAIR_NAME ? ret_name : ret_value) = f.bytes;
    }
    return r;
}

static int read_entry_field(const struct pb_field *f, struct loki_entry *e,
                            int (*each)(void *ctx, struct slice name, struct slice value), void *ctx)
{
    struct slice name, value;
    if (f->wire != PB_BYTES)
        return -EBADMSG;
    switch (f->number) {
    case ENTRY_TIME:
        return read_time(f->bytes, &e->time_ns);
    case ENTRY_LINE:
        e->line = f->bytes;
        return 0;
    case ENTRY_METADATA:
        if (read_pair(f->bytes, &name, &value) < 0)
            return -EBADMSG;
        e->metadata_pairs++;
        e->metadata_bytes += name.len + value.len;
        return each == NULL ? 0 : each(ctx, name, value);
    }
    return -EBADMSG;
}

int loki_read_entry(struct slice msg, struct loki_entry *ret_entry,
                    int (*each)(void *ctx, struct slice name, struct slice value), void *ctx)
{
    struct loki_entry e = { .line = SLICE("") };
    struct pb_field f;
    int r;
    while ((r = pb_next(&msg, &f)) > 0) {
        r = read_entry_field(&f, &e, each, ctx);
        if (r < 0)
            return r;
    }
    if (r == 0)
        *ret_entry = e;
    return r;
}

int loki_read_entry_field(struct slice field, struct loki_entry *ret_entry,
                          int (*each)(void *ctx, struct slice name, struct slice value), void *ctx)
{
    struct pb_field f;
    int r = pb_next(&field, &f);
    if (r <= 0 || f.wire != PB_BYTES || f.number != STREAM_ENTRIES)
        return -EBADMSG;
    return loki_read_entry(f.bytes, ret_entry, each, ctx);
}

/* ---- label sets ---- */

static bool is_name_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* Skips the opening brace, or a comma and blanks. */
static bool next_is_label(struct slice s, size_t *at)
{
    if (*at == 0) {
        if (s.len == 0 || s.ptr[0] != '{')
            return false;
        *at = 1;
    } else if (*at < s.len && s.ptr[*at] == ',') {
        (*at)++;
        while (*at < s.len && s.ptr[*at] == ' ')
            (*at)++;
    }
    return true;
}

bool loki_next_label(struct slice labels, size_t *at, struct slice *ret_name, struct slice *ret_value)
{
    size_t i = *at;
    *at = 0;
    if (!next_is_label(labels, &i))
        return false;
    if (i < labels.len && labels.ptr[i] == '}') {
        *at = i + 1;
        return false;
    }
    size_t name = i;
    while (i < labels.len && is_name_byte(labels.ptr[i]))
        i++;
    *ret_name = slice_of(labels.ptr + name, i - name);
    if (ret_name->len == 0 || !slice_starts(slice_from(labels, i), SLICE("=\"")))
        return false;
    size_t value = i += 2;
    while (i < labels.len && labels.ptr[i] != '"')
        i += labels.ptr[i] == '\\' ? 2 : 1;
    if (i >= labels.len)
        return false;
    *ret_value = slice_of(labels.ptr + value, i - value);
    *at = i + 1;
    return true;
}

static size_t put_utf8(unsigned long c, char bytes[4])
{
    if (c < 0x80) {
        bytes[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        bytes[0] = (char)(0xc0 | c >> 6);
        bytes[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        bytes[0] = (char)(0xe0 | c >> 12);
        bytes[1] = (char)(0x80 | (c >> 6 & 0x3f));
        bytes[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    bytes[0] = (char)(0xf0 | (c >> 18 & 7));
    bytes[1] = (char)(0x80 | (c >> 12 & 0x3f));
    bytes[2] = (char)(0x80 | (c >> 6 & 0x3f));
    bytes[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

/* The number behind \x, \u or \U; digits are taken as far as they are there. */
static unsigned long take_hex(struct slice s, size_t *at, size_t digits)
{
    unsigned long v = 0;
    for (; digits > 0 && *at < s.len; digits--, (*at)++) {
        char c = s.ptr[*at];
        unsigned d = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                     : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10)
                     : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A' + 10)
                                            : 16;
        if (d == 16)
            break;
        v = v * 16 + d;
    }
    return v;
}

size_t loki_unescape(struct slice value, size_t *at, char bytes[4])
{
    static const char letters[] = "abtnvfr";
    char c = value.ptr[(*at)++];
    bytes[0] = c;
    if (c != '\\' || *at == value.len)
        return 1;
    c = value.ptr[(*at)++];
    const char *letter = c == '\0' ? NULL : strchr(letters, c);
    if (letter != NULL)
        bytes[0] = (char)(0x07 + (letter - letters));
    else if (c == 'x')
        bytes[0] = (char)take_hex(value, at, 2);
    else if (c == 'u' || c == 'U')
        return put_utf8(take_hex(value, at, c == 'u' ? 4 : 8), bytes);
    else
        bytes[0] = c;
    return 1;
}

/* ---- a body's end ---- */

/* Which line is whose, in the order of the streams. */
static int write_runs(struct body *b, const struct loki_parts *parts)
{
    int r = 0;
    buf_reset(&b->runs);
    if (b->n_rows <= 1)
        return 0;
    for (size_t i = 0; r == 0 && i < parts->n; i++) {
        const struct loki_part *p = parts->part[i];
        r = buf_append_slice(&b->runs, buf_slice(&p->runs));
        if (r == 0 && p->run_lines > 0)
            r = body_add_run(&b->runs, p->run_row, p->run_lines);
    }
    return r;
}

int loki_seal(struct output *out, struct body *b, struct buf *wire)
{
    (void)out;
    struct loki_parts *parts = b->parts;
    assert(parts != NULL && b->lines > 0);
    size_t total = 0;
    for (size_t i = 0; i < parts->n; i++)
        if (parts->part[i]->lines > 0)
            total += pb_bytes_size(parts->part[i]->msg.len);

    struct snappy_writer w;
    int r = snappy_writer_begin(&w, wire, total);
    for (size_t i = 0; r == 0 && i < parts->n; i++) {
        const struct loki_part *p = parts->part[i];
        if (p->lines == 0)
            continue;
        char head[1 + PB_VARINT_MAX];
        r = snappy_writer_add(&w, slice_of(head, pb_put_bytes_head(head, PUSH_STREAMS, p->msg.len)));
        if (r == 0)
            r = snappy_writer_add(&w, buf_slice(&p->msg));
    }
    r = snappy_writer_end(&w, r);
    return r < 0 ? r : write_runs(b, parts);
}

void loki_discard(struct output *out, struct body *b)
{
    (void)out;
    struct loki_parts *parts = b->parts;
    if (parts == NULL)
        return;
    for (size_t i = 0; i < parts->n; i++) {
        buf_deinit(&parts->part[i]->msg);
        buf_deinit(&parts->part[i]->runs);
        budget_free(parts->account, parts->part[i]);
    }
    budget_free(parts->account, parts->part);
    budget_free(parts->account, parts);
    b->parts = NULL;
}

/* ---- a request's lines ---- */

/* The labels stand first, as we write them. */
static int read_stream(struct slice msg, struct slice route, struct items *it)
{
    struct pb_field f;
    struct loki_entry e;
    struct slice labels = { NULL, 0 };
    int r;
    while ((r = pb_next(&msg, &f)) > 0) {
        if (f.wire != PB_BYTES || (f.number == STREAM_LABELS) != (labels.ptr == NULL))
            return -EBADMSG;
        if (f.number == STREAM_LABELS) {
            labels = f.bytes;
            continue;
        }
        if (f.number != STREAM_ENTRIES)
            return -EBADMSG;
        r = loki_read_entry(f.bytes, &e, NULL, NULL);
        if (r == 0)
            r = it->n >= LOKI_ITEMS_MAX ? -EBADMSG
                                        : items_add(it, (struct item){ .key = route, .head = labels, .data = f.bytes,
                                                                       .id = SLICE(""), .time_ns = e.time_ns });
        if (r < 0)
            return r;
    }
    return r;
}

static int read_push(struct slice msg, struct slice route, struct items *it)
{
    struct pb_field f;
    int r;
    while ((r = pb_next(&msg, &f)) > 0) {
        if (f.wire != PB_BYTES || f.number != PUSH_STREAMS)
            return -EBADMSG;
        r = read_stream(f.bytes, route, it);
        if (r < 0)
            return r;
    }
    return r;
}

int loki_items(const struct output *out, struct slice wire, struct slice route, struct items *ret)
{
    (void)out;
    struct items it = { 0 };
    buf_init_in(&it.raw, LOKI_DECODED_MAX, ACCOUNT_OF(MEMORY_SENDING));
    int r = snappy_block_decompress(wire, &it.raw);
    if (r == 0)
        r = read_push(buf_slice(&it.raw), route, &it);
    if (r < 0) {
        items_deinit(&it);
        return r == -ENOMEM ? r : -EBADMSG;
    }
    *ret = it;
    return 0;
}

/* The chosen items from i on that share its stream: how long their message is. *ret_end is behind the last.
 */
static size_t stream_size(const struct items *items, const uint8_t *choose, size_t i, size_t *ret_end)
{
    struct slice head = items->item[i].head;
    size_t size = pb_bytes_size(head.len);
    for (; i < items->n && slice_eq(items->item[i].head, head); i++)
        if (choose[i] != 0)
            size += pb_bytes_size(items->item[i].data.len);
    *ret_end = i;
    return size;
}

static int append_stream(struct buf *out, const struct items *items, const uint8_t *choose, size_t i,
                         size_t end, size_t size)
{
    char head[1 + PB_VARINT_MAX];
    int r = buf_append(out, head, pb_put_bytes_head(head, PUSH_STREAMS, size));
    if (r == 0)
        r = append_field(out, STREAM_LABELS, items->item[i].head);
    for (; r == 0 && i < end; i++)
        if (choose[i] != 0)
            r = append_field(out, STREAM_ENTRIES, items->item[i].data);
    return r;
}

int loki_build(struct output *out, const struct items *items, const uint8_t *choose, bool as_text,
               struct buf *wire)
{
    (void)out;
    (void)as_text; /* Loki takes every line as text already */
    struct buf push;
    buf_init_in(&push, LOKI_DECODED_MAX, ACCOUNT_OF(MEMORY_SENDING));
    int r = 0;
    for (size_t i = 0; r == 0 && i < items->n;) {
        size_t end = i + 1;
        if (choose[i] != 0) {
            size_t size = stream_size(items, choose, i, &end);
            r = append_stream(&push, items, choose, i, end, size);
        }
        i = end;
    }
    if (r == 0)
        r = snappy_block_compress(buf_slice(&push), wire);
    buf_deinit(&push);
    return r;
}

int loki_join(struct output *out, const struct slice *wires, size_t n, struct buf *wire)
{
    (void)out;
    size_t total = 0, len;
    for (size_t i = 0; i < n; i++) {
        int r = snappy_block_length(wires[i], &len);
        if (r < 0)
            return r;
        total += len;
    }
    return total > LOKI_RAW_MAX ? -ENOBUFS : snappy_join(wires, n, wire);
}

/* ---- for people ---- */

struct print {
    struct buf *out;
    size_t n;
};

static int print_member(struct print *p, struct slice name)
{
    int r = p->n++ == 0 ? 0 : buf_append_byte(p->out, ',');
    if (r == 0)
        r = buf_append_json_string(p->out, name);
    return r == 0 ? buf_append_byte(p->out, ':') : r;
}

static int print_metadata(void *ctx, struct slice name, struct slice value)
{
    struct print *p = ctx;
    int r = print_member(p, name);
    return r == 0 ? buf_append_json_string(p->out, value) : r;
}

static int print_labels(struct slice labels, struct buf *out)
{
    struct print p = { .out = out };
    struct slice name, value;
    size_t at = 0;
    int r = buf_append_byte(out, '{');
    while (r == 0 && loki_next_label(labels, &at, &name, &value)) {
        char text[LOKI_LABEL_VALUE_MAX + 4];
        size_t n = 0;
        for (size_t i = 0; i < value.len && n < LOKI_LABEL_VALUE_MAX;)
            n += loki_unescape(value, &i, text + n);
        r = print_metadata(&p, name, slice_of(text, n));
    }
    return r == 0 ? buf_append_byte(out, '}') : r;
}

static int print_item(const struct item *item, struct buf *out)
{
    struct loki_entry e;
    struct print p = { .out = out };
    int r = loki_read_entry(item->data, &e, NULL, NULL);
    if (r == 0)
        r = buf_append_lit(out, "{\"timestamp\":\"");
    if (r == 0)
        r = clock_append_rfc3339(out, e.time_ns, 9);
    if (r == 0)
        r = buf_append_lit(out, "\",\"tenant\":");
    if (r == 0)
        r = buf_append_json_string(out, item->key);
    if (r == 0)
        r = buf_append_lit(out, ",\"labels\":");
    if (r == 0)
        r = print_labels(item->head, out);
    if (r == 0)
        r = buf_append_lit(out, ",\"line\":");
    if (r == 0)
        r = buf_append_json_string(out, e.line);
    if (r == 0)
        r = buf_append_lit(out, ",\"metadata\":{");
    if (r == 0)
        r = loki_read_entry(item->data, &e, print_metadata, &p);
    return r == 0 ? buf_append_lit(out, "}}\n") : r;
}

int loki_print(const struct output *out, const struct items *items, struct buf *ndjson)
{
    (void)out;
    size_t len_before = ndjson->len;
    for (size_t i = 0; i < items->n; i++) {
        int r = print_item(&items->item[i], ndjson);
        if (r < 0) {
            ndjson->len = len_before;
            return r;
        }
    }
    return 0;
}
