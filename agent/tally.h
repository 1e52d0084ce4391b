/*
 * tally.h - the reader's side of the ledger: what was read, kept and filtered, by (input, tenant), once for the agent
 * and once for each output as of the place where it stands.
 *
 * The agent's own rows count a line when it is first read. An output's rows count it when this output's pass reads it,
 * and travel in its commit groups; after a restart the rows of the furthest output become the agent's, and lines
 * beyond that output's positions are counted again as they are read: so the sum is exact across crashes.
 * Threads: reader.
 */
#ifndef TAILRACE_AGENT_TALLY_H
#define TAILRACE_AGENT_TALLY_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/stats.h"
#include "agent/queue/queue.h"
#include "conf/conf.h"

struct tally_cell {
    uint64_t read_lines, read_bytes, kept_lines, filtered[FILTER_REASONS];
};

struct tally {
    uint32_t input, tenant;
    uint32_t dirty;           /* outputs whose cell changed since their last group */
    struct input_row *row;
    struct tally *next_in_slot, *next;
    struct tally_cell cells[]; /* by output */
};

struct tallies;

enum tally_outcome { TALLY_KEPT = -1 /* or an enum filter_reason */ };

struct tallies *tallies_new(const struct conf *conf);
void tallies_free(struct tallies *ts);
/* NULL only when out of memory. */
struct tally *tallies_get(struct tallies *ts, uint32_t input, uint32_t tenant);
void tally_count(struct tally *t, uint32_t outputs, bool is_first, uint64_t bytes, int outcome);
/* Bytes of a line that was cut, behind what became its record; first_bytes: those that are read for the first time. */
void tally_skip(struct tally *t, uint32_t outputs, uint64_t bytes, uint64_t first_bytes);

/* What an output's queue recovered; with is_reference the agent's own rows start from it too. */
NODISCARD int tallies_restore(struct tallies *ts, uint32_t output, const struct ledger_row *rows, size_t n,
                              bool is_reference);
/* A sync of the output's queue failed: its rows are these again. */
NODISCARD int tallies_fence(struct tallies *ts, uint32_t output, const struct ledger_row *rows, size_t n);
/* The changed rows of an output, borrowed until the next call. */
NODISCARD int tallies_collect(struct tallies *ts, uint32_t output, const struct ledger_row **ret_rows, size_t *ret_n);

#endif
