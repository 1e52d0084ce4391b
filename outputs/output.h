/*
 * output.h - the seam between the agent and a kind of output: record -> wire body, reply -> verdict.
 *
 * Three parts, three threads, nothing shared between them but read-only configuration:
 *   reader: append() puts a record into the open body of its route key;
 *   writer: seal() turns a full body into the final bytes (compressed once, as they lie on disk and go out);
 *   sender: request(), judge(), items(), build(), join() — or, for outputs on this machine, deliver().
 * A new output is one file here, a row in agent/registry.c, a config sample, tests and a docs paragraph.
 */
#ifndef TAILRACE_OUTPUTS_OUTPUT_H
#define TAILRACE_OUTPUTS_OUTPUT_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/base/output_conf.h"
#include "agent/base/record.h"
#include "agent/base/sources.h"
#include "agent/base/stats.h"

/* Numbers for the segment header; never reused. */
enum wire_form { WIRE_LOKI_PROTO_SNAPPY = 1, WIRE_ES_BULK_GZIP = 3, WIRE_NDJSON_GZIP = 4, WIRE_NDJSON = 5 };

/* Whose lines a body holds, for the ledger: COUNT of queue.md §2. */
struct body_row {
    uint32_t input, tenant;
    uint32_t lines;
};

/* One request body in the making. Made by bodies_get, appended to by its output, handed to the writer when full.
 * Its memory is counted in raw.account, its parts' too. */
struct body {
    struct body *next;          /* in the list of whoever holds it */
    struct buf route;           /* the route key: Loki tenant, Elasticsearch index or "" (many), path template's value */
    struct buf raw;             /* the output's encoding, before compression */
    void *parts;                /* the output's own (Loki: its streams); freed by ops->discard */
    size_t raw_bytes;           /* what batch_bytes is compared with */
    uint32_t lines;
    bool is_alone;              /* goes to the server without another of its route beside it: their order matters */
    struct body_row *rows;      /* distinct (input, tenant) */
    uint32_t n_rows, cap_rows;
    struct buf runs;            /* {u8 row, LEB128 count}…: row of each line, in the order of items(); empty: one row */
    uint32_t run_row, run_lines;/* the run in the making: body_end_runs() puts it into runs */
    struct buf sources;         /* agent/base/sources.h; body_end_sources() puts the last ones into it */
    uint64_t source_file;       /* incarnation of the file that the last line came from */
    struct source_span spans[STREAMS_MAX]; /* of that file; incarnation 0: none of this stream */
    uint32_t n_sources;
    bool has_no_sources;        /* they would be too many, or there was no memory */
    int64_t opened_mono_ns;
    int64_t oldest_read_ns;     /* wall clock, for delivery delay */
};

/* The open bodies of one output, by route key. */
struct bodies {
    struct body **table;        /* hash table */
    size_t n_table, n_open;
    struct body *first;         /* all open ones, oldest first */
    struct body *last;          /* asked for last, or NULL: most often it is asked for again */
    size_t raw_bytes;           /* of all */
    size_t body_max;            /* hard cap of one body's raw */
    uint8_t account;            /* of the memory of bodies made from now on, see budget.h */
    /* While ranges are read again: is this record in another frame? append() then does not take it. NULL: nothing is. */
    bool (*is_held)(void *ctx, struct slice route, const struct record *rec);
    void *held_ctx;
};

NODISCARD int bodies_init(struct bodies *bs, size_t body_max);
void bodies_deinit(struct bodies *bs);
/* The open body of a route key, made when there is none; NULL = out of memory. */
struct body *bodies_get(struct bodies *bs, struct slice route);
/* Takes it out; the caller owns it. */
void bodies_take(struct bodies *bs, struct body *b);
/* Counts one line of the record's (input, tenant), also in b->runs. -ENOBUFS when the body has BODY_ROWS_MAX rows and
 * this would be another. For outputs whose items come in the order of append(): seal() calls body_end_runs(). */
NODISCARD int body_count(struct body *b, const struct record *rec);
/* The row of the record, made when there is none; nothing is counted. For outputs that order lines themselves: they
 * count by body_count_row() and fill b->runs in seal() by body_add_run(). */
NODISCARD int body_row(struct body *b, const struct record *rec, uint32_t *ret_row);
void body_count_row(struct body *b, const struct record *rec, uint32_t row);
NODISCARD int body_add_run(struct buf *runs, uint32_t row, uint32_t lines);
/* Writes the run in the making; with one row the runs stay empty. */
NODISCARD int body_end_runs(struct body *b);
/* Where all its records begin; empty when that is not known. */
struct slice body_end_sources(struct body *b);
static inline bool bodies_hold(const struct bodies *bs, struct slice route, const struct record *rec)
{
    return bs->is_held != NULL && bs->is_held(bs->held_ctx, route, rec);
}
#define BODY_ROWS_MAX 256 /* a run's row is one byte */
void body_free(struct body *b); /* parts must be gone */

/* One of the lines in a wire body, as items() finds it. */
struct item {
    struct slice key;   /* route key of this line: tenant; index or data stream */
    struct slice head;  /* Loki: labels; Elasticsearch: the action line */
    struct slice data;  /* Loki: the Entry message; Elasticsearch: the document; ndjson: the line */
    struct slice id;    /* Elasticsearch _id, else empty */
    int64_t time_ns;    /* of the record, when the form has it, else 0 */
};

struct items {
    struct item *item;
    size_t n, cap;
    struct buf raw;     /* decompressed bytes that the slices point into */
};
NODISCARD int items_add(struct items *it, struct item item);
void items_deinit(struct items *it);

enum item_verdict { ITEM_DONE, ITEM_RETRY, ITEM_HOLD, ITEM_TEXT, ITEM_DEAD };

struct http_reply {
    long status;               /* 0: no complete reply; failure says why */
    const char *failure;       /* "timeout" "refused" "reset" "dns" "tls" "proxy" "write" …, NULL with a status */
    struct slice failure_text; /* curl's words */
    struct slice body;         /* at most HTTP_REPLY_MAX bytes */
    bool is_cut;               /* the body was longer */
    struct slice content_type;
    int64_t retry_after_ns;    /* -1: none */
    uint32_t lines_sent;       /* lines in the request's body; 0 = not known, then judge() asks for the items */
};
#define HTTP_REPLY_MAX (1 * MIB)

enum verdict {
    VERDICT_SENT,  /* all lines are there */
    VERDICT_ITEMS, /* per line: judgement.items */
    VERDICT_RETRY, /* the same bytes again after a back-off, for ever */
    VERDICT_SPLIT, /* too large: halves, down to one line, then dead */
    VERDICT_BISECT,/* the whole request was refused for something in it: halves; a single refused line is dead; when
                      every part of a frame is refused it is the configuration: HOLD */
    VERDICT_HOLD   /* the configuration or the server is wrong: retry each minute, loudly; never dead */
};

struct judgement {
    enum verdict verdict;
    char reason[64];   /* a word for metrics: unauthorized, rate_limited, mapping, too_large … */
    char text[320];    /* the server's words, for people */
    enum item_verdict *items;  /* VERDICT_ITEMS: caller's array of as many as items.n */
    char (*item_reasons)[64];  /* for ITEM_DEAD, ITEM_HOLD, ITEM_TEXT; caller's array or NULL */
    bool partly_stored;        /* ITEM_DEAD lines may be there after all */
};

struct http_request {
    struct buf url;       /* the whole address */
    struct buf headers;   /* "Name: value" LF … : Content-Type, Content-Encoding, tenant; not auth, not conf.headers */
    const char *method;   /* POST */
};

struct output;

struct frame_ref {     /* what an output on this machine needs to know of a frame */
    uint64_t seq;
    struct slice route;
    struct slice wire;
    uint32_t lines;
};

struct append_result {
    struct body *body;           /* that got the line; NULL when it was not taken */
    bool is_filtered;            /* not taken, on purpose: too_old, or bodies_hold() */
    uint32_t altered;            /* mask of 1 << enum alter_reason, this output's own */
};

struct output_ops {
    const struct output_type *type;
    uint32_t wire_form;
    bool is_local;       /* deliver() instead of HTTP */
    bool find_duplicates;/* refuses documents with duplicate keys: the scanner must look */

    int (*open)(const struct output_conf *conf, struct output **ret_out, struct err *err);
    void (*close)(struct output *out); /* NULL is fine */

    /* Names that this output adds to a record, for the scanner's suspects: dotted paths; *n of them. */
    const struct slice *(*trusted)(const struct output *out, size_t *n);

    /* --- reader thread --- */
    /* 0, -ENOMEM, or -ENOBUFS when the body has no room (close it and call again). The line is in or it is not. */
    int (*append)(struct output *out, const struct record *rec, struct append_result *ret);
    /* Frees body->parts. */
    void (*discard)(struct output *out, struct body *b);
    /* What the record would become, in words and bytes, for `explain`. */
    int (*explain)(struct output *out, const struct record *rec, struct buf *text);

    /* --- writer thread --- */
    /* The final bytes of a body, appended to wire. Fills b->runs when there is more than one row. */
    int (*seal)(struct output *out, struct body *b, struct buf *wire);

    /* Nothing is to be sealed for now: scratch memory goes back. NULL is fine. */
    void (*rest)(struct output *out);

    /* --- sender thread (HTTP) --- */
    int (*request)(struct output *out, struct slice route, size_t url_index, struct http_request *ret);
    /* items: of the body that was sent, decoded on demand by need_items (NULL when it cannot be decoded). */
    void (*judge)(struct output *out, const struct http_reply *reply, struct slice wire, struct judgement *ret);
    /* The same with the lines at hand: called when judge() said VERDICT_ITEMS without filling; fills ret->items. */
    void (*judge_items)(struct output *out, const struct http_reply *reply, const struct items *items,
                        struct judgement *ret);
    /* Decodes a wire body into its lines. -EBADMSG when it is not ours. */
    int (*items)(const struct output *out, struct slice wire, struct slice route, struct items *ret);
    /* A wire body of chosen lines (choose[i] != 0), in order; as_text: this once as message text (Elasticsearch). */
    int (*build)(struct output *out, const struct items *items, const uint8_t *choose, bool as_text, struct buf *wire);
    /* Several bodies of one route in one; NULL when the form cannot. raw_max bounds the decoded size. */
    int (*join)(struct output *out, const struct slice *wires, size_t n, struct buf *wire);
    /* A small request before the first lines: NULL when there is none. Steps are alternatives: the first that the server
     * takes is the last; when it takes none (false = no more steps) that is logged and tolerated. step counts from 0.
     * Elasticsearch: index template. */
    bool (*setup_request)(struct output *out, unsigned step, size_t url_index, struct http_request *ret, struct buf *body);

    /* --- sender thread (local) --- */
    int (*deliver)(struct output *out, const struct frame_ref *frame, struct err *err); /* 0, or -errno: try again */
    /* Makes what was delivered up to seq durable; after it the cursor may pass seq. */
    int (*checkpoint)(struct output *out, uint64_t seq, struct err *err);
    /* The last durable seq after open(): frames up to it are delivered already. */
    uint64_t (*delivered)(const struct output *out);

    /* Plain text lines of a wire body, for `queue cat` and `export`: one JSON object a line. */
    int (*print)(const struct output *out, const struct items *items, struct buf *ndjson);
};

/* Every output begins with this. */
struct output {
    const struct output_ops *ops;
    const struct output_conf *conf;
    struct bodies open;
    /* Set by the agent after open(): lines of an earlier life, read up to this time (wall clock), may be on the server.
     * 0: none. */
    int64_t resumed_ns;
    uint64_t life; /* with it: differs in each start of the same queue */
};

extern const struct output_ops loki_ops, elasticsearch_ops, file_ops, stdout_ops;
extern const struct output_type loki_type, elasticsearch_type, file_type, stdout_type;

#endif
