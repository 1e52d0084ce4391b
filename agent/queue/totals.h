/*
 * totals.h - two small tables by name that the queue keeps in its own files: lines accepted by (input, tenant) with the
 * input's ledger beside them, and lines dead or lost by tenant.
 *
 * Each number of the first table has two values: as written, and as of the last durable group, to which a failed sync
 * goes back. Rows are made on first use and never removed; row pointers are valid until the next _get.
 */
#ifndef TAILRACE_QUEUE_TOTALS_H
#define TAILRACE_QUEUE_TOTALS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/queue/queue.h"

struct totals_row {
    struct slice input, tenant;   /* owned */
    uint64_t lines, durable_lines;
    uint64_t prepared;            /* scratch of one append */
    struct ledger_row ledger, durable_ledger;
    bool has_ledger, has_durable_ledger, is_dirty;
    uint32_t next_dirty; /* row number + 1 */
};

struct totals {
    struct totals_row *rows;
    size_t n, cap;
    uint32_t *index; /* hash table of row number + 1 */
    size_t n_index;  /* a power of two, 0 = none */
    uint32_t dirty;  /* rows that differ from their durable values: number + 1 of the first */
    uint64_t lines, durable_lines;   /* sums */
    uint64_t frames, durable_frames; /* DATA frames */
};

void totals_deinit(struct totals *t); /* zeroed is fine */
/* NULL when out of memory. */
struct totals_row *totals_get(struct totals *t, struct slice input, struct slice tenant);
struct totals_row *totals_find(const struct totals *t, struct slice input, struct slice tenant); /* NULL: none */
/* Says that a row's values are about to change. */
void totals_touch(struct totals *t, struct totals_row *row);
void totals_commit(struct totals *t);
void totals_rollback(struct totals *t);
void totals_clear_lines(struct totals *t);
void totals_clear(struct totals *t); /* all zero as written; durable values stay */
NODISCARD int totals_add(struct totals *t, struct slice input, struct slice tenant, uint64_t lines);
/* The lines of each row. -ENOMEM: not of all. */
NODISCARD int totals_add_all(struct totals *t, const struct totals *from);
/* t -= other, row by row, not below zero. */
void totals_subtract(struct totals *t, const struct totals *other);
/* COUNT, LEDGER and TOTAL items of everything as written. */
NODISCARD int totals_put(const struct totals *t, struct buf *meta, bool with_ledger);
/* An item of a meta: COUNT sets (not adds), LEDGER sets, TOTAL sets the sums. Others pass. */
NODISCARD int totals_take(struct totals *t, uint8_t tag, struct slice bytes);

struct tally_row {
    struct slice tenant; /* owned */
    uint64_t dead;       /* dead letters that were not lost since */
    uint64_t lost[LOST_REASONS], lost_bytes[LOST_REASONS];
};

struct tally {
    struct tally_row *rows;
    size_t n, cap;
};

void tally_deinit(struct tally *t);
struct tally_row *tally_get(struct tally *t, struct slice tenant); /* NULL when out of memory */
NODISCARD int tally_put(const struct tally *t, struct buf *meta);
NODISCARD int tally_take(struct tally *t, struct slice bytes); /* a TALLY item sets its row */

#endif
