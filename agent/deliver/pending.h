/*
 * pending.h - frames in the sender's hands, and the parts of them that are still to be settled.
 *
 * A frame of the queue is settled when each of its lines is: at the server, in dead/, parked or counted lost. Then, and
 * only then, it is acknowledged. It begins as one part with all lines; refusals may cut it into smaller ones.
 *
 * Owns:    frames own their rows and body, parts their bits.
 * Threads: the sender's.
 */
#ifndef TAILRACE_DELIVER_PENDING_H
#define TAILRACE_DELIVER_PENDING_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/base/stats.h"
#include "agent/queue/queue.h"
#include "outputs/output.h"

#define FRAME_ROWS_MAX 256 /* a run's row is one byte */
#define INPUT_UNKNOWN UINT32_MAX

struct delivery;
struct lane;

enum fate { FATE_DELIVERED, FATE_DEAD, FATE_PARKED, FATES };

/* Lines of one (input, tenant), and what became of them. The ledger hears of it when the frame is settled: until then a
 * crash would send all of it again. Of parked lines it hears at once, for they may be delivered before the rest is settled. */
struct line_row {
    struct output_row *ledger;
    uint32_t input;            /* index, INPUT_UNKNOWN when it left the configuration */
    uint32_t left;             /* not settled */
    uint32_t fates[FATES];
};

struct frame {
    struct frame *next, *prev;  /* the window, by seq; parked frames stand apart */
    struct delivery *d;
    struct frame_head head;
    struct lane *lane;          /* of its route */
    struct buf body;            /* loaded ahead; empty: load again */
    struct line_row *rows;
    uint32_t n_rows;
    uint32_t n_open;            /* parts and jobs that are not settled */
    bool is_damaged;            /* found so on a later load: the queue has acknowledged it */
    bool has_accepted;          /* the server took lines of it */
    uint32_t n_refusals;        /* bisecting, before anything was accepted */
    int64_t refused_ns;         /* first of them */
    struct deferral *deferral;  /* NULL when no line is */
};

/* Single lines refused while nothing of their frame was accepted. */
struct deferral {
    struct part *lines;         /* in no lane; counted in n_open */
    int32_t status;
    char reason[64], text[320]; /* of the last */
};

struct part {
    struct part *next;  /* in its lane, or in its shipment */
    struct frame *frame;
    uint8_t *bits;      /* which lines of the frame; NULL = all */
    uint32_t n;         /* lines */
    uint32_t first;     /* index of the first */
    uint32_t *row_lines;/* of each row of the frame; NULL: bits is NULL, or the frame has one row */
    bool as_text;       /* Elasticsearch: this once as message text */
    bool is_alone;      /* not to be joined with others */
    unsigned resets;    /* in a row */
    unsigned outrun;    /* of them: since the one before another request had begun and passed */
    int64_t reset_ns;   /* the last of them */
};

/* A frame's meta and body, read from disk. */
struct loaded {
    struct buf meta, body;
    struct frame_meta fields;             /* slices into meta */
    struct frame_row rows[FRAME_ROWS_MAX];
};

void loaded_init(struct loaded *ld, uint8_t account);
void loaded_deinit(struct loaded *ld);
/* 0, -EBADMSG (damaged: the queue has acknowledged it), -ENOMEM, or the disk's error. */
NODISCARD int loaded_read(struct loaded *ld, struct queue *q, const struct frame_head *head);

/* Not in the window yet. lane: of its route. NULL = out of memory. */
struct frame *frame_new(struct delivery *d, const struct frame_head *head, const struct loaded *ld, struct lane *lane);
/* One thing less to settle; when it was the last, the frame is acknowledged (or unparked) and freed. */
void frame_settle_one(struct frame *f);
void frame_unlink(struct frame *f); /* out of the window */
/* Frees without settling: the sender ends. */
void frame_free(struct frame *f);
/* The same for one thing that is not settled; the last frees the frame. */
void frame_let_go(struct frame *f);
void frame_drop_body(struct frame *f);

/* Notes the fate of lines of one row, at most what is left. */
void frame_count(struct frame *f, uint32_t row, uint32_t lines, enum fate fate);
/* The same for all lines that are left. */
void frame_count_all(struct frame *f, enum fate fate);
/* Into the ledger. */
void frame_commit(const struct frame *f);

/* All lines of a frame; counted in n_open. NULL = out of memory. */
struct part *part_whole(struct frame *f);
/* The lines idx[0..n), ascending, of f, which has n_items; row_of: the row of each of its lines, NULL: all row 0. */
struct part *part_some(struct frame *f, const uint32_t *idx, uint32_t n, uint32_t n_items, const uint8_t *row_of);
/* One line more for a part of some: index of the frame's items, not in it yet. */
void part_add(struct part *p, uint32_t index, uint32_t row);
/* Counts all its lines. */
void part_count(const struct part *p, enum fate fate);
/* Frees it and settles its share of the frame. */
void part_settle(struct part *p);
void part_free(struct part *p); /* leaves n_open as it is */
/* The indexes of its lines in the frame, ascending: n of them into idx. */
void part_indexes(const struct part *p, uint32_t *idx);

/* The row of each line: rows[i] for i < n. runs as in struct body; what they do not say is row 0. */
void runs_decode(struct slice runs, uint8_t *rows, size_t n);
/* The other way, for chosen lines. */
NODISCARD int runs_encode(const uint8_t *rows, size_t n, struct buf *out);

#endif
