/*
 * loki.h - what the files of the Loki output share: loki.c (settings, a record's way into a body),
 * loki_streams.c (what is known of each stream), loki_wire.c (bytes of labels, entries and requests),
 * loki_reply.c (replies to verdicts).
 */
#ifndef TAILRACE_OUTPUTS_LOKI_H
#define TAILRACE_OUTPUTS_LOKI_H

#include "outputs/enrich.h"
#include "outputs/output.h"

/* Loki passes a push on by gRPC, whose messages end at 4 MiB: above it the answer is 500 and part of it is
 * stored. */
#define LOKI_RAW_MAX (3 * MIB)
/* What we take back from our own frames; join() never makes more than LOKI_RAW_MAX. */
#define LOKI_DECODED_MAX (4 * MIB)
#define LOKI_ITEMS_MAX (1u << 18)

/* Loki's own limits, at their defaults. */
#define LOKI_LABELS_MAX 15        /* service_name is not counted */
#define LOKI_LABEL_VALUE_MAX 2048 /* TEMPLATE_OUT_MAX keeps it */
#define LOKI_METADATA_PAIRS_MAX 128
#define LOKI_METADATA_BYTES_MAX (64 * KIB) /* names and values of one entry */
#define LOKI_TENANT_MAX 150

#define LOKI_LATE_STEPS 9
#define LOKI_STREAMS_MAX 8192
#define LOKI_STREAM_KEYS_MAX (4 * MIB)

/* ---- loki_streams.c: the newest entry of each stream, and which times are used ---- */

struct loki_part;

#define LOKI_USED_MAX 8

/* Times first..last of the stream are taken: equal times step by 1 ns, so that real repeats survive (queue.md
 * §7). */
struct loki_used {
    int64_t first, last;
};

/* One stream of one tenant. Lives in a pool: a pointer stays readable, and is the same stream while id is the
 * same. */
struct loki_stream {
    uint64_t id, hash;
    struct loki_stream *hash_next, *newer, *older;
    char *key; /* route, then labels */
    uint32_t route_len, labels_len;
    bool has_newest;
    uint8_t n_used, next_used;
    int64_t newest_ns;
    struct loki_used one, *more; /* the times: one until there is a second, then LOKI_USED_MAX at more */
    struct loki_stream *late; /* the stream of the next late step, while late->id == late_id */
    uint64_t late_id;
    uint64_t body_serial; /* part belongs to the body with this serial */
    struct loki_part *part;
};

struct loki_streams;

NODISCARD int loki_streams_new(size_t max, struct loki_streams **ret_streams);
void loki_streams_free(struct loki_streams *ss);
/* Found or made; the least recently used is forgotten beyond max. NULL = out of memory. Valid until the next
 * call. */
struct loki_stream *loki_streams_get(struct loki_streams *ss, struct slice route, struct slice labels);
/* It was used just now. */
void loki_streams_touch(struct loki_streams *ss, struct loki_stream *s);

static inline struct slice loki_stream_route(const struct loki_stream *s)
{
    return slice_of(s->key, s->route_len);
}
static inline struct slice loki_stream_labels(const struct loki_stream *s)
{
    return slice_of(s->key + s->route_len, s->labels_len);
}

/* The first free time at or after ts; nothing changes. */
int64_t loki_stream_free_time(const struct loki_stream *s, int64_t ts);
/* The entry is in: time was free, newest follows. */
void loki_stream_use_time(struct loki_stream *s, int64_t ts);

/* ---- loki_wire.c ---- */

struct loki_part {  /* one Stream message in the making */
    struct buf msg; /* its labels and entries */
    uint32_t lines;
    uint32_t run_row, run_lines; /* the run in the making */
    struct buf runs;
};

struct loki_parts { /* body->parts */
    uint64_t serial;
    uint8_t account;
    struct loki_part **part;
    size_t n, cap;
};

/* name="value" with what Loki cannot hold replaced; ", " before it unless it is the first behind the brace.
 */
NODISCARD int loki_append_label(struct buf *out, struct slice name, struct slice value);
/* A LabelPair of structured metadata as a field of an Entry; bytes that are not UTF-8 become '?'. */
NODISCARD int loki_append_metadata(struct buf *out, struct slice name, struct slice value);
/* The labels as the first field of a Stream. */
NODISCARD int loki_begin_stream(struct buf *out, struct slice labels);
/* An Entry as a field of a Stream. metadata: fields made by loki_append_metadata. */
NODISCARD int loki_append_entry(struct buf *out, int64_t time_ns, struct slice line, struct slice metadata);
size_t loki_entry_most(struct slice line, struct slice metadata); /* no entry of these is longer */

/* The next label of {a="b", c="d"}; *at counts bytes of labels and starts at 0. value is escaped still. false
 * = no more, and *at is behind the brace, or 0 when this is no label set. */
bool loki_next_label(struct slice labels, size_t *at, struct slice *ret_name, struct slice *ret_value);
/* The byte that *at stands for in an escaped value, as UTF-8 into up to 4 bytes; how many. *at moves on. */
size_t loki_unescape(struct slice value, size_t *at, char bytes[4]);

struct loki_entry {
    int64_t time_ns;
    struct slice line;
    size_t metadata_pairs, metadata_bytes;
};
/* Reads an Entry message; each (may be NULL) is called for its metadata. -EBADMSG. */
NODISCARD int loki_read_entry(struct slice msg, struct loki_entry *ret_entry,
                              int (*each)(void *ctx, struct slice name, struct slice value), void *ctx);

/* The same from the field that loki_append_entry makes. */
NODISCARD int loki_read_entry_field(struct slice field, struct loki_entry *ret_entry,
                                    int (*each)(void *ctx, struct slice name, struct slice value), void *ctx);

int loki_seal(struct output *out, struct body *b, struct buf *wire);
void loki_discard(struct output *out, struct body *b);
int loki_items(const struct output *out, struct slice wire, struct slice route, struct items *ret);
int loki_build(struct output *out, const struct items *items, const uint8_t *choose, bool as_text,
               struct buf *wire);
int loki_join(struct output *out, const struct slice *wires, size_t n, struct buf *wire);
int loki_print(const struct output *out, const struct items *items, struct buf *ndjson);

/* ---- loki_reply.c ---- */

void loki_judge(struct output *out, const struct http_reply *reply, struct slice wire, struct judgement *ret);
void loki_judge_items(struct output *out, const struct http_reply *reply, const struct items *items,
                      struct judgement *ret);

#endif
